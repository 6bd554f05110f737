"""`python -m tformer.diffusion.quality`: how good an image model's pictures are, and what fewer steps cost.

Four numbers, because each alone can be had by cheating:

- accuracy: how often a classifier trained on the real images finds in a picture the context it was drawn for.
- learned from: how often a classifier trained on the *pictures* is right about real, held-out images. A model that
  draws the same good picture again and again scores high in the first and low here (arXiv:1905.10887).
- variety: mean distance between two pictures of the same context, relative to that of real images.
- nearness: median distance to the nearest training image, relative to that of held-out real images. Far below 1, the
  model has memorised its training images.
"""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys

    from tformer.launch import launch

    sys.exit(launch("tformer.diffusion.quality"))

import json
import platform
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from ..command import parse_options, run_command
from ..data.images import HELD_OUT, ImageSet, load_images
from ..errors import refused_values
from ..training.distributed import choose_device
from ..values import NonNegativeFloat, PositiveInt, Range, Seed
from .images import ImageModel, load_image_model
from .process import SamplerConfig

BATCH = 100
CLASSIFIER_STEPS = 600


@dataclass(frozen=True)
class QualityOptions:
    """Measure class-conditional samples of an image model against the real images it was trained on."""

    checkpoint: Path = Path("runs/diffusion")
    """A checkpoint, or the folder of a training for its newest."""
    path: Path | None = None
    """Where the training images lie, for mnist and npy."""
    count: Annotated[int, Range(2)] = 100
    """Pictures per context and sampler."""
    few: PositiveInt = 20
    """Steps of DDIM (or Euler) that are compared with all of DDPM (or 100 of Euler)."""
    guidance: NonNegativeFloat = 1.0
    """Classifier-free guidance for all samplers; 1 is none."""
    out: Path | None = None
    """Folder for quality.json and quality.md."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda or cuda:N."""
    seed: Seed = 0
    """Seed of the noise and the classifiers."""


@dataclass
class Sampled:
    """One sampler's pictures and what they are worth."""

    name: str
    sampler: SamplerConfig
    images: Tensor  # (N, C, S, S)
    seconds: float = 0.0
    accuracy: float = 0.0
    learned_from: float = 0.0
    variety: float = 0.0
    nearness: float = 0.0


class Classifier(nn.Module):
    """A small convolutional network, as good at the digits as their noise allows."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(channels, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)
        self.hidden, self.out = nn.Linear(64 * 16, 128), nn.Linear(128, classes)

    def forward(self, images: Tensor) -> Tensor:
        """images: (B, C, S, S) in -1 … 1. Returns (B, classes) logits."""
        x = functional.relu(self.conv1(images))  # (B, 32, S, S)
        x = functional.relu(self.conv2(x))  # (B, 64, S, S)
        x = functional.adaptive_avg_pool2d(x, 4).flatten(1)  # (B, 64·16)
        return self.out(functional.dropout(functional.relu(self.hidden(x)), 0.3, self.training))  # (B, classes)


def train_classifier(images: Tensor, labels: Tensor, classes: int, seed: int) -> Classifier:
    """Return a classifier trained on images (N, C, S, S) with labels (N,)."""
    torch.manual_seed(seed)
    classifier = Classifier(images.size(1), classes).to(images.device)
    optimizer = torch.optim.AdamW(classifier.parameters(), 2e-3)
    falling = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, CLASSIFIER_STEPS)
    for _ in range(CLASSIFIER_STEPS):
        rows = torch.randint(len(images), (64,))  # (64,)
        optimizer.zero_grad()
        functional.cross_entropy(classifier(images[rows]), labels[rows]).backward()
        optimizer.step()
        falling.step()
    return classifier.eval()


@torch.no_grad()
def accuracy(classifier: Classifier, images: Tensor, labels: Tensor) -> float:
    """Return the share of images (N, C, S, S) that ``classifier`` gives their labels (N,)."""
    answers = torch.cat([classifier(part).argmax(1) for part in images.split(500)])  # (N,)
    return float((answers == labels).float().mean())


def nearest(images: Tensor, training: Tensor) -> Tensor:
    """Return each image's distance to the nearest of ``training``, (N,)."""
    return torch.cdist(images.flatten(1), training.flatten(1)).amin(1)


def variety(images: Tensor, labels: Tensor) -> float:
    """Return the mean distance between two of ``images`` (N, C, S, S) that share a label (N,)."""
    groups = [images[labels == label].flatten(1) for label in labels.unique()]
    distances = [torch.cdist(g, g).sum() / (len(g) * (len(g) - 1)) for g in groups]  # a picture's own is 0
    return float(torch.stack(distances).mean())


