"""The parts of the action head: attention with reusable keys and values, feed-forward, layers of one embodiment.

Attribute names are those of the checkpoint's tensors (which are diffusers'), so a state dict needs no renaming.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of one attention, (B, heads, N, head_dim) each."""


class Attention(nn.Module):
    """Multi-head attention without mask or position; every projection has a bias."""

    def __init__(self, width: int, heads: int, head_dim: int, source_width: int, dropout: float) -> None:
        """width: of the queries' tokens; source_width: of the tokens that are attended to."""
        super().__init__()
        self.heads = heads
        inner = heads * head_dim
        self.to_q = nn.Linear(width, inner)
        self.to_k = nn.Linear(source_width, inner)
        self.to_v = nn.Linear(source_width, inner)
        self.to_out = nn.ModuleList([nn.Linear(inner, width), nn.Dropout(dropout)])

    def keys_values(self, source: Tensor) -> KeysValues:
        """source: (B, N, source_width). Returns what ``forward`` attends to; the same for every query."""
        return self._split(self.to_k(source)), self._split(self.to_v(source))

    def forward(self, x: Tensor, keys_values: KeysValues) -> Tensor:
        """x: (B, T, width). Returns (B, T, width)."""
        mixed = functional.scaled_dot_product_attention(self._split(self.to_q(x)), *keys_values)  # (B, heads, T, dim)
        projection, dropout = self.to_out
        return dropout(projection(mixed.transpose(1, 2).flatten(2)))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, T, head_dim)


class _Gelu(nn.Module):
    """A projection followed by GELU in its tanh form."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, inner)

    def forward(self, x: Tensor) -> Tensor:
        return functional.gelu(self.proj(x), approximate="tanh")


class FeedForward(nn.Module):
    """Four times the width and back, tanh-GELU between."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.net = nn.ModuleList(
            [_Gelu(width, 4 * width), nn.Dropout(dropout), nn.Linear(4 * width, width), nn.Dropout(dropout)]
        )

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, T, width). Returns (B, T, width)."""
        for layer in self.net:
            x = layer(x)
        return x


class CategoryLinear(nn.Module):
    """A linear layer per embodiment: ``x W[c] + b[c]``."""

    def __init__(self, categories: int, width: int, out: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.empty(categories, width, out))
        nn.init.normal_(self.W, std=0.02)
        self.b = nn.Parameter(torch.zeros(categories, out))

    def forward(self, x: Tensor, category: int | Tensor) -> Tensor:
        """x: (B, T, width); category: (B,) integers, or one for all rows, which copies no weights. (B, T, out)."""
        if isinstance(category, int):
            return x @ self.W[category] + self.b[category]
        return torch.baddbmm(self.b[category][:, None], x, self.W[category])


class CategoryMLP(nn.Module):
    """Two linear layers per embodiment with a ReLU between."""

    def __init__(self, categories: int, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.layer1 = CategoryLinear(categories, width, hidden)
        self.layer2 = CategoryLinear(categories, hidden, out)

    def forward(self, x: Tensor, category: int | Tensor) -> Tensor:
        """x: (B, T, width). Returns (B, T, out)."""
        return self.layer2(torch.relu(self.layer1(x, category)), category)


class ActionEncoder(nn.Module):
    """Noisy actions and their time as tokens: ``W3 swish(W2 [W1 a ; waves(t)])``."""

    def __init__(self, categories: int, action_dim: int, width: int) -> None:
        super().__init__()
        self.W1 = CategoryLinear(categories, action_dim, width)
        self.W2 = CategoryLinear(categories, 2 * width, width)
        self.W3 = CategoryLinear(categories, width, width)

    def forward(self, actions: Tensor, bucket: Tensor, category: int | Tensor) -> Tensor:
        """actions: (B, T, action_dim); bucket: (B,) integers, the time. Returns (B, T, width)."""
        width = self.W3.W.shape[-1]
        waves = action_time_waves(bucket, width).to(actions.dtype)  # (B, width)
        waves = waves[:, None].expand(-1, actions.shape[1], -1)  # (B, T, width)
        hidden = self.W2(torch.cat([self.W1(actions, category), waves], dim=-1), category)
        return self.W3(functional.silu(hidden), category)


def action_time_waves(bucket: Tensor, width: int) -> Tensor:
    """Return (..., width) float32 [sin | cos] of the integer times, at frequencies 1 down to 1e-4 (exclusive)."""
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device=bucket.device)
    angles = bucket[..., None].float() * torch.exp(-steps * (math.log(10000.0) / half))
    return torch.cat([torch.sin(angles), torch.cos(angles)], dim=-1)


def timestep_waves(bucket: Tensor, width: int = 256) -> Tensor:
    """Return (..., width) float32 [cos | sin] of the integer times, at frequencies 1 down to 1e-4 (inclusive)."""
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device=bucket.device)
    angles = bucket[..., None].float() * torch.exp(-math.log(10000.0) * steps / (half - 1))
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)
