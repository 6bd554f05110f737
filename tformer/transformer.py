"""The encoder-decoder transformer of "Attention Is All You Need" (Vaswani et al. 2017).

Shapes: B batch, S source tokens, T target tokens, C ``d_model``. Masks are non-zero where a query may attend.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .attention import CrossAttention, SelfAttention
from .cache import KVCache, LayerCache, StaticKVCache
from .errors import UserError
from .layers import (
    Activation,
    FeedForward,
    LearnedPositions,
    Norm,
    Positions,
    Residual,
    RotaryPositions,
    SinusoidalPositions,
    TokenEmbedding,
    make_norm,
)


@dataclass(frozen=True)
class TransformerConfig:
    """The shape of an encoder-decoder; the defaults are the paper's base model."""

    src_vocab_size: int
    tgt_vocab_size: int
    src_seq: int = 512
    """The longest source, in tokens."""
    tgt_seq: int = 512
    """The longest target, in tokens."""
    d_model: int = 512
    layers: int = 6
    """Of the encoder, and as many of the decoder."""
    heads: int = 8
    kv_heads: int | None = None
    d_ff: int = 2048
    dropout: float = 0.1
    """On the embeddings with their positions and on each sublayer's output (section 5.4)."""
    bias: bool = True
    positions: Positions = "sinusoidal"
    norm: Norm = "layer"
    norm_first: bool = False
    activation: Activation = "relu"
    tie_weights: bool = False
    """One table for source, target and projection (section 3.4), for tokenizers that share a vocabulary."""

    def __post_init__(self) -> None:
        if self.tie_weights and self.src_vocab_size != self.tgt_vocab_size:
            raise ValueError("tied weights need one vocabulary for source and target")


class Embedding(nn.Module):
    """Tokens to vectors with positions: what enters the first layer."""

    def __init__(self, config: TransformerConfig, table: TokenEmbedding, max_len: int) -> None:
        super().__init__()
        self.tokens, self.max_len = table, max_len
        self.positions: SinusoidalPositions | LearnedPositions | None = None
        if config.positions != "rotary":
            kind = LearnedPositions if config.positions == "learned" else SinusoidalPositions
            self.positions = kind(max_len, config.d_model)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """tokens: (B, T); positions: (T,) or (B, T). Returns (B, T, C)."""
        x = self.tokens(tokens)  # (B, T, C)
        if self.positions is not None:
            x = self.positions(x, positions)  # (B, T, C)
        return self.dropout(x)


