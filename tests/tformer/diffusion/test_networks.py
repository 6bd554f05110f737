"""The two image networks, the contexts, and the samplers on a distribution whose answer is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tformer.diffusion import (
    ContextUnet,
    ContextUnetConfig,
    DiT,
    DiTConfig,
    ProcessConfig,
    SamplerConfig,
    build_process,
    drop_contexts,
    guide,
)
from tformer.diffusion.dit import grid_positions
from tformer.diffusion.samplers import ddim_times


def build(name: str, channels: int = 3, size: int = 16) -> nn.Module:
    torch.manual_seed(0)
    if name == "unet":
        return ContextUnet(ContextUnetConfig(channels, 5, 16))
    return DiT(DiTConfig(channels, 5, size, 2, 32, 2, 2))


def randomise(model: nn.Module) -> nn.Module:
    """A fresh network answers zero; give every weight a value."""
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize("name", ["unet", "dit"])
@pytest.mark.parametrize(("channels", "size"), [(3, 16), (1, 8), (1, 28)])
def test_a_network_keeps_the_shape_and_starts_at_zero(name: str, channels: int, size: int) -> None:
    model = build(name, channels, size)
    out = model(torch.randn(2, channels, size, size), torch.rand(2), torch.eye(5)[:2])
    assert out.shape == (2, channels, size, size)
    assert torch.equal(out, torch.zeros_like(out))


def test_the_unet_takes_sizes_that_do_not_halve() -> None:
    assert build("unet")(torch.randn(2, 3, 15, 15), torch.rand(2), torch.eye(5)[:2]).shape == (2, 3, 15, 15)


@pytest.mark.parametrize("name", ["unet", "dit"])
def test_time_context_and_mixtures_change_the_answer_and_rows_do_not_mix(name: str) -> None:
    model = randomise(build(name)).eval()
    x, time = torch.randn(1, 3, 16, 16).expand(4, -1, -1, -1), torch.tensor([0.2, 0.2, 0.2, 0.9])
    hero, mixed, nothing = torch.eye(5)[0], torch.tensor([1, 0, 0.6, 0, 0]), torch.zeros(5)
    with torch.no_grad():
        out = model(x, time, torch.stack([hero, mixed, nothing, hero]))
        alone = model(x[:1], time[:1], mixed[None])
    for other in out[1:]:
        assert (out[0] - other).abs().max() > 1e-3
    torch.testing.assert_close(out[1:2], alone, rtol=1e-4, atol=1e-5)


def test_dit_blocks_start_as_the_identity() -> None:
    model = DiT(DiTConfig(3, 5, 16, 2, 32, 2, 2))
    tokens, condition = torch.randn(2, 64, 32), torch.randn(2, 32)
    for block in model.blocks:
        assert torch.equal(block(tokens, condition), tokens)


def test_every_patch_of_a_dit_has_a_place_of_its_own() -> None:
    positions = grid_positions(8, 32)
    distances = torch.cdist(positions, positions) + torch.eye(64) * 9
    assert positions.shape == (64, 32) and distances.min() > 0.1


def test_a_tenth_of_the_contexts_is_dropped() -> None:
    contexts = torch.eye(5).repeat(2000, 1)
    dropped = drop_contexts(contexts, 0.1, torch.Generator().manual_seed(0))
    gone = dropped.sum(1) == 0
    assert 0.08 < gone.float().mean() < 0.12
    assert torch.equal(dropped[~gone], contexts[~gone])


def test_guidance_leads_away_from_the_unconditional_answer() -> None:
    calls: list[int] = []

    def model(x: Tensor, time: Tensor, context: Tensor) -> Tensor:
        calls.append(len(x))
        return x * 0 + context.sum(1).view(-1, 1)

    x, time, context = torch.zeros(2, 3), torch.ones(2), torch.tensor([[1.0, 0], [0, 2]])
    for scale, factor in ((0.0, 0.0), (1.0, 1.0), (3.0, 3.0)):
        expected = factor * torch.tensor([[1.0], [2.0]]).expand(2, 3)
        torch.testing.assert_close(guide(model, context, scale)(x, time), expected)
    assert calls == [4, 2, 4], "one call of twice the batch, and only where guidance is asked for"


def exact_model(process: ProcessConfig, mean: float, std: float) -> nn.Module:
    """The best possible answer where the data are one normal distribution per pixel."""
    schedule = getattr(build_process(process), "schedule", None)

    class Exact(nn.Module):
        def forward(self, x: Tensor, time: Tensor) -> Tensor:
            if schedule is None:
                noise_level = time.view(-1, 1)
                signal_level = 1 - noise_level
            else:
                signal_level, noise_level = schedule.levels((time * schedule.steps).round().long(), x)
            variance = signal_level**2 * std**2 + noise_level**2
            clean = mean + signal_level * std**2 / variance * (x - signal_level * mean)  # E[x_0 | x_t]
            noise = noise_level / variance * (x - signal_level * mean)  # E[noise | x_t]
            if schedule is None:
                return noise - clean
            return {"epsilon": noise, "x0": clean}.get(process.prediction, signal_level * noise - noise_level * clean)

    return Exact()


DIFFUSION = [ProcessConfig(schedule="cosine", steps=200, prediction=p) for p in ("epsilon", "x0", "v")]


@pytest.mark.parametrize("process", [*DIFFUSION, ProcessConfig(schedule="linear", steps=1000)])
@pytest.mark.parametrize("sampler", [SamplerConfig("ddpm"), SamplerConfig("ddim", 50), SamplerConfig("ddim", 100, 1.0)])
def test_diffusion_samplers_give_back_the_distribution(process: ProcessConfig, sampler: SamplerConfig) -> None:
    check_distribution(process, SamplerConfig(sampler.name, sampler.steps, sampler.eta, clip=None))


@pytest.mark.parametrize("sampler", [SamplerConfig("euler", 100), SamplerConfig("midpoint", 20)])
def test_flow_solvers_give_back_the_distribution(sampler: SamplerConfig) -> None:
    check_distribution(ProcessConfig(kind="flow"), sampler)


def check_distribution(process: ProcessConfig, sampler: SamplerConfig) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2000, 4, generator=generator)
    x = build_process(process).sample(exact_model(process, 0.5, 0.3), noise, sampler, generator)
    assert abs(float(x.mean()) - 0.5) < 0.02
    assert abs(float(x.std()) - 0.3) < 0.04  # few steps narrow the spread a little


def test_without_fresh_noise_ddpm_collapses() -> None:
    process = DIFFUSION[0]
    noise = torch.randn(2000, 4, generator=torch.Generator().manual_seed(0))
    wrong = SamplerConfig("ddpm", clip=None, add_noise=False)
    x = build_process(process).sample(exact_model(process, 0.5, 0.3), noise, wrong)
    assert float(x.std()) < 0.1, "a third of the spread that the data have"


@pytest.mark.parametrize("process", [DIFFUSION[0], ProcessConfig(kind="flow")])
def test_corruption_of_a_row_depends_on_its_own_generator_only(process: ProcessConfig) -> None:
    clean = torch.randn(3, 4)

    def corrupt(*rows: int) -> tuple[Tensor, ...]:
        return build_process(process).corrupt(clean[list(rows)], [torch.Generator().manual_seed(row) for row in rows])

    for together, alone in zip(corrupt(0, 1, 2), corrupt(2), strict=True):
        assert torch.equal(together[2:], alone)
    times = corrupt(0, 1, 2)[1]
    assert float(times.min()) > 0 and float(times.max()) <= 1


def test_ddim_times_start_at_pure_noise() -> None:
    assert ddim_times(500, 20)[:2] == [500, 475] and ddim_times(500, 20)[-1] == 25
    assert ddim_times(10, 10) == list(range(10, 0, -1))


@pytest.mark.parametrize(
    ("sampler", "complaint"),
    [
        (SamplerConfig("ddim", steps=501), "501 sampling steps; the model was trained on 1 to 500"),
        (SamplerConfig("ddim", eta=2.0), "eta is 2.0"),
        (SamplerConfig("midpoint"), "midpoint samples flow matching"),
    ],
)
def test_samplers_that_do_not_fit_are_refused(sampler: SamplerConfig, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        build_process(ProcessConfig(steps=500)).check(sampler)
