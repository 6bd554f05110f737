"""What the trainer trains when it fine-tunes GR00T: examples, loss, evaluation, export."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from tformer.lora import apply_lora, merge_lora
from tformer.training import Loss, Validation

from ..checkpoints import find_checkpoint
from ..data import Dataset, ModalityReader
from ..offline import Evaluation, ModalityPredictor, evaluate_trajectory
from ..policies.groot.assembly import GrootParts
from ..policies.groot.images import CROP, as_pixels, crop_and_resize
from ..policies.groot.model import Groot, save_checkpoint
from ..policies.groot.policy import GrootPolicy
from .augmentation import ColourJitter
from .learner import Learner
from .sampling import Prefetcher, Rows, generator_of

if TYPE_CHECKING:
    from .groot import GrootOptions

ATTENTION = (".to_q", ".to_k", ".to_v")
"""Linears that the reference's LoRA changes, in adapter and DiT."""


def choose_what_learns(model: Groot, options: GrootOptions) -> int:
    """Freeze what is not to learn, add low-rank changes where asked for, and return how many weights learn.

    With low-rank changes the encoders and the decoder of state and actions still learn as they are, unless
    ``tune_projector`` is off: they are what a new robot needs most. (The reference's LoRA freezes them.)
    """
    chosen = {"visual": options.tune_visual, "llm": options.tune_llm, "projector": options.tune_projector}
    count = model.set_trainable(**chosen, diffusion=options.tune_diffusion_model)
    if not options.lora_rank:
        return count
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    stacks = tuple(f"head.{name}." for name in ("model", "vl_self_attention"))
    apply_lora(
        model,
        options.lora_rank,
        options.lora_alpha,
        lambda name: name.startswith(stacks) and name.endswith(ATTENTION) and f"{name}.weight" in learning,
    )
    for name, parameter in model.named_parameters():
        if name in learning and not name.startswith((*stacks, "head.vlln.")):
            parameter.requires_grad_(True)
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


class Trainee(Learner):
    """The network as the trainer sees it: frozen parts stay in evaluation mode and out of the checkpoints."""

    def __init__(self, model: Groot, options: GrootOptions) -> None:
        super().__init__()
        self.network = model
        head, backbone = model.head, model.backbone
        self._frozen: list[nn.Module] = []
        if not options.tune_visual:
            self._frozen += [backbone.vision, backbone.connector]
        if not options.tune_llm:
            self._frozen += [backbone.language]
        if not options.tune_projector:
            self._frozen += [head.state_encoder, head.action_encoder, head.action_decoder]
        if not options.tune_diffusion_model:
            self._frozen += [head.model]

    def forward(self, batch: Mapping[str, Tensor], noise: Tensor, time: Tensor) -> Tensor:
        """Return the loss, a scalar; see ``Groot.loss``."""
        return self.network.loss(batch, noise, time)

    def train(self, mode: bool = True) -> Self:
        """Switch what learns; the rest, like the reference's, never drops out."""
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self


@dataclass
class GrootBatch:
    """tensors: as ``Groot.loss`` takes them; noise: (B, 16, 32); time: (B,)."""

    tensors: dict[str, Tensor]
    noise: Tensor
    time: Tensor

    def to(self, device: torch.device) -> GrootBatch:
        """Return the batch on ``device``."""
        moved = {name: tensor.to(device, non_blocking=True) for name, tensor in self.tensors.items()}
        return GrootBatch(moved, self.noise.to(device), self.time.to(device))


