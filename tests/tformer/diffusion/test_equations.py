"""The equations against diffusers' schedulers, to 1e-5."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor

from tformer.diffusion import NoiseSchedule, cosine_schedule, linear_schedule
from tformer.diffusion.flow import interpolate, sample_flow, velocity
from tformer.diffusion.samplers import ddim_step, ddim_times, ddpm_step, sample_ddim
from tformer.diffusion.schedules import Prediction, add_noise, clean_and_noise, training_target

diffusers: Any = import_module("diffusers")  # its lazy modules hide their types
DDPMScheduler, DDIMScheduler = diffusers.DDPMScheduler, diffusers.DDIMScheduler
FlowMatchEulerDiscreteScheduler = diffusers.FlowMatchEulerDiscreteScheduler

SCHEDULES = {"linear": linear_schedule, "cosine": cosine_schedule}
THEIR_SCHEDULE = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
THEIR_PREDICTION: dict[Prediction, str] = {"epsilon": "epsilon", "x0": "sample", "v": "v_prediction"}


def both(name: str, steps: int, scheduler: Any = DDPMScheduler, **options: Any) -> tuple[NoiseSchedule, Any]:
    theirs = scheduler(steps, beta_schedule=THEIR_SCHEDULE[name], **options)
    # Their formulas on a table without rounding: they keep 1 - alpha_bar in float32, which is good to 1e-4 near t = 1.
    theirs.alphas_cumprod = (1 - theirs.betas.double()).cumprod(0)
    return SCHEDULES[name](steps), theirs


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [500, 1000])
def test_schedule_and_forward_process(name: str, steps: int) -> None:
    ours = SCHEDULES[name](steps)
    theirs = DDPMScheduler(steps, beta_schedule=THEIR_SCHEDULE[name])
    assert ours.steps == steps and float(ours.alpha_bar[0]) == 1
    torch.testing.assert_close(ours.alpha_bar[1:].float(), theirs.alphas_cumprod, rtol=0, atol=1e-5)

    clean, noise = randn(8, 3, 4, 4, seed=0), randn(8, 3, 4, 4, seed=1)
    t = torch.linspace(1, steps, 8).long()
    torch.testing.assert_close(
        add_noise(ours, clean, noise, t), theirs.add_noise(clean, noise, t - 1), rtol=0, atol=1e-5
    )
    theirs_v = theirs.get_velocity(clean, noise, t - 1)
    torch.testing.assert_close(training_target(ours, "v", clean, noise, t), theirs_v, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("prediction", THEIR_PREDICTION)
@pytest.mark.parametrize("clip", [None, 1.0])
def test_ddpm_step(name: str, prediction: Prediction, clip: float | None) -> None:
    options: dict[str, Any] = {"prediction_type": THEIR_PREDICTION[prediction], "clip_sample": clip is not None}
    ours, theirs = both(name, 500, **options)
    for t in (500, 499, 250, 17, 2, 1):
        x, output = randn(4, 3, 4, 4, seed=t).double(), randn(4, 3, 4, 4, seed=1000 + t).double()
        expected = theirs.step(output, t - 1, x, generator=torch.Generator().manual_seed(7))
        fresh = torch.randn(x.shape, generator=torch.Generator().manual_seed(7), dtype=x.dtype)
        clean, _ = clean_and_noise(ours, prediction, output, x, torch.full((4,), t), clip)
        mine = ddpm_step(ours, x, clean, t, t - 1, fresh if t > 1 else None)
        torch.testing.assert_close(clean, expected.pred_original_sample, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(mine, expected.prev_sample, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("prediction", THEIR_PREDICTION)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_sampling(name: str, prediction: Prediction, eta: float) -> None:
    """All of a 20-step sampling with the same network and noise, not one step alone."""
    options: dict[str, Any] = {"prediction_type": THEIR_PREDICTION[prediction], "timestep_spacing": "trailing"}
    ours, theirs = both(name, 500, DDIMScheduler, **options)
    theirs.set_timesteps(20)
    assert (theirs.timesteps + 1).tolist() == ddim_times(500, 20)

    def model(x: Tensor, time: Tensor) -> Tensor:
        return 0.3 * x.sin() + time.view(-1, 1, 1, 1)

    start = randn(4, 3, 4, 4, seed=0)
    x, generator = start, torch.Generator().manual_seed(3)
    for t in theirs.timesteps:
        output = model(x, (t + 1).expand(4) / 500)
        fresh = torch.randn(x.shape, generator=generator) if eta and t > 24 else torch.zeros_like(x)
        x = theirs.step(output, t, x, eta, use_clipped_model_output=True, variance_noise=fresh if eta else None)[0]
    mine = sample_ddim(ours, prediction, model, start, torch.Generator().manual_seed(3), 20, eta)
    torch.testing.assert_close(mine, x.float(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", SCHEDULES)
def test_ddim_with_all_steps_and_noise_is_ddpm(name: str) -> None:
    schedule = SCHEDULES[name](500)
    for t in (500, 250, 2):
        x, output, fresh = (randn(2, 5, seed=t + i).double() for i in range(3))
        clean, epsilon = clean_and_noise(schedule, "v", output, x, torch.full((2,), t), clip=1.0)
        ddpm = ddpm_step(schedule, x, clean, t, t - 1, fresh)
        torch.testing.assert_close(ddim_step(schedule, clean, epsilon, t, t - 1, 1.0, fresh), ddpm)


@pytest.mark.parametrize("prediction", THEIR_PREDICTION)
def test_a_perfect_prediction_gives_back_clean_and_noise(prediction: Prediction) -> None:
    schedule, t = linear_schedule(500), torch.tensor([1, 100, 250, 499])
    clean, noise = randn(4, 6, seed=0).double(), randn(4, 6, seed=1).double()
    x = add_noise(schedule, clean, noise, t)
    target = training_target(schedule, prediction, clean, noise, t)
    again = clean_and_noise(schedule, prediction, target, x, t)
    torch.testing.assert_close(again, (clean, noise))


def test_euler_matches_diffusers() -> None:
    theirs = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000)
    theirs.set_timesteps(sigmas=[1 - i / 10 for i in range(10)])

    def model(x: Tensor, time: Tensor) -> Tensor:
        return x.cos() * time.view(-1, 1)

    x = start = randn(4, 6, seed=0)
    for timestep in theirs.timesteps:
        x = theirs.step(model(x, timestep.expand(4) / 1000), timestep, x).prev_sample
    torch.testing.assert_close(sample_flow(model, start, 10, "euler"), x, rtol=0, atol=1e-5)

    clean, noise = randn(3, 6, seed=1), randn(3, 6, seed=2)
    timesteps = theirs.timesteps[[0, 4, 9]]
    torch.testing.assert_close(
        interpolate(clean, noise, timesteps / 1000), theirs.scale_noise(clean, timesteps, noise), rtol=0, atol=1e-5
    )


def test_the_midpoint_error_falls_with_the_square_of_the_step() -> None:
    """dx/dt = x, so x_0 = x_1 / e; a linear path is exact for both solvers."""
    start = torch.ones(1, 1, dtype=torch.float64)
    exact = start * torch.exp(torch.tensor(-1.0, dtype=torch.float64))
    for solver, order in (("euler", 1), ("midpoint", 2)):
        errors = [
            float((sample_flow(lambda x, time: x, start, n, solver) - exact).abs())  # type: ignore[arg-type]
            for n in (20, 40)
        ]
        assert 2**order * 0.9 < errors[0] / errors[1] < 2**order * 1.1

    clean, noise = randn(2, 6, seed=1), randn(2, 6, seed=2)
    straight = sample_flow(lambda x, time: velocity(clean, noise), noise, 3, "euler")
    torch.testing.assert_close(straight, clean)
