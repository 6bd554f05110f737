"""DiT: a transformer that denoises images, conditioned through its norms (Peebles and Xie, arXiv:2212.09748)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..attention import SelfAttention
from ..layers import FeedForward, sinusoids
from .conditioning import TimeAndContext


@dataclass(frozen=True)
class DiTConfig:
    """Everything that fixes the network's weights; stored with every checkpoint."""

    channels: int = 3
    """Colour channels of the images."""
    contexts: int = 5
    """Length of the context vector."""
    size: int = 16
    """Height and width of the images in pixels."""
    patch: int = 2
    """Height and width of a patch in pixels; one token each."""
    d_model: int = 128
    """Width of a token."""
    layers: int = 4
    """Transformer blocks."""
    heads: int = 4
    """Attention heads."""


class AdaptiveNorm(nn.Module):
    """adaLN-zero: LayerNorm whose scale and shift, and the gate of the sublayer behind it, come from the condition.

    All three begin at zero, so that every block begins as the identity and the depth is learned.
    """

    def __init__(self, d_model: int, condition: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(condition, 3 * d_model)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """x: (B, T, C); condition: (B, condition). Returns the modulated x (B, T, C) and the gate (B, 1, C)."""
        scale, shift, gate = self.modulation(functional.silu(condition))[:, None].chunk(3, dim=-1)  # (B, 1, C) each
        return functional.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift, gate


class DiTBlock(nn.Module):
    """Self-attention and feed-forward, each between an adaptive norm and its gate."""

    def __init__(self, d_model: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = AdaptiveNorm(d_model, d_model), SelfAttention(d_model, heads)
        self.norm2, self.feed_forward = AdaptiveNorm(d_model, d_model), FeedForward(d_model, 4 * d_model, "gelu_tanh")

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x: (B, T, C); condition: (B, C). Returns (B, T, C)."""
        h, gate = self.norm1(x, condition)
        x = x + gate * self.attention(h)  # (B, T, C)
        h, gate = self.norm2(x, condition)
        return x + gate * self.feed_forward(h)  # (B, T, C)


class DiT(nn.Module):
    """Denoises square images of one size; the same call as ``ContextUnet``."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        if config.size % config.patch:
            raise ValueError(f"patches of {config.patch} pixels do not tile images of {config.size}")
        self.config = config
        pixels = config.channels * config.patch**2
        self.condition = TimeAndContext(config.d_model, config.contexts)
        self.embed = nn.Linear(pixels, config.d_model)
        self.register_buffer("positions", grid_positions(config.size // config.patch, config.d_model), persistent=False)
        self.positions: Tensor
        self.blocks = nn.ModuleList(DiTBlock(config.d_model, config.heads) for _ in range(config.layers))
        self.norm = AdaptiveNorm(config.d_model, config.d_model)
        self.out = nn.Linear(config.d_model, pixels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, time: Tensor, context: Tensor) -> Tensor:
        """x: (B, C, S, S) noisy images; time: (B,) in 0 … 1; context: (B, contexts). Returns (B, C, S, S)."""
        patch, size = self.config.patch, x.shape[-2:]
        condition = self.condition(time, context)  # (B, d_model)
        tokens = functional.unfold(x, patch, stride=patch).transpose(1, 2)  # (B, T, pixels)
        tokens = self.embed(tokens) + self.positions  # (B, T, d_model)
        for block in self.blocks:
            tokens = block(tokens, condition)  # (B, T, d_model)
        tokens, _ = self.norm(tokens, condition)  # (B, T, d_model)
        return functional.fold(self.out(tokens).transpose(1, 2), size, patch, stride=patch)  # (B, C, S, S)


def grid_positions(side: int, d_model: int) -> Tensor:
    """Return (side², d_model) waves of a square grid's patches, row by row: half tell the row, half the column."""
    waves = sinusoids(torch.arange(side), d_model // 2)  # (side, d_model/2)
    rows, columns = waves.repeat_interleave(side, dim=0), waves.repeat(side, 1)  # (side², d_model/2) each
    return torch.cat([rows, columns], dim=1)  # (side², d_model)