class EncoderLayer(nn.Module):
    """Self-attention over the whole source, then feed-forward."""

    def __init__(self, config: TransformerConfig, rotary: RotaryPositions | None) -> None:
        super().__init__()
        c = config
        self.attention = SelfAttention(c.d_model, c.heads, c.kv_heads, bias=c.bias, rotary=rotary)
        self.feed_forward = FeedForward(c.d_model, c.d_ff, c.activation, bias=c.bias)
        self.residuals = nn.ModuleList([make_residual(c) for _ in range(2)])

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x: (B, S, C); mask: to (B, H, S, S). Returns (B, S, C)."""
        x = self.residuals[0](x, lambda y: self.attention(y, mask))  # (B, S, C)
        return self.residuals[1](x, self.feed_forward)  # (B, S, C)


class DecoderLayer(nn.Module):
    """Self-attention over the target so far, cross-attention over the memory, then feed-forward."""

    def __init__(self, config: TransformerConfig, rotary: RotaryPositions | None) -> None:
        super().__init__()
        c = config
        self.attention = SelfAttention(c.d_model, c.heads, c.kv_heads, bias=c.bias, rotary=rotary)
        self.cross_attention = CrossAttention(c.d_model, c.heads, c.kv_heads, bias=c.bias)
        self.feed_forward = FeedForward(c.d_model, c.d_ff, c.activation, bias=c.bias)
        self.residuals = nn.ModuleList([make_residual(c) for _ in range(3)])

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        src_mask: Tensor | None,
        mask: Tensor | None,
        causal: bool,
        positions: Tensor,
        caches: tuple[LayerCache, LayerCache] | None,
    ) -> Tensor:
        """x: (B, T, C); memory: (B, S, C). Returns (B, T, C)."""
        own, cross = caches or (None, None)
        x = self.residuals[0](x, lambda y: self.attention(y, mask, causal, positions, own))  # (B, T, C)
        x = self.residuals[1](x, lambda y: self.cross_attention(y, memory, src_mask, cross))  # (B, T, C)
        return self.residuals[2](x, self.feed_forward)  # (B, T, C)


class Transformer(nn.Module):
    """Encoder, decoder and projection."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = c = config
        source = TokenEmbedding(c.src_vocab_size, c.d_model)
        target = source if c.tie_weights else TokenEmbedding(c.tgt_vocab_size, c.d_model)
        self.src_embedding = Embedding(c, source, c.src_seq)
        self.tgt_embedding = Embedding(c, target, c.tgt_seq)
        rotary = None
        if c.positions == "rotary":
            rotary = RotaryPositions(max(c.src_seq, c.tgt_seq), c.d_model // c.heads)
        self.encoder = nn.ModuleList([EncoderLayer(c, rotary) for _ in range(c.layers)])
        self.decoder = nn.ModuleList([DecoderLayer(c, rotary) for _ in range(c.layers)])
        # Post-norm layers end in a norm; with pre-norm the residual path needs one at its end.
        self.encoder_norm = make_norm(c.norm, c.d_model, c.bias) if c.norm_first else nn.Identity()
        self.decoder_norm = make_norm(c.norm, c.d_model, c.bias) if c.norm_first else nn.Identity()
        self.projection = nn.Linear(c.d_model, c.tgt_vocab_size, bias=False)
        if c.tie_weights:
            self.projection.weight = target.table.weight
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, src: Tensor, src_mask: Tensor | None, tgt: Tensor, tgt_mask: Tensor | None = None) -> Tensor:
        """All three steps, for training. Returns logits (B, T, tgt_vocab_size)."""
        memory = self.encode(src, src_mask)  # (B, S, C)
        return self.project(self.decode(memory, src_mask, tgt, tgt_mask))  # (B, T, tgt_vocab_size)

    def encode(self, src: Tensor, src_mask: Tensor | None = None) -> Tensor:
        """src: (B, S) integers; src_mask: (B, 1, 1, S), zero at padding, None for no padding.

        Returns the memory (B, S, C). Raises UserError for a source longer than ``src_seq``.
        """
        _check_length(src.size(1), self.config.src_seq, "source")
        positions = torch.arange(src.size(1), device=src.device)  # (S,)
        x = self.src_embedding(src, positions)  # (B, S, C)
        for layer in self.encoder:
            x = layer(x, src_mask)  # (B, S, C)
        return self.encoder_norm(x)

    def decode(
        self,
        memory: Tensor,
        src_mask: Tensor | None,
        tgt: Tensor,
        tgt_mask: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """memory: (B, S, C); tgt: (B, T) integers; tgt_mask: (…, 1, T, T), None for the causal mask.

        The causal mask alone serves padded training batches: padding follows the sentence, so no real token sees it.
        cache: from ``make_cache``; tgt is then the tokens that follow what it holds, and tgt_mask must be None.
        Returns (B, T, C). Raises UserError for a target longer than ``tgt_seq``.
        """
        mask, causal = tgt_mask, tgt_mask is None
        if cache is None:
            _check_length(tgt.size(1), self.config.tgt_seq, "target")
            positions = torch.arange(tgt.size(1), device=tgt.device)  # (T,)
        else:
            mask, causal = cache.mask(tgt.size(1))
            positions = cache.positions(tgt.size(1), tgt.device)  # (T,)
        x = self.tgt_embedding(tgt, positions)  # (B, T, C)
        for i, layer in enumerate(self.decoder):
            caches = None if cache is None else (cache.own[i], cache.cross[i])
            x = layer(x, memory, src_mask, mask, causal, positions, caches)  # (B, T, C)
        if cache is not None:
            cache.advance(tgt.size(1))
        return self.decoder_norm(x)

    def project(self, x: Tensor) -> Tensor:
        """x: (B, T, C). Returns logits (B, T, tgt_vocab_size)."""
        return self.projection(x)

    def make_cache(self, source_len: int, capacity: int | None = None) -> KVCache:
        """Return an empty cache for decoding up to ``capacity`` tokens (None: tgt_seq) over ``source_len`` tokens."""
        return KVCache(self.config.layers, capacity or self.config.tgt_seq, source_len)

    def make_static_cache(self, rows: int, source_len: int, capacity: int | None = None) -> StaticKVCache:
        """The same with fixed shapes, for ``rows`` sentences."""
        c, weight = self.config, self.projection.weight
        shape = (rows, c.kv_heads or c.heads, capacity or c.tgt_seq, c.d_model // c.heads)
        return StaticKVCache(c.layers, shape, weight.device, weight.dtype, source_len)


def make_residual(config: TransformerConfig) -> Residual:
    """Return the add & norm of one sublayer."""
    return Residual(make_norm(config.norm, config.d_model, config.bias), config.dropout, config.norm_first)


def build_transformer(
    src_vocab_size: int,
    tgt_vocab_size: int,
    src_seq: int,
    tgt_seq: int,
    d_model: int = 512,
    N: int = 6,
    h: int = 8,
    dropout: float = 0.1,
    d_ff: int = 2048,
) -> Transformer:
    """Return the paper's encoder-decoder with ``N`` layers on each side and ``h`` heads, Xavier initialised."""
    config = TransformerConfig(
        src_vocab_size, tgt_vocab_size, src_seq, tgt_seq, d_model, layers=N, heads=h, d_ff=d_ff, dropout=dropout
    )
    return Transformer(config)


def _check_length(length: int, limit: int, side: str) -> None:
    if length > limit:
        raise UserError(
            f"a {side} of {length} tokens is longer than the model's {limit}; shorten it or train a longer model."
        )
