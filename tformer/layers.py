"""The parts that every model here is built from, in the order in which a token meets them.

Shapes are written B (batch), T (tokens), C (``d_model``), H (heads), D (``C / H``, one head's width).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Activation = Literal["relu", "gelu", "gelu_tanh", "swiglu"]
Norm = Literal["layer", "rms"]
Positions = Literal["sinusoidal", "learned", "rotary"]


class TokenEmbedding(nn.Module):
    """A table of vectors, one per token, times sqrt(d_model) when ``scaled`` (Vaswani et al. 2017, section 3.4).

    The scale lets the embedding share its weights with the output projection: there rows want length about 1, here they
    must not drown in the positions, whose entries reach 1.
    """

    def __init__(self, vocab_size: int, d_model: int, scaled: bool = True) -> None:
        super().__init__()
        self.table = nn.Embedding(vocab_size, d_model)
        self.scale = math.sqrt(d_model) if scaled else 1.0

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: (B, T) integers. Returns (B, T, C)."""
        return self.table(tokens) * self.scale


class SinusoidalPositions(nn.Module):
    """Adds fixed waves of geometrically growing length (Vaswani et al. 2017, section 3.5)."""

    def __init__(self, max_len: int, d_model: int) -> None:
        super().__init__()
        self.register_buffer("waves", sinusoids(torch.arange(max_len), d_model), persistent=False)
        self.waves: Tensor

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """x: (B, T, C); positions: (T,) or (B, T) integers. Returns x + waves, (B, T, C)."""
        return x + self.waves[positions].to(x.dtype)


class LearnedPositions(nn.Module):
    """Adds a learned vector per position (GPT-2)."""

    def __init__(self, max_len: int, d_model: int) -> None:
        super().__init__()
        self.table = nn.Embedding(max_len, d_model)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """x: (B, T, C); positions: (T,) or (B, T) integers. Returns (B, T, C)."""
        return x + self.table(positions)


class RotaryPositions(nn.Module):
    """Turns each pair of query and key entries by an angle that grows with the position (Su et al. 2021).

    The dot product of a query at m and a key at n then depends on m - n alone. Nothing is added to the embeddings; one
    instance serves the attention of every layer.
    """

    def __init__(self, max_len: int, head_dim: int, base: float = 10_000.0) -> None:
        super().__init__()
        if head_dim % 2:
            raise ValueError(f"rotary positions turn pairs of entries, and a head's width of {head_dim} is odd")
        frequencies = base ** (-torch.arange(0, head_dim, 2) / head_dim)  # (D/2,)
        angles = torch.arange(max_len)[:, None] * frequencies  # (max_len, D/2)
        self.register_buffer("cos", angles.cos().repeat(1, 2), persistent=False)  # (max_len, D)
        # The sign of rotate-half lives in the table, so that turning is two products and one roll.
        self.register_buffer("sin", torch.cat([-angles.sin(), angles.sin()], dim=1), persistent=False)  # (max_len, D)
        self.cos: Tensor
        self.sin: Tensor

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """x: (B, H, T, D) queries or keys; positions: (T,) or (B, T). Returns x turned, (B, H, T, D)."""
        cos, sin = self.cos[positions].to(x.dtype), self.sin[positions].to(x.dtype)  # (T, D) or (B, T, D)
        if positions.dim() == 2:
            cos, sin = cos[:, None], sin[:, None]  # (B, 1, T, D)
        return x * cos + x.roll(x.size(-1) // 2, dims=-1) * sin


def sinusoids(values: Tensor, d_model: int, base: float = 10_000.0) -> Tensor:
    """Return sin and cos waves of ``values``, entries in turn: (N,) numbers to (N, d_model) float32.

    Also the embedding of diffusion times, where ``values`` need not be whole.
    """
    frequencies = base ** (-torch.arange(0, d_model, 2, device=values.device) / d_model)  # (C/2,)
    angles = values.float()[:, None] * frequencies  # (N, C/2)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :d_model]  # (N, C)


class LayerNorm(nn.Module):
    """``(x - mean) / sqrt(var + eps) * scale + shift`` over the last dimension (Ba et al. 2016)."""

    def __init__(self, d_model: int, shift: bool = True, eps: float = 1e-5) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(d_model))
        self.shift = nn.Parameter(torch.zeros(d_model)) if shift else None
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., C). Returns (..., C). One fused kernel computes the formula above."""
        return functional.layer_norm(x, self.scale.shape, self.scale, self.shift, self.eps)


class RMSNorm(nn.Module):
    """``x / sqrt(mean(x^2) + eps) * scale`` over the last dimension: no mean is taken away (Zhang, Sennrich 2019)."""

    def __init__(self, d_model: int, shift: bool = False, eps: float = 1e-5) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(d_model))
        self.shift = nn.Parameter(torch.zeros(d_model)) if shift else None
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., C). Returns (..., C)."""
        x = functional.rms_norm(x, self.scale.shape, self.scale, self.eps)
        return x if self.shift is None else x + self.shift


def make_norm(kind: Norm, d_model: int, bias: bool = True) -> nn.Module:
    """Return a norm of ``kind``; ``bias`` gives LayerNorm its shift (RMSNorm has none in any published model)."""
    return LayerNorm(d_model, shift=bias) if kind == "layer" else RMSNorm(d_model)


class FeedForward(nn.Module):
    """Two linear maps with a non-linearity between, at each token by itself.

    swiglu multiplies with a gate, ``down(silu(gate(x)) * up(x))`` (Shazeer 2020); gate and up are one fused map.
    """

    def __init__(
        self, d_model: int, d_ff: int, activation: Activation = "relu", dropout: float = 0.0, bias: bool = True
    ) -> None:
        super().__init__()
        self.activation = activation
        self.up = nn.Linear(d_model, 2 * d_ff if activation == "swiglu" else d_ff, bias=bias)
        self.down = nn.Linear(d_ff, d_model, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, T, C). Returns (B, T, C)."""
        x = self.up(x)  # (B, T, d_ff), twice as wide with swiglu
        if self.activation == "swiglu":
            gate, up = x.chunk(2, dim=-1)  # (B, T, d_ff) each
            x = functional.silu(gate) * up  # (B, T, d_ff)
        elif self.activation == "relu":
            x = functional.relu(x)
        else:
            x = functional.gelu(x, approximate="tanh" if self.activation == "gelu_tanh" else "none")
        return self.down(self.dropout(x))  # (B, T, C)


class Residual(nn.Module):
    """Add & norm around one sublayer.

    post-norm (the paper): ``norm(x + dropout(sublayer(x)))``. pre-norm: ``x + dropout(sublayer(norm(x)))``, which needs
    no long warm-up because a path without norms leads through all layers; a last norm is then needed at the top.
    """

    def __init__(self, norm: nn.Module, dropout: float = 0.0, norm_first: bool = False) -> None:
        super().__init__()
        self.norm = norm
        self.dropout = nn.Dropout(dropout)
        self.norm_first = norm_first

    def forward(self, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """x: (B, T, C). Returns (B, T, C)."""
        if self.norm_first:
            return x + self.dropout(sublayer(self.norm(x)))
        return self.norm(x + self.dropout(sublayer(x)))
