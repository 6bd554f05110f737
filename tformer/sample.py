"""`python -m tformer.sample`: draw pictures from an image model, by context, with the denoising as an animation."""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys

    from tformer.launch import launch

    sys.exit(launch("tformer.sample"))

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from .command import parse_options, run_command
from .data.images import parse_context
from .diffusion.images import ImageModel, load_image_model
from .diffusion.pictures import grid, save_animation, save_picture
from .diffusion.process import SamplerConfig
from .errors import UserError, refused_values
from .training.distributed import choose_device
from .values import Fraction, NonNegativeFloat, PositiveInt, Seed

FRAMES = 40  # of an animation, at most


@dataclass(frozen=True)
class SampleOptions:
    """Draw pictures from a model that `python -m tformer.train diffusion` trained."""

    checkpoint: Path = Path("runs/diffusion")
    """A checkpoint, or the folder of a training for its newest."""
    context: tuple[str, ...] = ()
    """What to draw, one row of pictures each: a name or a mixture, as in `--context hero=1,food=0.6 spell`; "" is
    anything. None given: every name of the model."""
    count: PositiveInt = 8
    """Pictures per context."""
    sampler: Literal["ddpm", "ddim", "euler", "midpoint"] | None = None
    """How to draw: ddpm or ddim from a diffusion model, euler or midpoint from a flow-matching one. Not given: ddim or
    euler."""
    steps: PositiveInt = 20
    """Steps of ddim, euler and midpoint; ddpm takes all that the model was trained on."""
    eta: Fraction = 0.0
    """Fresh noise in ddim, from 0 (none) to 1 (as much as ddpm)."""
    guidance: NonNegativeFloat = 1.0
    """Classifier-free guidance: 1 is none, 2 to 5 show the context more clearly and vary less."""
    wrong: bool = False
    """Draw by ddpm without fresh noise, the well-known mistake, to see what becomes of it."""
    out: Path = Path("samples.png")
    """The picture to write."""
    animation: Path | None = None
    """A GIF of the denoising to write as well."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda or cuda:N."""
    seed: Seed = 0
    """Seed of the noise; the same seed, options and device give the same pictures."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit code."""
    return run_command(lambda: draw(parse_options(SampleOptions, arguments, "python -m tformer.sample")))


def draw(options: SampleOptions) -> None:
    """Write what the options ask for. Raises UserError where they do not fit the model."""
    model = load_image_model(options.checkpoint, choose_device(options.device))
    names = model.config.names
    sampler = _sampler(options, model)
    rows = [parse_context(text, names) for text in options.context or names]  # (K,) each
    contexts = torch.stack(rows).repeat_interleave(options.count, dim=0)  # (B, K)
    images, frames = animate(model, contexts, sampler, options.guidance, options.seed, options.count)
    try:
        save_picture(grid(images, options.count), options.out)
        if options.animation is not None:
            save_animation(frames, options.animation)
    except (OSError, ValueError) as error:
        raise UserError(f"the picture cannot be written ({error}); give another --out or --animation.") from None
    print(f"{len(images)} pictures by {sampler.name}: {options.out}")


def animate(
    model: ImageModel, contexts: Tensor, sampler: SamplerConfig, guidance: float, seed: int, columns: int
) -> tuple[Tensor, list[np.ndarray]]:
    """Return images (B, C, S, S) for contexts (B, K), and grids of the way there, at most ``FRAMES``, as pictures."""
    device = next(model.parameters()).device
    taken = model.config.process.steps if sampler.name == "ddpm" else sampler.steps
    frames: list[np.ndarray] = []
    with tqdm(total=taken, unit="step", disable=None) as bar:

        def watch(time: float, x: Tensor, clean: Tensor) -> None:
            bar.update()
            if (taken - bar.n) % -(-taken // FRAMES) == 0:  # the last step is among them
                frames.append(grid(x, columns))

        generator = torch.Generator(device).manual_seed(seed)
        return model.sample(contexts.to(device), sampler, generator, guidance, watch), frames


def _sampler(options: SampleOptions, model: ImageModel) -> SamplerConfig:
    if options.wrong and options.sampler != "ddpm":
        raise UserError("--wrong leaves out the fresh noise that ddpm draws; give it together with --sampler ddpm.")
    name = options.sampler or ("ddim" if model.config.process.kind == "diffusion" else "euler")
    sampler = SamplerConfig(name, options.steps, options.eta, add_noise=not options.wrong)
    with refused_values():
        model.process.check(sampler)
    return sampler
