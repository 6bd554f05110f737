"""The diffusion transformer of the action head, and the adapter between it and the vision-language features.

What depends on the time alone (``Modulations``) and on the features alone (keys and values of the cross-attention) is
computed outside of ``DiT.forward``: once for all denoising steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...checkpoints import Fields
from .layers import Attention, FeedForward, KeysValues, timestep_waves

MAX_LAYERS = 512
"""Most layers that a config may ask for; each costs time before any weight is looked at."""


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of a transformer, under the names of the checkpoint's config.json.

    cross_attention_dim: width of the features that even blocks attend to; None for the adapter, which has no such.
    output_dim: width of the DiT's output; None for the adapter.
    """

    num_layers: int
    num_attention_heads: int
    attention_head_dim: int
    dropout: float = 0.2
    cross_attention_dim: int | None = None
    output_dim: int | None = None

    @classmethod
    def read(cls, stored: Fields) -> TransformerConfig:
        """Return the sizes that a section of the checkpoint's config.json states. Raises CheckpointError."""
        stored.supported("norm_type", "ada_norm", "layer_norm")
        stored.supported("positional_embeddings", None)
        stored.supported("interleave_self_attention", True)
        return cls(
            num_layers=stored.integer("num_layers", most=MAX_LAYERS),
            num_attention_heads=stored.integer("num_attention_heads"),
            attention_head_dim=stored.integer("attention_head_dim"),
            dropout=stored.number("dropout", 0.2, above=-1e-9),
            cross_attention_dim=stored.integer("cross_attention_dim") if stored.has("cross_attention_dim") else None,
            output_dim=stored.integer("output_dim") if stored.has("output_dim") else None,
        )

    @property
    def width(self) -> int:
        """Width of a token."""
        return self.num_attention_heads * self.attention_head_dim


class Modulations(NamedTuple):
    """What one time does to the DiT.

    blocks: (B, layers, 2, width): scale and shift of each block's first norm. out: (B, 2, width): shift and scale of
    the last norm (in this order, which is the reverse of the blocks').
    """

    blocks: Tensor
    out: Tensor


class AdapterBlock(nn.Module):
    """Pre-norm self-attention and feed-forward."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width, dropout = config.width, config.dropout
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = Attention(width, config.num_attention_heads, config.attention_head_dim, width, dropout)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width, dropout)
        self.final_dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, N, width). Returns (B, N, width)."""
        h = self.norm1(x)
        x = x + self.final_dropout(self.attn1(h, self.attn1.keys_values(h)))
        return x + self.ff(self.norm3(x))


class Adapter(nn.Module):
    """Self-attention blocks over the vision-language features: not causal, and padding is not masked."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.transformer_blocks = nn.ModuleList(AdapterBlock(config) for _ in range(config.num_layers))

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, N, width). Returns (B, N, width)."""
        for block in self.transformer_blocks:
            x = block(x)
        return x


class AdaptiveNorm(nn.Module):
    """LayerNorm without weights of its own; scale and shift come from the time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 2 * width)

    def modulation(self, time: Tensor) -> Tensor:
        """time: (B, width) embedding. Returns (B, 2, width): scale and shift."""
        return self.linear(functional.silu(time)).unflatten(-1, (2, -1))

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """x: (B, T, width); modulation: (B, 2, width). Returns (B, T, width)."""
        scale, shift = modulation[:, :, None].unbind(1)  # (B, 1, width) each
        return functional.layer_norm(x, x.shape[-1:], eps=1e-5) * (1 + scale) + shift


class DiTBlock(nn.Module):
    """Attention to the features or to the tokens themselves behind an adaptive norm, then feed-forward."""

    def __init__(self, config: TransformerConfig, cross: bool) -> None:
        super().__init__()
        width, dropout = config.width, config.dropout
        source = config.cross_attention_dim if cross and config.cross_attention_dim else width
        self.cross = cross
        self.norm1 = AdaptiveNorm(width)
        self.attn1 = Attention(width, config.num_attention_heads, config.attention_head_dim, source, dropout)
        self.ff = FeedForward(width, dropout)
        self.final_dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, modulation: Tensor, features: KeysValues | None) -> Tensor:
        """x: (B, T, width); features: keys and values where the block attends to the features. (B, T, width)."""
        h = self.norm1(x, modulation)
        x = x + self.final_dropout(self.attn1(h, self.attn1.keys_values(h) if features is None else features))
        return x + self.ff(functional.layer_norm(x, x.shape[-1:], eps=1e-5))


class TimeEmbedding(nn.Module):
    """An integer time as a vector: waves, then a small network."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.timestep_embedder = nn.ModuleDict({"linear_1": nn.Linear(256, width), "linear_2": nn.Linear(width, width)})

    def forward(self, bucket: Tensor) -> Tensor:
        """bucket: (B,) integers. Returns (B, width)."""
        first, second = self.timestep_embedder["linear_1"], self.timestep_embedder["linear_2"]
        weight = cast(Tensor, second.weight)
        return second(functional.silu(first(timestep_waves(bucket).to(weight.dtype))))


class DiT(nn.Module):
    """Even blocks attend to the features, odd ones to the tokens."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        if config.output_dim is None:
            raise ValueError("a DiT needs output_dim")
        self.timestep_encoder = TimeEmbedding(config.width)
        self.transformer_blocks = nn.ModuleList(DiTBlock(config, i % 2 == 0) for i in range(config.num_layers))
        self.proj_out_1 = nn.Linear(config.width, 2 * config.width)
        self.proj_out_2 = nn.Linear(config.width, config.output_dim)

    def modulations(self, bucket: Tensor) -> Modulations:
        """bucket: (B,) integer times. Returns what each of them does to the blocks and to the output."""
        time = self.timestep_encoder(bucket)  # (B, width)
        blocks = torch.stack([block.norm1.modulation(time) for block in self.blocks()], dim=1)
        return Modulations(blocks, self.proj_out_1(functional.silu(time)).unflatten(-1, (2, -1)))

    def keys_values(self, features: Tensor) -> list[KeysValues | None]:
        """features: (B, N, cross_attention_dim). Returns one entry per block, None where it attends to the tokens."""
        return [b.attn1.keys_values(features) if b.cross else None for b in self.blocks()]

    def forward(self, x: Tensor, modulations: Modulations, keys_values: list[KeysValues | None]) -> Tensor:
        """x: (B, T, width). Returns (B, T, output_dim)."""
        for i, (block, features) in enumerate(zip(self.blocks(), keys_values, strict=True)):
            x = block(x, modulations.blocks[:, i], features)
        shift, scale = modulations.out[:, :, None].unbind(1)  # (B, 1, width) each
        return self.proj_out_2(functional.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift)

    def blocks(self) -> list[DiTBlock]:
        """Return the blocks in order."""
        return cast(list[DiTBlock], list(self.transformer_blocks))
