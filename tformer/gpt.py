"""GPT: a decoder-only transformer, from token indices to the scores of the next token."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .attention import SelfAttention
from .cache import KVCache, LayerCache, StaticKVCache
from .errors import UserError
from .finite import check_finite
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
class GPTConfig:
    """The shape of a GPT; the defaults are GPT-2's smallest."""

    vocab_size: int = 50257
    block_size: int = 1024
    """The most tokens the model can attend over."""
    d_model: int = 768
    layers: int = 12
    heads: int = 12
    kv_heads: int | None = None
    d_ff: int | None = None
    """Inner width of the feed-forward; None for 4 d_model, or with swiglu 8/3 d_model, which makes as many weights."""
    dropout: float = 0.0
    """On the embeddings, on each sublayer's output and on the attention weights, as in GPT-2."""
    bias: bool = True
    positions: Positions = "learned"
    norm: Norm = "layer"
    activation: Activation = "gelu_tanh"

    def __post_init__(self) -> None:
        if self.d_ff is None:
            # A multiple of 8, which matrix kernels like.
            inner = -(-self.d_model // 3) * 8 if self.activation == "swiglu" else 4 * self.d_model
            object.__setattr__(self, "d_ff", inner)


class Block(nn.Module):
    """Self-attention and feed-forward, each pre-normed in a residual path."""

    def __init__(self, config: GPTConfig, rotary: RotaryPositions | None) -> None:
        super().__init__()
        c = config
        assert c.d_ff is not None
        self.attention = SelfAttention(c.d_model, c.heads, c.kv_heads, c.dropout, c.bias, rotary)
        self.feed_forward = FeedForward(c.d_model, c.d_ff, c.activation, bias=c.bias)
        self.residual1 = Residual(make_norm(c.norm, c.d_model, c.bias), c.dropout, norm_first=True)
        self.residual2 = Residual(make_norm(c.norm, c.d_model, c.bias), c.dropout, norm_first=True)

    def forward(
        self, x: Tensor, mask: Tensor | None, causal: bool, positions: Tensor | None, cache: LayerCache | None
    ) -> Tensor:
        """x: (B, T, C). Returns (B, T, C)."""
        x = self.residual1(x, lambda y: self.attention(y, mask, causal, positions, cache))  # (B, T, C)
        return self.residual2(x, self.feed_forward)  # (B, T, C)


class GPT(nn.Module):
    """Embedding, positions, blocks, norm, and a projection that shares the embedding's weights."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = c = config
        self.embedding = TokenEmbedding(c.vocab_size, c.d_model, scaled=False)
        self.positions: SinusoidalPositions | LearnedPositions | None = None
        rotary = None
        if c.positions == "rotary":
            rotary = RotaryPositions(c.block_size, c.d_model // c.heads)
        else:
            kind = LearnedPositions if c.positions == "learned" else SinusoidalPositions
            self.positions = kind(c.block_size, c.d_model)
        self.dropout = nn.Dropout(c.dropout)
        self.blocks = nn.ModuleList([Block(c, rotary) for _ in range(c.layers)])
        self.norm = make_norm(c.norm, c.d_model, c.bias)
        self.projection = nn.Linear(c.d_model, c.vocab_size, bias=False)
        self.projection.weight = self.embedding.table.weight
        self._initialise()

    def _initialise(self) -> None:
        """GPT-2's start: normal with deviation 0.02, less on the 2 L maps that add to the residual path."""
        for name, parameter in self.named_parameters():
            if name.endswith(("out.weight", "down.weight")):
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * self.config.layers))
            elif parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """tokens: (B, T) integers, with a cache those that follow what it holds. Returns logits (B, T, vocab_size)."""
        return self.projection(self.hidden(tokens, cache))

    def hidden(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """The same before the projection: (B, T, C)."""
        count = tokens.size(1)
        mask, causal, positions = None, True, None
        if cache is not None:
            mask, causal = cache.mask(count)
            positions = cache.positions(count, tokens.device)  # (T,) or (B, T)
        elif count > self.config.block_size:
            raise UserError(f"{count} tokens are more than the model's {self.config.block_size}; shorten the text.")
        else:
            positions = torch.arange(count, device=tokens.device)  # (T,)
        x = self.embedding(tokens)  # (B, T, C)
        if self.positions is not None:
            x = self.positions(x, positions)  # (B, T, C)
        x = self.dropout(x)
        for i, block in enumerate(self.blocks):
            x = block(x, mask, causal, positions, None if cache is None else cache.own[i])  # (B, T, C)
        if cache is not None:
            cache.advance(count)
        return self.norm(x)  # (B, T, C)

    def make_cache(self, capacity: int | None = None, padding: Tensor | None = None) -> KVCache:
        """Return an empty cache for up to ``capacity`` tokens (None: block_size); padding: as in KVCache."""
        return KVCache(self.config.layers, capacity or self.config.block_size, padding=padding)

    def make_static_cache(self, rows: int, capacity: int | None = None, padding: Tensor | None = None) -> StaticKVCache:
        """Return an empty cache of fixed shapes for ``rows`` sequences of up to ``capacity`` tokens."""
        c, weight = self.config, self.embedding.table.weight
        shape = (rows, c.kv_heads or c.heads, capacity or c.block_size, c.d_model // c.heads)
        return StaticKVCache(c.layers, shape, weight.device, weight.dtype, padding=padding)


def gpt2_names(layers: int) -> dict[str, str]:
    """Return our parameter names by GPT-2's (as in transformers' checkpoints, without the prefix ``transformer.``)."""
    names = {
        "wte.weight": "embedding.table.weight",
        "wpe.weight": "positions.table.weight",
        "ln_f.weight": "norm.scale",
        "ln_f.bias": "norm.shift",
    }
    for i in range(layers):
        theirs, ours = f"h.{i}", f"blocks.{i}"
        names |= {f"{theirs}.ln_{n}.weight": f"{ours}.residual{n}.norm.scale" for n in (1, 2)}
        names |= {f"{theirs}.ln_{n}.bias": f"{ours}.residual{n}.norm.shift" for n in (1, 2)}
        for kind in ("weight", "bias"):
            names |= {
                f"{theirs}.attn.c_attn.{kind}": f"{ours}.attention.qkv.{kind}",
                f"{theirs}.attn.c_proj.{kind}": f"{ours}.attention.out.{kind}",
                f"{theirs}.mlp.c_fc.{kind}": f"{ours}.feed_forward.up.{kind}",
                f"{theirs}.mlp.c_proj.{kind}": f"{ours}.feed_forward.down.{kind}",
            }
    return names


def gpt2_from_weights(config: GPTConfig, weights: Mapping[str, Tensor]) -> GPT:
    """Return a GPT with GPT-2's weights, in transformers' layout.

    GPT-2 stores its maps as (in, out), nn.Linear as (out, in): they are transposed. Raises UserError for missing ones.
    """
    weights = {name.removeprefix("transformer."): value for name, value in weights.items()}
    model = GPT(config)
    loaded: dict[str, Tensor] = {}
    for theirs, ours in gpt2_names(config.layers).items():
        if theirs not in weights:
            raise UserError(f"these are no weights of a GPT-2 with {config.layers} layers: {theirs} is missing.")
        linear = ".c_" in theirs and theirs.endswith("weight")
        loaded[ours] = weights[theirs].T if linear else weights[theirs]
    loaded["projection.weight"] = loaded["embedding.table.weight"]
    model.load_state_dict(loaded)
    return model


def load_gpt2(folder: str | Path) -> GPT:
    """Return the GPT-2 that ``folder`` holds as config.json and model.safetensors, as the hub has it."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    try:
        stored = json.loads((folder / "config.json").read_text())
        weights = load_file(folder / "model.safetensors")
    except (OSError, ValueError, RecursionError, SafetensorError):
        raise UserError(
            f"{folder} lacks a readable config.json and model.safetensors; name a folder of GPT-2."
        ) from None
    check_finite(weights, folder / "model.safetensors")
    names = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
    sizes: list[int] = []
    for name in names:
        size = stored.get(name) if isinstance(stored, dict) else None
        if type(size) is not int or size < 1:
            raise UserError(f"{folder / 'config.json'} has {name} {size!r}, and a number of 1 or more is needed.")
        sizes.append(size)
    vocab_size, block_size, d_model, layers, heads = sizes
    embedded = {tuple(tensor.shape) for name, tensor in weights.items() if name.endswith("wte.weight")}
    if embedded != {(vocab_size, d_model)} or layers > len(weights) or d_model % heads:
        raise UserError(f"the sizes in {folder / 'config.json'} do not fit the weights beside it; fetch both again.")
    try:
        return gpt2_from_weights(GPTConfig(vocab_size, block_size, d_model, layers, heads), weights)
    except RuntimeError:  # of another shape
        raise UserError(f"{folder / 'model.safetensors'} does not fit its config.json; fetch both again.") from None
