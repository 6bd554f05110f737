"""The bigram baseline: the next token depends on the last one alone."""

from __future__ import annotations

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
