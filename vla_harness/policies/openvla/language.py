"""LLaMA with a static key-value cache: every tensor has a fixed place, so that a decoding step can be a CUDA graph.

Shapes: B sequences, T tokens, D width, H heads, S places in the cache.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from .attention import Attend
from .configuration import LanguageConfig


class Cache:
    """Keys and values of all layers: (depth, B, H, S, D / H) each."""

    def __init__(
        self, config: LanguageConfig, batch: int, places: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        shape = config.depth, batch, config.heads, places, config.width // config.heads
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)

    @property
    def places(self) -> int:
        """Tokens there is room for."""
        return self.keys.shape[3]


class RMSNorm(nn.Module):
    """Root-mean-square norm: computed in fp32, rounded, then scaled, in this order."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (..., D) of (..., D)."""
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Return (B, H, T, d) turned by the angles of its positions; cos, sin: broadcast to (B, 1, T, d)."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class Attention(nn.Module):
    """Self-attention over a whole sequence (``mask`` None: causal), or of one new token over the cache."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        D = config.width
        self.heads = config.heads
        self.q_proj, self.k_proj = nn.Linear(D, D, bias=False), nn.Linear(D, D, bias=False)
        self.v_proj, self.o_proj = nn.Linear(D, D, bias=False), nn.Linear(D, D, bias=False)
        self.attend = Attend()

    def heads_of(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, H, T, D / H) of (B, T, D)."""
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def forward(
        self,
        x: torch.Tensor,
        angles: tuple[torch.Tensor, torch.Tensor],
        mask: torch.Tensor | None,
        cached: tuple[torch.Tensor, torch.Tensor] | None,
        places: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return (B, T, D); arguments as in ``LanguageModel.forward``; cached: this layer's (B, H, S, D / H) pair."""
        q = rotate(self.heads_of(self.q_proj(x)), *angles)  # (B, H, T, D / H)
        k = rotate(self.heads_of(self.k_proj(x)), *angles)
        v = self.heads_of(self.v_proj(x))
        if cached is not None:
            keys, values = cached
            if places is None:  # the beginning of the sequence
                keys[:, :, : k.shape[2]], values[:, :, : k.shape[2]] = k, v
            else:  # one token, whose place differs from row to row
                rows = torch.arange(len(x), device=x.device)
                keys[rows, :, places], values[rows, :, places] = k[:, :, 0], v[:, :, 0]
                k, v = keys, values
        return self.o_proj(self.attend(q, k, v, mask, causal=mask is None))


class MLP(nn.Module):
    """SwiGLU."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.mlp_width, bias=False)
        self.up_proj = nn.Linear(config.width, config.mlp_width, bias=False)
        self.down_proj = nn.Linear(config.mlp_width, config.width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, T, D) of (B, T, D)."""
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """Attention and MLP, each on the normed stream and added to it."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.width, config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.width, config.norm_eps)
        self.mlp = MLP(config)

    def forward(
        self,
        x: torch.Tensor,
        angles: tuple[torch.Tensor, torch.Tensor],
        mask: torch.Tensor | None,
        cached: tuple[torch.Tensor, torch.Tensor] | None,
        places: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return (B, T, D) of (B, T, D)."""
        x = x + self.self_attn(self.input_layernorm(x), angles, mask, cached, places)
        return x + self.mlp(self.post_attention_layernorm(x))


class LanguageModel(nn.Module):
    """LLaMA from embeddings to hidden states; ``lm_head`` is applied by the caller, to the places it wants."""

    cos: torch.Tensor
    sin: torch.Tensor

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocabulary, config.width)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.depth))
        self.norm = RMSNorm(config.width, config.norm_eps)
        self.lm_head = nn.Linear(config.width, config.vocabulary, bias=False)
        d = config.width // config.heads
        frequencies = 1.0 / config.rope_base ** (torch.arange(0, d, 2, dtype=torch.int64).float() / d)
        angles = torch.outer(torch.arange(config.max_positions).float(), frequencies)  # (positions, d / 2), fp32 always
        self.register_buffer("cos", torch.cat([angles, angles], dim=1).cos(), persistent=False)
        self.register_buffer("sin", torch.cat([angles, angles], dim=1).sin(), persistent=False)

    def forward(
        self,
        x: torch.Tensor,
        mask: torch.Tensor | None = None,
        cache: Cache | None = None,
        places: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the hidden states (B, T, D) after the final norm of the embeddings ``x`` (B, T, D).

        mask: (B, 1, T or 1, T or S) bool, True where a token may look; None for causal attention among ``x``.
        cache: where keys and values are kept, and read if ``places`` is given.
        places: (B,) int64, the place of each row's only token; None when ``x`` is the sequence's beginning.
        """
        if places is None:
            cos, sin = self.cos[: x.shape[1]], self.sin[: x.shape[1]]  # (T, d)
        else:
            cos, sin = self.cos[places][:, None, None], self.sin[places][:, None, None]  # (B, 1, 1, d)
        angles = cos.to(x.dtype), sin.to(x.dtype)
        for index, layer in enumerate(self.layers):
            cached = None if cache is None else (cache.keys[index], cache.values[index])
            x = layer(x, angles, mask, cached, places)
        return self.norm(x)