def draw_all(model: ImageModel, samplers: dict[str, SamplerConfig], options: QualityOptions) -> list[Sampled]:
    """Return every sampler's pictures, ``count`` per context in order of the contexts, with the seconds they took.

    The samplers take turns batch by batch, so that whatever else the machine does slows all of them alike; on a CPU the
    seconds are the processor's, which other work does not count in.
    """
    device = next(model.parameters()).device
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    classes = len(model.config.names)
    contexts = torch.eye(classes, device=device).repeat_interleave(options.count, dim=0).split(BATCH)  # (100, K) each
    images: dict[str, list[Tensor]] = {name: [] for name in samplers}
    seconds = dict.fromkeys(samplers, 0.0)
    for number, part in enumerate(tqdm(contexts, unit="batch", disable=None)):
        for name, sampler in samplers.items():
            generator = torch.Generator(device).manual_seed(options.seed * 1_000_003 + number)
            started = clock()
            images[name].append(model.sample(part, sampler, generator, options.guidance).clamp(-1, 1).cpu())
            seconds[name] += clock() - started
    return [Sampled(name, samplers[name], torch.cat(images[name]), seconds[name]) for name in samplers]


def measure(model: ImageModel, data: ImageSet, options: QualityOptions) -> tuple[float, list[Sampled]]:
    """Return the classifier's accuracy on held-out real images, and all samplers' pictures with their numbers."""
    training, held_out = data.split(HELD_OUT)
    classes = len(data.names)
    real, held = training.contexts.argmax(1), held_out.contexts.argmax(1)  # (N,), (M,)
    judge = train_classifier(training.images, real, classes, options.seed)
    usual = nearest(held_out.images, training.images).median()
    drawn = torch.arange(classes).repeat_interleave(options.count)  # (classes · count,)
    results = draw_all(model, choose_samplers(model, options.few), options)
    for result in results:
        result.accuracy = accuracy(judge, result.images, drawn)
        pupil = train_classifier(result.images, drawn, classes, options.seed)
        result.learned_from = accuracy(pupil, held_out.images, held)
        result.variety = variety(result.images, drawn) / variety(training.images, real)
        result.nearness = float(nearest(result.images, training.images).median() / usual)
    return accuracy(judge, held_out.images, held), results


def choose_samplers(model: ImageModel, few: int) -> dict[str, SamplerConfig]:
    """Return the samplers that are compared, by name; the first is the reference for the speed-up."""
    process = model.config.process
    if process.kind == "flow":
        named = {"Euler": SamplerConfig("euler", 100), "Euler, few": SamplerConfig("euler", few)}
        return named | {"midpoint": SamplerConfig("midpoint", max(1, few // 2))}
    return {
        "DDPM": SamplerConfig("ddpm", process.steps),
        "DDIM": SamplerConfig("ddim", few),
        "DDPM without fresh noise (wrong)": SamplerConfig("ddpm", process.steps, add_noise=False),
    }


def table(held_out: float, results: Sequence[Sampled]) -> str:
    """Return the results as a Markdown table."""
    lines = [
        "| sampler | steps | accuracy | learned from | variety | nearness | seconds per 100 pictures | speed-up |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        hundred = result.seconds / len(result.images) * 100
        speed = results[0].seconds / result.seconds
        lines.append(
            f"| {result.name} | {result.sampler.steps} | {result.accuracy:.1%} | {result.learned_from:.1%} | "
            f"{result.variety:.2f} | {result.nearness:.2f} | {hundred:.2f} | {speed:.1f}× |"
        )
    lines.append(f"| real, held-out images | | {held_out:.1%} | | 1.00 | 1.00 | | |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit code."""
    program = "python -m tformer.diffusion.quality"

    def command() -> None:
        options = parse_options(QualityOptions, arguments, program)
        model = load_image_model(options.checkpoint, choose_device(options.device))
        for sampler in choose_samplers(model, options.few).values():
            with refused_values():
                model.process.check(sampler)
        data = load_images(model.config.data, options.path)  # type: ignore[arg-type]
        held_out, results = measure(model, data, options)
        print(table(held_out, results))
        if options.out is not None:
            line = shlex.join([*program.split(), *(sys.argv[1:] if arguments is None else arguments)])
            write(options.out, line, model, held_out, results)

    return run_command(command)


def write(out: Path, line: str, model: ImageModel, held_out: float, results: Sequence[Sampled]) -> None:
    """Write quality.json and quality.md with the command, the day and the machine."""
    out.mkdir(parents=True, exist_ok=True)
    device = next(model.parameters()).device.type
    where = f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads, {platform.machine()}"
    rows = [
        {"name": r.name, "sampler": asdict(r.sampler), "pictures": len(r.images), "seconds": round(r.seconds, 3)}
        | {"accuracy": r.accuracy, "learned_from": r.learned_from, "variety": r.variety, "nearness": r.nearness}
        for r in results
    ]
    content: dict[str, Any] = {
        "command": line,
        "date": date.today().isoformat(),
        "machine": where,
        "model": model.config.to_dict(),
    }
    content |= {"held_out_accuracy": held_out, "results": rows}
    (out / "quality.json").write_text(json.dumps(content, indent=1) + "\n")
    (out / "quality.md").write_text(f"`{line}`, {content['date']}, {where}\n\n{table(held_out, results)}\n")
