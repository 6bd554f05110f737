"""Flow matching: straight paths from noise to data, and the velocity along them.

    x_t = (1 - t) * x_0 + t * noise        v = dx/dt = noise - x_0        t = 0 (clean) … 1 (noise)

Lipman et al. (arXiv:2210.02747) and Liu et al. (arXiv:2209.03003), with time running as in this package's diffusion: 1
is noise. The network learns v; sampling integrates it from 1 down to 0.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .samplers import Denoiser, Watch

Solver = Literal["euler", "midpoint"]


def interpolate(clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """Return x_t (B, …) for clean examples and noise (B, …) and times (B,) in 0 … 1."""
    time = time.view(-1, *[1] * (clean.dim() - 1))  # (B, 1, …, 1)
    return (1 - time) * clean + time * noise


def velocity(clean: Tensor, noise: Tensor) -> Tensor:
    """Return what the network should answer at any time on the path, (B, …)."""
    return noise - clean


@torch.no_grad()
def sample_flow(
    model: Denoiser, noise: Tensor, steps: int = 10, solver: Solver = "euler", watch: Watch | None = None
) -> Tensor:
    """Return examples (B, …) from ``noise`` (B, …) by integrating the velocity in ``steps`` equal steps.

    solver: "euler" asks the network once a step and errs in proportion to the step; "midpoint" asks twice and errs in
    proportion to its square.
    """
    x = noise
    for i in range(steps):
        now, step = 1 - i / steps, 1 / steps
        v = model(x, torch.full((len(x),), now, device=x.device))  # (B, …)
        if solver == "midpoint":
            v = model(x - step / 2 * v, torch.full((len(x),), now - step / 2, device=x.device))  # (B, …)
        x = x - step * v
        if watch is not None:
            watch(now - step, x, x - (now - step) * v)
    return x
