"""How much memory a fine-tuning will take, before it starts: exact for weights, a rule of thumb for activations."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from ..checkpoints.memory import available as available
from ..system_memory import GIB

BYTES_KEPT = 34
"""Bytes that a transformer layer keeps for its backward pass, per token and unit of width, in 16 bits (Korthikanti et
al. 2022, without the attention matrix, which the fused kernels do not keep)."""


def estimate(model: nn.Module, layers: Mapping[str, tuple[int, int, int]], full_precision: bool) -> dict[str, float]:
    """Return GiB of weights, gradients, optimizer and activations.

    layers: name -> (layers, tokens of the whole batch, width) of each stack that keeps activations.
    full_precision: activations are in 32 bits.
    """
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    kept = sum(count * tokens * width for count, tokens, width in layers.values())
    kept *= BYTES_KEPT * (2 if full_precision else 1)
    return {
        "weights": weights / GIB,
        "gradients": 4 * learning / GIB,
        "optimizer": 8 * learning / GIB,
        "activations": kept / GIB,
    }


def describe(parts: Mapping[str, float], free: float | None) -> str:
    """Return the estimate in one line."""
    total = sum(parts.values())
    told = ", ".join(f"{name} {value:.2f}" for name, value in parts.items())
    line = f"about {total:.2f} GiB ({told})"
    if free is None:
        return line
    warning = "; expect to run out: lower --batch-size or take --lora-rank" if total > free else ""
    return f"{line}, {free:.2f} GiB are free{warning}"
