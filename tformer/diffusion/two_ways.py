"""A toy with two right answers: pass the obstacle on the left or on the right, but not through it.

>>> head = ActionHead(head_config("ddim"))
>>> train_head(head, steps=1)
>>> condition, shown = draw_demonstrations(4, torch.Generator().manual_seed(0))
>>> tuple(head.sample(condition).shape) == tuple(shown.shape) == (4, 8, 2)
True
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .action_head import ActionHead, ActionHeadConfig
from .process import ProcessConfig, SamplerConfig

HORIZON, ACTION_DIM, TOKENS, CONDITION_DIM = 8, 2, 2, 4
DIFFUSION, FLOW = ProcessConfig(schedule="cosine", steps=100), ProcessConfig(kind="flow")
KINDS = {
    "ddpm": (DIFFUSION, SamplerConfig("ddpm")),
    "ddim": (DIFFUSION, SamplerConfig("ddim", steps=10)),
    "euler": (FLOW, SamplerConfig("euler", steps=10)),
    "midpoint": (FLOW, SamplerConfig("midpoint", steps=5)),
}


def head_config(kind: Literal["ddpm", "ddim", "euler", "midpoint"]) -> ActionHeadConfig:
    """Return a small head for this toy."""
    process, sampler = KINDS[kind]
    return ActionHeadConfig(ACTION_DIM, HORIZON, CONDITION_DIM, 32, 2, 2, process, sampler)


def draw_demonstrations(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return conditions (N, 2, 4), whose first entry is how far to swerve (0.4 … 0.8), and action chunks (N, 8, 2).

    Action 0 is an arc of that size to either side, as often left as right; action 1, the way forward, is 0.5.
    """
    swerve = 0.4 + 0.4 * torch.rand(count, generator=generator)  # (N,)
    side = torch.randint(0, 2, (count,), generator=generator) * 2 - 1  # (N,)
    condition = torch.zeros(count, TOKENS, CONDITION_DIM)
    condition[:, :, 0] = swerve[:, None]
    arc = torch.linspace(0, torch.pi, HORIZON + 2)[1:-1].sin()  # (T,)
    actions = torch.stack([(side * swerve)[:, None] * arc, torch.full((count, HORIZON), 0.5)], dim=-1)  # (N, T, A)
    return condition, actions


def train_head(head: ActionHead, steps: int = 600, batch: int = 64, rate: float = 3e-3, seed: int = 1) -> None:
    """Train ``head`` on fresh demonstrations: 20 steps of warm-up, then a rate that falls to 0. 15 s on one core."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(head.parameters(), rate)
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: min(1, (i + 1) / 20) * (1 - i / steps))
    for _ in range(steps):
        condition, actions = draw_demonstrations(batch, generator)
        optimizer.zero_grad()
        head.loss(condition, actions, generator=generator).backward()
        optimizer.step()
        falling.step()


class Verdict(NamedTuple):
    """right: share of chunks that pass on the right; straight: share that hold to less than half of their swerve and
    hit the obstacle; error: median distance to the nearer of the two ways, mean over the chunk."""

    right: float
    straight: float
    error: float


def judge(condition: Tensor, chunks: Tensor) -> Verdict:
    """Say what chunks (N, 8, 2) for conditions (N, 2, 4) do at the obstacle, halfway."""
    swerve = condition[:, 0, 0]  # (N,)
    halfway = chunks[:, HORIZON // 2 - 1 : HORIZON // 2 + 1, 0].mean(1)  # (N,)
    arc = torch.linspace(0, torch.pi, HORIZON + 2)[1:-1].sin()  # (T,)
    way = swerve[:, None] * arc  # (N, T)
    distance = torch.stack([chunks[..., 0] - way, chunks[..., 0] + way]).abs().mean(-1).amin(0)  # (N,)
    return Verdict(
        float((halfway > 0).float().mean()),
        float((halfway.abs() < 0.5 * swerve).float().mean()),
        float(distance.median()),
    )
