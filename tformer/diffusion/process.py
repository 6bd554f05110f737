"""One interface over diffusion and flow matching: corrupt an example for training, sample one from noise.

>>> process = build_process(ProcessConfig(kind="diffusion", schedule="cosine", steps=500))
>>> noisy, time, target = process.corrupt(torch.zeros(4, 3, 16, 16))
>>> images = process.sample(lambda x, time: x, torch.randn(4, 3, 16, 16), SamplerConfig("ddim", steps=2))
>>> images.shape
torch.Size([4, 3, 16, 16])
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from torch import Tensor

from ..values import PositiveInt
from .flow import Solver, interpolate, sample_flow, velocity
from .samplers import Denoiser, Generators, Watch, draw_noise, draw_uniform, sample_ddim, sample_ddpm
from .schedules import NoiseSchedule, Prediction, add_noise, cosine_schedule, linear_schedule, training_target


@dataclass(frozen=True)
class ProcessConfig:
    """How examples turn into noise. Stored with a checkpoint: a network only fits the process it was trained on."""

    kind: Literal["diffusion", "flow"] = "diffusion"
    """Gaussian diffusion in discrete steps, or flow matching along straight paths."""
    schedule: Literal["linear", "cosine"] = "linear"
    """Noise schedule of diffusion: the variance added per step grows from 1e-4 to 0.02, or follows a cosine."""
    steps: PositiveInt = 500
    """Noise steps of diffusion."""
    prediction: Prediction = "epsilon"
    """What the network of a diffusion predicts."""


@dataclass(frozen=True)
class SamplerConfig:
    """How noise turns into examples. ddpm and ddim belong to diffusion, euler and midpoint to flow matching."""

    name: Literal["ddpm", "ddim", "euler", "midpoint"] = "ddim"
    """ddpm takes all steps of its schedule and draws fresh noise in each; the others take --steps."""
    steps: PositiveInt = 20
    """Steps of ddim, euler and midpoint."""
    eta: float = 0.0
    """Fresh noise in ddim, from 0 (none) to 1 (as much as ddpm)."""
    clip: float | None = 1.0
    """Largest magnitude of the data, which ddpm and ddim hold their guess inside; None for unbounded data."""
    add_noise: bool = True
    """False makes ddpm the deliberately wrong sampler that draws no fresh noise."""


class Corrupted(NamedTuple):
    """An example for the network: noisy (B, …) at time (B,) in 0 … 1, and the target (B, …) it should answer with."""

    noisy: Tensor
    time: Tensor
    target: Tensor


class Process(Protocol):
    """Turns examples into noise and back; ``GaussianDiffusion`` and ``FlowMatching`` are the two."""

    def corrupt(self, clean: Tensor, generator: Generators = None) -> Corrupted:
        """Draw a time and noise for each of ``clean`` (B, …); generators live on its device."""

    def check(self, sampler: SamplerConfig) -> None:
        """Raise ValueError, with a sentence, unless ``sampler`` can draw from this process."""

    def sample(
        self,
        model: Denoiser,
        noise: Tensor,
        sampler: SamplerConfig,
        generator: Generators = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """Return examples (B, …) from standard normal ``noise`` (B, …). Raises ValueError as ``check`` does."""


@dataclass(frozen=True)
class GaussianDiffusion:
    """DDPM's process: S noisy times, the network predicts epsilon, x0 or v."""

    schedule: NoiseSchedule
    prediction: Prediction = "epsilon"

    def corrupt(self, clean: Tensor, generator: Generators = None) -> Corrupted:
        """See ``Process.corrupt``; times are uniform over 1 … S."""
        uniform = draw_uniform(len(clean), generator, clean.device)  # (B,)
        t = (uniform * self.schedule.steps).long() + 1  # (B,)
        noise = draw_noise(clean.shape, generator, clean.device)  # (B, …)
        noisy = add_noise(self.schedule, clean, noise, t)  # (B, …)
        target = training_target(self.schedule, self.prediction, clean, noise, t)  # (B, …)
        return Corrupted(noisy, t / self.schedule.steps, target)

    def check(self, sampler: SamplerConfig) -> None:
        """See ``Process.check``."""
        if sampler.name not in ("ddpm", "ddim"):
            raise ValueError(f"{sampler.name} samples flow matching; a diffusion model takes ddpm or ddim")
        if sampler.name == "ddim" and not 1 <= sampler.steps <= self.schedule.steps:
            raise ValueError(f"{sampler.steps} sampling steps; the model was trained on 1 to {self.schedule.steps}")
        if not 0 <= sampler.eta <= 1:
            raise ValueError(f"eta is {sampler.eta}; it goes from 0 (no fresh noise) to 1 (as much as ddpm)")

    def sample(
        self,
        model: Denoiser,
        noise: Tensor,
        sampler: SamplerConfig,
        generator: Generators = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """See ``Process.sample``."""
        self.check(sampler)
        if sampler.name == "ddpm":
            return sample_ddpm(
                self.schedule, self.prediction, model, noise, generator, sampler.clip, sampler.add_noise, watch
            )
        return sample_ddim(
            self.schedule, self.prediction, model, noise, generator, sampler.steps, sampler.eta, sampler.clip, watch
        )


@dataclass(frozen=True)
class FlowMatching:
    """Flow matching's process: times are continuous, the network predicts the velocity."""

    def corrupt(self, clean: Tensor, generator: Generators = None) -> Corrupted:
        """See ``Process.corrupt``; times are uniform over 0 … 1."""
        time = draw_uniform(len(clean), generator, clean.device)  # (B,)
        noise = draw_noise(clean.shape, generator, clean.device)  # (B, …)
        return Corrupted(interpolate(clean, noise, time), time, velocity(clean, noise))

    def check(self, sampler: SamplerConfig) -> None:
        """See ``Process.check``."""
        if sampler.name not in ("euler", "midpoint"):
            raise ValueError(f"{sampler.name} samples diffusion; a flow-matching model takes euler or midpoint")
        if sampler.steps < 1:
            raise ValueError(f"{sampler.steps} sampling steps; at least 1 is needed")

    def sample(
        self,
        model: Denoiser,
        noise: Tensor,
        sampler: SamplerConfig,
        generator: Generators = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """See ``Process.sample``; flow matching draws no noise on the way, so ``generator`` is not used."""
        self.check(sampler)
        solver: Solver = "midpoint" if sampler.name == "midpoint" else "euler"
        return sample_flow(model, noise, sampler.steps, solver, watch)


def build_process(config: ProcessConfig) -> Process:
    """Return the process that ``config`` describes."""
    if config.kind == "flow":
        return FlowMatching()
    make = {"linear": linear_schedule, "cosine": cosine_schedule}[config.schedule]
    return GaussianDiffusion(make(config.steps), config.prediction)
