"""The bigram baseline: the next token depends on the last one alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Bigram(nn.Module):
    """A table that holds, for each token, the scores of what follows it."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.table = nn.Embedding(vocab_size, vocab_size)
        nn.init.zeros_(self.table.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: (B, T) integers. Returns logits (B, T, vocab_size)."""
        return self.table(tokens)

    @torch.no_grad()
    def fit(self, tokens: Tensor) -> None:
        """Set the table to what gradient descent on ``tokens`` (N,) approaches: logarithms of counts, plus one each."""
        size = self.table.num_embeddings
        pairs = tokens[:-1] * size + tokens[1:]  # (N - 1,)
        counts = torch.bincount(pairs, minlength=size * size).view(size, size)
        self.table.weight.copy_((counts + 1.0).log())
