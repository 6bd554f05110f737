"""Multi-head attention: a readable path that shows the weights, and a fast path that gives the same result.

A mask is broadcast to (B, H, T, S), non-zero where query t may attend to key s. B batch, H heads, G key/value heads,
T queries, S keys, D a head's width, C = H * D.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import RotaryPositions

if TYPE_CHECKING:
    from .cache import LayerCache

try:
    from flash_attn import flash_attn_func
except ImportError:
    flash_attn_func = None


def causal_mask(queries: int, keys: int | None = None, device: torch.device | str | None = None) -> Tensor:
    """Return the (1, T, S) boolean mask in which the last query sees all keys and each earlier one sees one fewer."""
    keys = queries if keys is None else keys
    return torch.ones(1, queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


def attention_with_weights(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False, dropout: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The formula, ``softmax(q k^T / sqrt(D)) v``, step by step.

    q: (B, H, T, D); k, v: (B, H, S, D); mask: to (B, H, T, S). Returns the output (B, H, T, D) and the weights
    (B, H, T, S). A query that may attend to nothing gets weights and output of zero, as on the fast path.
    """
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))  # (B, H, T, S)
    if causal:
        allowed = causal_mask(q.size(-2), k.size(-2), q.device)  # (1, T, S)
        mask = allowed if mask is None else allowed & (mask != 0)
    if mask is not None:
        scores = scores.masked_fill(mask == 0, -math.inf)  # (B, H, T, S)
    weights = scores.softmax(dim=-1)  # (B, H, T, S)
    if mask is not None:
        weights = weights.masked_fill(mask == 0, 0.0)  # a row of -inf alone is nan after softmax
    weights = functional.dropout(weights, dropout)
    return weights @ v, weights  # (B, H, T, D), (B, H, T, S)


def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False, dropout: float = 0.0
) -> Tensor:
    """The same as ``attention_with_weights`` without the weights: one fused kernel that never stores (T, S).

    flash-attn is used where it is installed and applies: on a GPU, in half precision, without a mask. Any other case
    goes to torch's scaled_dot_product_attention, which has a kernel of the same kind for CPU and GPU.
    """
    queries, keys = q.size(-2), k.size(-2)
    if flash_attn_func is not None and mask is None and q.is_cuda and q.dtype in (torch.float16, torch.bfloat16):
        out = flash_attn_func(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), dropout, causal=causal)
        return out.transpose(1, 2)  # (B, H, T, D)
    if causal and queries == 1:
        causal = False  # the last query sees every key: the usual step of cached decoding
    elif causal and (mask is not None or queries != keys):
        allowed = causal_mask(queries, keys, q.device)  # (1, T, S)
        mask, causal = allowed if mask is None else allowed & (mask != 0), False
    if mask is not None and mask.dtype != torch.bool:
        mask = mask != 0
    return functional.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal=causal)  # (B, H, T, D)


