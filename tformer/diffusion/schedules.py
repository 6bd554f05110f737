"""The forward process: how much signal and how much noise an example holds at time t.

    x_t = sqrt(alpha_bar_t) * x_0 + sqrt(1 - alpha_bar_t) * noise          t = 0 (clean) … S (noise)

Ho et al., "Denoising Diffusion Probabilistic Models" (arXiv:2006.11239), equation 4. Times count as in the paper: x_0
is the example, the first noisy one is x_1, and alpha_bar_0 = 1. diffusers counts from 0, so that its t is our t - 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Prediction = Literal["epsilon", "x0", "v"]
"""What the network is trained to say about x_t: the noise (epsilon), the clean example (x0), or
v = sqrt(alpha_bar) * noise - sqrt(1 - alpha_bar) * x_0 (arXiv:2202.00512). Any one and x_t give the other two."""


@dataclass(frozen=True)
class NoiseSchedule:
    """alpha_bar: (S + 1,) float64 on the CPU, falling from 1: the share of x_t's variance that is signal."""

    alpha_bar: Tensor

    @property
    def steps(self) -> int:
        """S, the number of noisy times."""
        return len(self.alpha_bar) - 1

    def levels(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return sqrt(alpha_bar_t) and sqrt(1 - alpha_bar_t), each (B, 1, …, 1) to multiply ``like`` (B, …).

        t: (B,) int64 on any device, each in 0 … S. The table stays in float64 up to here: 1 - alpha_bar_1 is 1e-4, of
        which float32 would keep three digits only.
        """
        alpha_bar = self.alpha_bar[t.cpu()].view(-1, *[1] * (like.dim() - 1))  # (B, 1, …, 1)
        signal, noise = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        return signal.to(like), noise.to(like)


def linear_schedule(steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> NoiseSchedule:
    """Return Ho et al.'s schedule: the variance added per step grows linearly from ``first`` to ``last``."""
    beta = torch.linspace(first, last, steps, dtype=torch.float64)  # (S,)
    return _from_betas(beta)


def cosine_schedule(steps: int = 1000) -> NoiseSchedule:
    """Return Nichol and Dhariwal's schedule (arXiv:2102.09672, equation 17): alpha_bar follows a squared cosine.

    It destroys small images more slowly than the linear one. No step adds more than 0.999 of the variance.
    """
    time = torch.arange(steps + 1, dtype=torch.float64) / steps  # (S+1,) in 0 … 1
    signal = ((time + 0.008) / 1.008 * math.pi / 2).cos() ** 2  # (S+1,)
    return _from_betas((1 - signal[1:] / signal[:-1]).clamp(max=0.999))


def _from_betas(beta: Tensor) -> NoiseSchedule:
    one = torch.ones(1, dtype=torch.float64)
    return NoiseSchedule(torch.cat([one, (1 - beta).cumprod(0)]))


def add_noise(schedule: NoiseSchedule, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Return x_t for clean examples (B, …), standard normal noise (B, …) and times t (B,)."""
    signal_level, noise_level = schedule.levels(t, clean)
    return signal_level * clean + noise_level * noise


def training_target(schedule: NoiseSchedule, prediction: Prediction, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Return what the network should answer at x_t, shaped like ``clean``."""
    if prediction == "epsilon":
        return noise
    if prediction == "x0":
        return clean
    signal_level, noise_level = schedule.levels(t, clean)
    return signal_level * noise - noise_level * clean


def clean_and_noise(
    schedule: NoiseSchedule, prediction: Prediction, output: Tensor, x: Tensor, t: Tensor, clip: float | None = None
) -> tuple[Tensor, Tensor]:
    """Return the clean example and the noise, each (B, …), that the network's ``output`` at x_t stands for.

    clip: largest magnitude that data have; the clean example is held inside it and the noise made to agree, so that
    ``signal * clean + noise_level * noise`` is x_t again. None leaves the network's answer as it is.
    """
    signal_level, noise_level = schedule.levels(t, x)
    if prediction == "epsilon":
        clean, noise = (x - noise_level * output) / signal_level, output
    elif prediction == "x0":
        clean, noise = output, (x - signal_level * output) / noise_level
    else:
        clean, noise = signal_level * x - noise_level * output, noise_level * x + signal_level * output
    if clip is not None:
        clean = clean.clamp(-clip, clip)
        noise = (x - signal_level * clean) / noise_level
    return clean, noise
