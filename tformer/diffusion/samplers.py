"""The reverse process: from noise to an example, by DDPM (every step, with fresh noise) or DDIM (as few as wanted).

A ``Denoiser`` is the network with its condition already filled in: (x (B, …), time (B,) in 0 … 1) -> output (B, …). It
sees t / S, so that one network serves schedules of any length, and flow matching too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .schedules import NoiseSchedule, Prediction, clean_and_noise

Denoiser = Callable[[Tensor, Tensor], Tensor]
Watch = Callable[[float, Tensor, Tensor], None]
"""Called after each step with (time in 0 … 1 that was reached, x there, the clean example guessed there)."""

Generators = torch.Generator | Sequence[torch.Generator] | None
"""Where noise comes from: one generator for the batch, or one per row, whose example then depends on no other row."""


def draw_noise(shape: torch.Size, generator: Generators, device: torch.device) -> Tensor:
    """Return standard normal noise of ``shape`` (B, …). Generators must live on ``device``."""
    if generator is None or isinstance(generator, torch.Generator):
        return torch.randn(shape, generator=generator, device=device)
    return torch.stack([torch.randn(shape[1:], generator=row, device=device) for row in generator])


def draw_uniform(rows: int, generator: Generators, device: torch.device) -> Tensor:
    """Return (rows,) numbers, uniform over 0 … 1 without 1, with generators as in ``draw_noise``."""
    if generator is None or isinstance(generator, torch.Generator):
        return torch.rand(rows, generator=generator, device=device)
    return torch.cat([torch.rand(1, generator=row, device=device) for row in generator])


def ddpm_step(schedule: NoiseSchedule, x: Tensor, clean: Tensor, t: int, earlier: int, noise: Tensor | None) -> Tensor:
    """Return x at time ``earlier`` from x_t: a draw from q(x_earlier | x_t, x_0 = clean), Ho et al., equations 6 and 7.

    x, clean, noise: (B, …). noise None takes the mean alone, which is right only for the last step (``earlier`` 0).
    """
    alpha_bar, alpha_bar_earlier = float(schedule.alpha_bar[t]), float(schedule.alpha_bar[earlier])
    alpha = alpha_bar / alpha_bar_earlier  # signal kept between the two times
    beta = 1 - alpha
    mean = (
        alpha_bar_earlier**0.5 * beta / (1 - alpha_bar) * clean
        + alpha**0.5 * (1 - alpha_bar_earlier) / (1 - alpha_bar) * x
    )  # (B, …)
    if noise is None:
        return mean
    variance = beta * (1 - alpha_bar_earlier) / (1 - alpha_bar)
    return mean + variance**0.5 * noise


def ddim_step(
    schedule: NoiseSchedule, clean: Tensor, epsilon: Tensor, t: int, earlier: int, eta: float, noise: Tensor | None
) -> Tensor:
    """Return x at time ``earlier``: Song et al., "Denoising Diffusion Implicit Models" (arXiv:2010.02502), equation 12.

    clean, epsilon: (B, …), the two parts that x_t was read as. eta: 0 takes no fresh noise, 1 as much as DDPM does.
    noise: (B, …), None where eta is 0.
    """
    alpha_bar, alpha_bar_earlier = float(schedule.alpha_bar[t]), float(schedule.alpha_bar[earlier])
    fresh = eta * ((1 - alpha_bar_earlier) / (1 - alpha_bar) * (1 - alpha_bar / alpha_bar_earlier)) ** 0.5
    x = alpha_bar_earlier**0.5 * clean + max(1 - alpha_bar_earlier - fresh**2, 0.0) ** 0.5 * epsilon  # (B, …)
    return x if noise is None else x + fresh * noise


@torch.no_grad()
def sample_ddpm(
    schedule: NoiseSchedule,
    prediction: Prediction,
    model: Denoiser,
    noise: Tensor,
    generator: Generators = None,
    clip: float | None = 1.0,
    add_noise: bool = True,
    watch: Watch | None = None,
) -> Tensor:
    """Return examples (B, …) from ``noise`` (B, …) in all S steps of the schedule.

    add_noise: False is the well-known mistake, kept to be looked at. Without fresh noise each step moves to the *mean*
    of what x could have been: soon x holds less noise than any x_t that the network was trained on, and the pictures of
    a context end as nearly the same average, whatever noise they began as.
    """
    x = noise
    for t in range(schedule.steps, 0, -1):
        times = torch.full((len(x),), t, device=x.device)  # (B,)
        output = model(x, times / schedule.steps)  # (B, …)
        clean, _ = clean_and_noise(schedule, prediction, output, x, times, clip)
        fresh = draw_noise(x.shape, generator, x.device) if add_noise and t > 1 else None
        x = ddpm_step(schedule, x, clean, t, t - 1, fresh)
        if watch is not None:
            watch((t - 1) / schedule.steps, x, clean)
    return x


@torch.no_grad()
def sample_ddim(
    schedule: NoiseSchedule,
    prediction: Prediction,
    model: Denoiser,
    noise: Tensor,
    generator: Generators = None,
    steps: int = 20,
    eta: float = 0.0,
    clip: float | None = 1.0,
    watch: Watch | None = None,
) -> Tensor:
    """Return examples (B, …) from ``noise`` (B, …) in ``steps`` of the schedule's S steps, evenly spaced from S down.

    With eta 0 the result is a function of ``noise`` alone, and nearby noise gives nearby examples.
    """
    x, times = noise, ddim_times(schedule.steps, steps)
    for t, earlier in zip(times, [*times[1:], 0], strict=True):
        now = torch.full((len(x),), t, device=x.device)  # (B,)
        output = model(x, now / schedule.steps)  # (B, …)
        clean, epsilon = clean_and_noise(schedule, prediction, output, x, now, clip)
        fresh = draw_noise(x.shape, generator, x.device) if eta > 0 and earlier > 0 else None
        x = ddim_step(schedule, clean, epsilon, t, earlier, eta, fresh)
        if watch is not None:
            watch(earlier / schedule.steps, x, clean)
    return x


def ddim_times(schedule_steps: int, steps: int) -> list[int]:
    """Return ``steps`` times of 1 … S, falling from S, where x is pure noise ("trailing" in arXiv:2305.08891)."""
    return [round(schedule_steps * (steps - i) / steps) for i in range(steps)]


def guide(
    model: Callable[[Tensor, Tensor, Tensor], Tensor], context: Tensor, scale: float, null: Tensor | None = None
) -> Denoiser:
    """Return the denoiser of ``model`` for ``context``, with classifier-free guidance (arXiv:2207.12598).

    model: (x (B, …), time (B,), context (B, …)) -> (B, …). scale: 1 is the conditional model, 0 the unconditional one;
    above 1 examples show their context more clearly and vary less. null: the context of "none"; None for zeros.
    """
    if scale == 1:
        return lambda x, time: model(x, time, context)
    contexts = torch.cat([context, torch.zeros_like(context) if null is None else null])  # (2B, …)

    def denoise(x: Tensor, time: Tensor) -> Tensor:
        both = model(torch.cat([x, x]), torch.cat([time, time]), contexts)  # (2B, …)
        conditional, unconditional = both.chunk(2)  # (B, …) each
        return unconditional + scale * (conditional - unconditional)

    return denoise