class _Heads(nn.Module):
    """What self- and cross-attention share: splitting into heads, attending, joining."""

    def __init__(self, d_model: int, heads: int, kv_heads: int | None, dropout: float, bias: bool) -> None:
        super().__init__()
        kv_heads = kv_heads or heads
        if d_model % heads or heads % kv_heads:
            raise ValueError(f"{heads} heads must divide d_model {d_model}, and {kv_heads} key/value heads the heads")
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, d_model // heads
        self.dropout = dropout
        self.out = nn.Linear(d_model, d_model, bias=bias)

    def split(self, x: Tensor, heads: int) -> Tensor:
        """x: (B, T, heads * D). Returns (B, heads, T, D)."""
        return x.view(x.size(0), x.size(1), heads, self.head_dim).transpose(1, 2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        """q: (B, H, T, D); k, v: (B, G, S, D). Returns (B, T, C)."""
        x = attention(q, self.shared(k), self.shared(v), mask, causal, self.dropout if self.training else 0.0)
        return self.join(x)

    def shared(self, x: Tensor) -> Tensor:
        """Repeat each key/value head for the group of query heads that shares it: (B, G, S, D) to (B, H, S, D)."""
        return x if self.kv_heads == self.heads else x.repeat_interleave(self.heads // self.kv_heads, dim=1)

    def join(self, x: Tensor) -> Tensor:
        """x: (B, H, T, D). Returns the output projection of the heads side by side, (B, T, C)."""
        return self.out(x.transpose(1, 2).flatten(2))


class SelfAttention(_Heads):
    """Attention of a sequence over itself, with queries, keys and values from one fused projection.

    kv_heads: fewer than ``heads`` for grouped-query attention (Ainslie et al. 2023). rotary: turns queries and keys.
    dropout: on the attention weights.
    """

    def __init__(
        self,
        d_model: int,
        heads: int,
        kv_heads: int | None = None,
        dropout: float = 0.0,
        bias: bool = True,
        rotary: RotaryPositions | None = None,
    ) -> None:
        super().__init__(d_model, heads, kv_heads, dropout, bias)
        self.rotary = rotary
        self.qkv = nn.Linear(d_model, (self.heads + 2 * self.kv_heads) * self.head_dim, bias=bias)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        causal: bool = False,
        positions: Tensor | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        """x: (B, T, C); mask: to (B, H, T, S); positions: of x's tokens, (T,) or (B, T), which rotary reads.

        cache: the keys and values of earlier tokens, to which x's are added; S is then all tokens so far, else S = T.
        Returns (B, T, C).
        """
        q, k, v = self.heads_of(x, positions)  # (B, H, T, D), (B, G, T, D) twice
        if cache is not None:
            k, v = cache.append(k, v)  # (B, G, S, D)
        return self.attend(q, k, v, mask, causal)  # (B, T, C)

    def weights(
        self, x: Tensor, mask: Tensor | None = None, causal: bool = False, positions: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The readable path without dropout: returns the output (B, T, C) and the attention weights (B, H, T, T)."""
        q, k, v = self.heads_of(x, positions)
        x, weights = attention_with_weights(q, self.shared(k), self.shared(v), mask, causal)
        return self.join(x), weights

    def heads_of(self, x: Tensor, positions: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """x: (B, T, C). Returns queries (B, H, T, D), keys and values (B, G, T, D)."""
        d, turning = self.head_dim, self.heads + self.kv_heads
        x = self.qkv(x)  # (B, T, (H + 2 G) D)
        if self.rotary is None:
            q, k, v = x.split([self.heads * d, self.kv_heads * d, self.kv_heads * d], dim=-1)
            return self.split(q, self.heads), self.split(k, self.kv_heads), self.split(v, self.kv_heads)
        positions = torch.arange(x.size(1), device=x.device) if positions is None else positions
        qk, v = x.split([turning * d, self.kv_heads * d], dim=-1)
        qk = self.rotary(self.split(qk, turning), positions)  # both at once: (B, H + G, T, D)
        q, k = qk.split([self.heads, self.kv_heads], dim=1)
        return q, k, self.split(v, self.kv_heads)


class CrossAttention(_Heads):
    """Attention over another sequence, the memory: queries from x, keys and values from memory in one projection."""

    def __init__(
        self, d_model: int, heads: int, kv_heads: int | None = None, dropout: float = 0.0, bias: bool = True
    ) -> None:
        super().__init__(d_model, heads, kv_heads, dropout, bias)
        self.q = nn.Linear(d_model, d_model, bias=bias)
        self.kv = nn.Linear(d_model, 2 * self.kv_heads * self.head_dim, bias=bias)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None = None, cache: LayerCache | None = None) -> Tensor:
        """x: (B, T, C); memory: (B, S, C); mask: to (B, H, T, S), often (B, 1, 1, S).

        cache: keeps the memory's keys and values, which are the same at each step of decoding. Returns (B, T, C).
        """
        if cache is not None and cache.filled:
            k, v = cache.contents()  # (B, G, S, D)
        else:
            k, v = self.keys_values(memory)
            if cache is not None:
                cache.append(k, v)
        return self.attend(self.split(self.q(x), self.heads), k, v, mask, causal=False)  # (B, T, C)

    def weights(self, x: Tensor, memory: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The readable path without dropout: returns the output (B, T, C) and the attention weights (B, H, T, S)."""
        k, v = self.keys_values(memory)
        q = self.split(self.q(x), self.heads)  # (B, H, T, D)
        x, weights = attention_with_weights(q, self.shared(k), self.shared(v), mask)
        return self.join(x), weights

    def keys_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """memory: (B, S, C). Returns keys and values, (B, G, S, D) each."""
        k, v = self.kv(memory).chunk(2, dim=-1)
        return self.split(k, self.kv_heads), self.split(v, self.kv_heads)
