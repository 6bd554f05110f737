"""The optimizer and its learning rate."""

from __future__ import annotations

import math

import torch
from torch import nn

from .options import TrainOptions


def learning_rate(step: int, total_steps: int, options: TrainOptions) -> float:
    """Return the rate of ``step`` (from 0): a linear warm-up, then half a cosine down to the least rate.

    A function of the step alone, so that a resumed training needs no scheduler state.
    """
    if step < options.warmup_steps:
        return options.learning_rate * (step + 1) / (options.warmup_steps + 1)
    progress = min(1.0, (step - options.warmup_steps) / max(1, total_steps - options.warmup_steps))
    span = options.learning_rate - options.min_learning_rate
    return options.min_learning_rate + span * 0.5 * (1 + math.cos(math.pi * progress))


def make_optimizer(model: nn.Module, options: TrainOptions) -> torch.optim.AdamW:
    """Return AdamW over the parameters that learn, as one fused kernel; only matrices decay."""
    learning = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learning if p.dim() >= 2], "weight_decay": options.weight_decay},
        {"params": [p for p in learning if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=options.learning_rate, betas=(options.beta1, options.beta2), fused=True)
