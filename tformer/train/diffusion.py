"""`python -m tformer.train diffusion`: an image model with contexts, on sprites, digits or your own images."""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys

    from tformer.launch import launch

    sys.exit(launch("tformer.train.__main__", arguments=["diffusion", *sys.argv[1:]]))

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..command import parse_options, run_command
from ..data.images import HELD_OUT, ImageSet, Source, load_images
from ..diffusion.conditioning import drop_contexts
from ..diffusion.dit import DiTConfig
from ..diffusion.images import ImageModel, ImageModelConfig
from ..diffusion.pictures import grid, save_picture
from ..diffusion.process import ProcessConfig, SamplerConfig
from ..diffusion.unet import ContextUnetConfig
from ..errors import UserError, refused_values
from ..training import Loss, TrainOptions, Validation, train
from ..values import Fraction, NonNegativeFloat, PositiveInt

STEPS_PER_EPOCH = 250


@dataclass(frozen=True, kw_only=True)
class DiffusionOptions(TrainOptions):
    """Train an image diffusion or flow-matching model with context labels."""

    out: Path = Path("runs/diffusion")
    """Folder for checkpoints, sample grids, curve.json and TensorBoard events."""
    data: Source = "sprites"
    """sprites (16×16, drawn here), digits (8×8, scikit-learn's), mnist or npy files."""
    path: Path | None = None
    """MNIST's folder, or NAME.npy with NAME_labels.npy beside it."""
    model: Literal["unet", "dit"] = "unet"
    """The convolutional ContextUnet, or the transformer DiT."""
    width: PositiveInt = 64
    """Feature channels of the U-Net, or width of the DiT's tokens; a multiple of 8."""
    layers: PositiveInt = 4
    """Blocks of the DiT."""
    process: ProcessConfig = field(default_factory=ProcessConfig)
    batch_size: PositiveInt = 128
    """Images per step, over all processes together."""
    context_dropout: Fraction = 0.1
    """Share of the images shown without their context, which makes guidance possible."""
    epochs: PositiveInt = 12
    """Epochs of 250 steps each; each ends with validation, a grid of samples and a checkpoint."""
    min_learning_rate: NonNegativeFloat = 0.0
    """Learning rate that the cosine reaches at the last step."""
    weight_decay: NonNegativeFloat = 0.01
    """AdamW's decay of matrices; vectors (norms, biases) do not decay."""


@dataclass
class ImageBatch:
    """noisy, target: (B, C, S, S); time: (B,) in 0 … 1; context: (B, K)."""

    noisy: Tensor
    time: Tensor
    target: Tensor
    context: Tensor

    def to(self, device: torch.device) -> ImageBatch:
        """Return the batch on ``device``."""
        return ImageBatch(*(part.to(device) for part in (self.noisy, self.time, self.target, self.context)))