class GrootTask:
    """See ``tformer.training.Task``; an index is a position in the endless stream of shuffled rows.

    An example's crop, colours, noise and time are drawn from (seed, position).
    """

    def __init__(self, options: GrootOptions, parts: GrootParts, dataset: Dataset) -> None:
        self.options, self.parts, self.dataset = options, parts, dataset
        self.model: nn.Module = Trainee(parts.model, options)
        config = parts.transforms.config
        self._reader, self._rows = ModalityReader(dataset), Rows(dataset, options.seed)
        horizon = range(parts.model.config.head.action_horizon)
        self._wanted: dict[str, Sequence[int]] = {
            **{f"video.{key}": (0,) for key in config.video},
            **{f"state.{key}": (0,) for key in config.state},
            **{f"action.{key}": horizon for key in config.action},
            config.language: (0,),
        }
        self._jitter = ColourJitter()
        self._threads = ThreadPoolExecutor(options.data_threads)
        self._prefetch = Prefetcher(self.make_batch, options.batch_size)
        probe = self._example(0)  # what policy and dataset cannot agree on shows here, before anything is written
        self.tokens = parts.transforms.training_batch([probe])["tokens"].shape[1]

    @property
    def configuration(self) -> Mapping[str, Any]:
        """What a resume must have in common with the checkpoint."""
        names = (
            *("checkpoint", "embodiment", "data_config", "tune_visual", "tune_llm", "tune_projector"),
            *("tune_diffusion_model", "lora_rank", "lora_alpha", "batch_size", "steps_per_epoch", "seed"),
        )
        return {name: getattr(self.options, name) for name in names} | {"frames": self.dataset.frames}

    def batches(self, epoch: int) -> Sequence[Sequence[int]]:
        """See Task."""
        size, steps = self.options.batch_size, self.options.steps_per_epoch
        first = epoch * steps * size
        return [range(first + i * size, first + (i + 1) * size) for i in range(steps)]

    def collate(self, indices: Sequence[int]) -> GrootBatch:
        """See Task; the next batch is made in the background meanwhile."""
        return self._prefetch(indices)

    def make_batch(self, indices: Sequence[int]) -> GrootBatch:
        """Return the batch of these positions."""
        examples = list(self._threads.map(self._augmented, indices))
        tensors = self.parts.transforms.training_batch(examples, frames=as_they_are)
        draws = [generator_of(self.options.seed + 1, index) for index in indices]
        head = self.parts.model.config.head
        shape = (head.action_horizon, head.action_dim)
        noise = torch.stack([torch.randn(shape, generator=draw) for draw in draws])
        time = torch.cat([self.parts.model.head.sample_time(1, draw) for draw in draws])
        return GrootBatch(tensors, noise, time)

    def loss(self, model: nn.Module, batch: GrootBatch) -> Loss:
        """See Task: squared errors of the velocities over all action entries that the robot has."""
        count = batch.tensors["action_mask"].sum()
        return Loss(model(batch.tensors, batch.noise, batch.time) * count, count)

    def validate(self, model: nn.Module, epoch: int) -> Validation:
        """See Task: the offline error on the dataset's first episodes, with the same noise each time."""
        count = min(self.options.evaluate_episodes, len(self.dataset.episodes))
        if not count:
            return Validation({})
        device = next(model.parameters()).device
        policy = GrootPolicy.of(replace(self.parts, device=device), seed=self.options.seed)
        predictor = ModalityPredictor(policy, self.dataset)
        episodes = [self.dataset.episode(i) for i in range(count)]
        done = [evaluate_trajectory(predictor, episode, self.options.evaluate_steps) for episode in episodes]
        return Validation({"offline_mse": Evaluation(tuple(done)).mse})

    def close(self) -> None:
        """Stop the threads."""
        self._prefetch.close()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _example(self, position: int) -> dict[str, Any]:
        episode, row = self._rows.place(position)
        return self._reader.window(episode, row, self._wanted)

    def _augmented(self, position: int) -> dict[str, Any]:
        """Return the example with each view cropped, resized and coloured at random, all views alike."""
        example = self._example(position)
        generator = generator_of(self.options.seed, position)
        keys = [key for key in self._wanted if key.startswith("video.")]
        sizes: list[tuple[int, int]] = [example[key].shape[1:3] for key in keys]
        corners = {size: random_corner(size[0], size[1], generator) for size in sorted(set(sizes))}
        views = [
            crop_and_resize(torch.from_numpy(example[key]), corners[size])
            for key, size in zip(keys, sizes, strict=True)
        ]
        pixels = as_pixels(self._jitter(torch.cat(views), generator))  # (cameras, 3, 224, 224)
        return example | {key: view[None].numpy() for key, view in zip(keys, pixels, strict=True)}


def random_corner(height: int, width: int, generator: torch.Generator) -> tuple[int, int]:
    """Return (top, left) of a crop to 0.95 of each side, every place equally likely."""
    room = (height - int(height * CROP) + 1, width - int(width * CROP) + 1)
    top, left = (int(torch.randint(one, (1,), generator=generator)) for one in room)
    return top, left


def as_they_are(pixels: np.ndarray) -> Tensor:
    """Return (n, 3, 224, 224) pixels that are made already."""
    return torch.from_numpy(pixels)


def export(parts: GrootParts, folder: Path, options: GrootOptions) -> None:
    """Write the trained network in the original layout, low-rank changes merged, with the dataset's statistics."""
    merge_lora(parts.model)
    parts.model.eval()
    tokenizer = find_checkpoint(options.tokenizer) if options.tokenizer else parts.checkpoint
    known = parts.checkpoint.json("experiment_cfg/metadata.json") if _has_metadata(parts) else {}
    save_checkpoint(folder, parts.model, known | dict(parts.metadata), parts.checkpoint, tokenizer)
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
    (folder / "experiment_cfg" / "finetuning.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")


def _has_metadata(parts: GrootParts) -> bool:
    return parts.checkpoint.has("experiment_cfg/metadata.json")
