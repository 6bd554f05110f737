"""`python -m tformer.diffusion.figures`: the figures of image models in the README's diffusion half."""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys

    from tformer.launch import launch

    sys.exit(launch("tformer.diffusion.figures"))

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..command import parse_options, run_command
from ..data.images import load_images, parse_context
from ..errors import refused_values
from .images import ImageModel, load_image_model
from .process import SamplerConfig
from .schedules import add_noise, cosine_schedule, linear_schedule

Row = tuple[str, Tensor]
"""What a row shows, and its images (N, C, H, W) in -1 … 1."""


@dataclass(frozen=True)
class FigureOptions:
    """Draw the figures about diffusion: the forward and reverse process, the samplers, the contexts."""

    digits: Path = Path("runs/digits")
    """A diffusion model trained on the digits, as checkpoint or folder."""
    sprites: Path = Path("runs/sprites")
    """A diffusion model trained on the sprites, as checkpoint or folder."""
    out: Path = Path("docs/tformer")
    """Folder for the pictures."""


def pictures(rows: Sequence[Row], titles: Sequence[str] = ()) -> Figure:
    """Return a figure with one labelled row of images each, and ``titles`` over the columns."""
    columns = max(len(images) for _, images in rows)
    figure, axes = plt.subplots(
        len(rows), columns, figsize=(0.75 * columns + 2.0, 0.8 * len(rows) + 0.3), squeeze=False
    )
    for line, (label, images) in zip(axes, rows, strict=True):
        for axis in line:
            axis.axis("off")
        for axis, image in zip(line, images, strict=False):
            pixels = ((image.clamp(-1, 1) + 1) / 2).permute(1, 2, 0).numpy()  # (H, W, C)
            axis.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        line[0].text(-0.2, 0.5, label, transform=line[0].transAxes, ha="right", va="center", fontsize=9)
    for axis, title in zip(axes[0], titles, strict=False):
        axis.set_title(title, fontsize=9)
    figure.tight_layout(pad=0.3)
    return figure


def forward_process() -> Figure:
    """A sprite on its way to noise, by both schedules."""
    image = load_images("sprites").images[4:5]  # (1, 3, 16, 16)
    times = [0, 50, 100, 150, 200, 250, 300, 350, 400, 450, 500]
    t = torch.tensor(times)
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0)).expand(len(t), -1, -1, -1)
    rows = [
        (name, add_noise(schedule, image.expand(len(t), -1, -1, -1), noise, t))
        for name, schedule in (("linear", linear_schedule(500)), ("cosine", cosine_schedule(500)))
    ]
    return pictures(rows, [f"t = {time}" for time in times])


def reverse_process(model: ImageModel) -> Figure:
    """Pictures on their way out of noise, and the clean picture that the network guesses at each time."""
    names = model.config.names
    contexts = torch.stack([parse_context(name, names) for name in names])  # (K, K)
    steps = model.config.process.steps
    shown = [round(steps * i / 10) for i in range(9, -1, -1)]  # ten times, the last 0
    seen: list[tuple[Tensor, Tensor]] = []

    def watch(time: float, x: Tensor, clean: Tensor) -> None:
        if round(time * steps) in shown:
            seen.append((x, clean))

    model.sample(contexts, SamplerConfig("ddpm"), torch.Generator().manual_seed(1), watch=watch)
    rows: list[Row] = []
    for i, name in enumerate(names):
        rows.append((f"{name}: x at t", torch.stack([x[i] for x, _ in seen])))
        rows.append(("guess of x at 0", torch.stack([clean[i] for _, clean in seen])))
    return pictures(rows, [f"t = {time}" for time in shown])


def samplers(model: ImageModel) -> Figure:
    """The same noise and contexts through DDPM, DDIM with fewer and fewer steps, and the wrong sampler."""
    contexts = torch.eye(len(model.config.names))  # (K, K)
    steps = model.config.process.steps
    ways = {f"DDPM, {steps} steps": SamplerConfig("ddpm")}
    ways |= {f"DDIM, {few} steps": SamplerConfig("ddim", few) for few in (100, 20, 10, 5)}
    ways |= {"DDPM, no fresh noise": SamplerConfig("ddpm", add_noise=False)}
    rows = [(label, model.sample(contexts, way, torch.Generator().manual_seed(3))) for label, way in ways.items()]
    return pictures(rows, model.config.names)


def wrong_sampler(model: ImageModel) -> Figure:
    """Five pictures of each context by DDPM, and five from the same noise by DDPM that forgets the fresh noise."""
    names = model.config.names
    contexts = torch.eye(len(names)).repeat_interleave(5, dim=0)  # (5K, K)
    right, wrong = (
        model.sample(contexts, SamplerConfig("ddpm", add_noise=way), torch.Generator().manual_seed(0)).split(5)
        for way in (True, False)
    )
    both = [torch.cat(parts) for parts in zip(right, wrong, strict=True)]  # (10, C, S, S) each
    return pictures(list(zip(names, both, strict=True)), ["DDPM", *[""] * 4, "no fresh noise"])


def mixtures(model: ImageModel) -> Figure:
    """Sprites of mixed contexts, which no training image had, and of stronger guidance."""
    asked = ("hero=1", "hero=1,food=0.6", "food=1,spell=0.6", "side=0.7,non_hero=0.7", "")
    rows: list[Row] = []
    for text in asked:
        context = parse_context(text, model.config.names).expand(10, -1)  # (10, K)
        images = model.sample(context, SamplerConfig("ddim", 50), torch.Generator().manual_seed(0))
        rows.append((text or "(no context)", images))
    return pictures(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit code."""

    def command() -> None:
        options = parse_options(FigureOptions, arguments, "python -m tformer.diffusion.figures")
        digits, sprites = load_image_model(options.digits), load_image_model(options.sprites)
        for model in (digits, sprites):
            with refused_values():
                model.process.check(SamplerConfig("ddpm"))
        options.out.mkdir(parents=True, exist_ok=True)
        for name, figure in (
            ("forward", forward_process()),
            ("reverse", reverse_process(sprites)),
            ("samplers", samplers(digits)),
            ("wrong_sampler", wrong_sampler(sprites)),
            ("mixtures", mixtures(sprites)),
        ):
            path = options.out / f"diffusion_{name}.png"
            figure.savefig(path, dpi=100, bbox_inches="tight")
            plt.close(figure)
            print(path)

    return run_command(command)