class DiffusionTask:
    """What the trainer trains; an index is a position in the endless stream of shuffled passes over the images.

    An image's time, noise and context dropout are drawn from (seed, position), so that they are the same whichever
    process it goes to and after any resume.
    """

    def __init__(self, options: DiffusionOptions, data: ImageSet) -> None:
        torch.manual_seed(options.seed)
        self.options = options
        self.training, self.held_out = data.split(HELD_OUT)
        config = model_config(options, data)
        with refused_values():
            self.model: ImageModel = ImageModel(config)
        shown = {"images": len(data), "batch_size": options.batch_size, "context_dropout": options.context_dropout}
        self.configuration: Mapping[str, Any] = config.to_dict() | shown | {"seed": options.seed}

    def batches(self, epoch: int) -> Sequence[Sequence[int]]:
        """See ``tformer.training.Task``."""
        size = self.options.batch_size
        first = epoch * STEPS_PER_EPOCH * size
        return [range(first + i * size, first + (i + 1) * size) for i in range(STEPS_PER_EPOCH)]

    def collate(self, indices: Sequence[int]) -> ImageBatch:
        """See ``tformer.training.Task``."""
        count = len(self.training)
        rows = torch.tensor([shuffled(count, self.options.seed, i // count)[i % count] for i in indices])  # (B,)
        return self._corrupt(self.training.select(rows), self.options.seed, indices, self.options.context_dropout)

    def _corrupt(self, images: ImageSet, seed: int, draws: Sequence[int], dropout: float) -> ImageBatch:
        generators = [torch.Generator().manual_seed(_mix(seed, draw)) for draw in draws]
        noisy, time, target = self.model.process.corrupt(images.images, generators)  # (B, C, S, S), (B,), (B, C, S, S)
        return ImageBatch(noisy, time, target, drop_contexts(images.contexts, dropout, generators))

    def loss(self, model: nn.Module, batch: ImageBatch) -> Loss:
        """See ``tformer.training.Task``: squared errors over all pixels and channels."""
        output = model(batch.noisy, batch.time, batch.context)  # (B, C, S, S)
        return Loss((output.float() - batch.target).square().sum(), batch.target.numel())

    def validate(self, model: nn.Module, epoch: int) -> Validation:
        """See ``tformer.training.Task``: the loss on held-out images at the same times and noise each epoch, a grid."""
        device = next(model.parameters()).device
        total, count = 0.0, 0
        for rows in torch.arange(len(self.held_out)).split(256):
            batch = self._corrupt(self.held_out.select(rows), self.options.seed + 1, rows.tolist(), 0.0).to(device)
            part, items = self.loss(model, batch)
            total, count = total + float(part), count + int(items)
        path = self.options.out / "samples" / f"epoch_{epoch:04d}.png"
        save_picture(self._samples(device), path)
        return Validation({"loss": total / count}, f"samples: {path}")

    def _samples(self, device: torch.device) -> Any:
        names = self.training.contexts.size(1)
        contexts = torch.eye(names, device=device).repeat_interleave(8, dim=0)  # (8K, K): a row of eight for each name
        diffusion = self.options.process.kind == "diffusion"
        sampler = SamplerConfig("ddim" if diffusion else "euler", steps=min(20, self.options.process.steps))
        generator = torch.Generator(device).manual_seed(self.options.seed)
        return grid(self.model.sample(contexts, sampler, generator), columns=8)


@lru_cache(maxsize=2)  # a batch touches one pass over the images, or two
def shuffled(count: int, seed: int, number: int) -> list[int]:
    """Return 0 … count - 1 in the order of pass ``number``."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(_mix(seed, number))).tolist()


def _mix(seed: int, number: int) -> int:
    """Return a seed of its own for each pair."""
    return (seed * 0x9E3779B97F4A7C15 + number) % 2**63


def model_config(options: DiffusionOptions, data: ImageSet) -> ImageModelConfig:
    """Return the model that the options and the data ask for. Raises UserError where they do not fit."""
    channels, size, contexts = data.images.size(1), data.images.size(2), len(data.names)
    if options.width % 8:
        raise UserError(f"--width {options.width} is no multiple of 8; {options.width // 8 * 8 + 8} would be.")
    network: ContextUnetConfig | DiTConfig
    if options.model == "unet":
        network = ContextUnetConfig(channels, contexts, options.width)
    elif size % 2:
        raise UserError(f"a DiT cuts images into patches of 2×2 and these are {size}×{size}; use --model unet.")
    else:
        heads = max(1, options.width // 32)
        network = DiTConfig(channels, contexts, size, 2, options.width, options.layers, heads)
    return ImageModelConfig(network, size, data.names, options.data, options.process)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit code."""

    def command() -> None:
        options = parse_options(DiffusionOptions, arguments, "python -m tformer.train diffusion")
        data = load_images(options.data, options.path)
        if len(data) < 2:
            raise UserError(f"--data {options.data} holds {len(data)} image; at least 2 are needed.")
        train(DiffusionTask(options, data), options)

    return run_command(command)
