"""What the trainer trains when it fine-tunes OpenVLA: action tokens as labels, validation, export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tformer.training import Loss, Validation

from ..checkpoints.precision import is_quantised
from ..conventions import orient
from ..data import Dataset, Episode
from ..data.statistics import describe
from ..errors import UserError
from ..policies.openvla.actions import token_values, value_tokens
from ..policies.openvla.configuration import IMAGE_SIZE
from ..policies.openvla.datasets import finetune_statement
from ..policies.openvla.images import jpeg_round_trip, lanczos3
from ..policies.openvla.loading import OpenVLAParts
from ..policies.openvla.model import OpenVLA
from ..types import DELTA_EEF_POSE
from .augmentation import TensorflowJitter
from .learner import Learner
from .sampling import Prefetcher, Rows, generator_of

if TYPE_CHECKING:
    from .openvla import OpenVLAOptions

END = 2
"""LLaMA's end-of-sequence token, which closes the action in the training data."""
LABELS = DELTA_EEF_POSE.dim + 1
"""Tokens that are predicted: the action's entries and the end."""


def recorded_actions(episode: Episode) -> np.ndarray:
    """Return (length, 7) float64 actions as OpenVLA was trained on them: the gripper 1 open and 0 closed."""
    actions = episode.column("action").astype(np.float64)
    if actions.shape[1:] != (DELTA_EEF_POSE.dim,):
        raise UserError(
            f"The actions of {episode.dataset.path} are {actions.shape[1:]}, and OpenVLA writes end-effector actions of"
            f" {DELTA_EEF_POSE.dim} numbers: use a dataset of these."
        )
    actions[:, -1] = 1.0 - np.clip(actions[:, -1], 0.0, 1.0)
    return actions


def action_statistics(dataset: Dataset) -> dict[str, Any]:
    """Return the dataset's entry of dataset_statistics.json; the gripper is not normalised."""
    actions = np.concatenate([recorded_actions(dataset.episode(i)) for i in range(len(dataset.episodes))])
    found: dict[str, Any] = {name: value.tolist() for name, value in describe(actions).items()}
    mask = [True] * (DELTA_EEF_POSE.dim - 1) + [False]
    instructions = [dataset.episode(i).instruction(0) for i in range(len(dataset.episodes))]
    return {
        "action": found | {"mask": mask},
        **finetune_statement(instructions),
        "num_transitions": len(actions),
        "num_trajectories": len(dataset.episodes),
    }


class Trainee(Learner):
    """OpenVLA as the trainer sees it."""

    def __init__(self, model: OpenVLA) -> None:
        super().__init__()
        self.network = model

    def train(self, mode: bool = True) -> Self:
        """Switch the mode; quantised layers always train.

        In evaluation bitsandbytes packs their weights anew on some CPUs, and no gradient passes them from then on.
        """
        super().train(mode)
        for module in self.modules():
            if is_quantised(module):
                module.training = True
        return self

    def forward(self, pixels: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Return (B, 8, vocabulary) fp32: what the network expects in the place of each row's last 8 tokens.

        pixels: (B, 6, 224, 224); tokens: (B, T) int64, BOS first, padded on the right; lengths: (B,) without padding.
        """
        network = self.network
        patches = network.patches(pixels)  # (B, N, D)
        text = network.language_model.embed_tokens(tokens).to(patches.dtype)  # (B, T, D)
        hidden = network.language_model(torch.cat([text[:, :1], patches, text[:, 1:]], dim=1))  # (B, N + T, D)
        # The token at place p of the text is at N + p, and is expected one place earlier.
        places = patches.shape[1] + lengths[:, None] - LABELS - 1 + torch.arange(LABELS, device=lengths.device)
        rows = torch.arange(len(tokens), device=tokens.device)[:, None]
        return network.logits(hidden[rows, places])


@dataclass
class OpenVLABatch:
    """As ``Trainee.forward`` takes them; labels: (B, 8) int64, the action's tokens and the end."""

    pixels: Tensor
    tokens: Tensor
    lengths: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> OpenVLABatch:
        """Return the batch on ``device``."""
        return OpenVLABatch(*(part.to(device) for part in (self.pixels, self.tokens, self.lengths, self.labels)))


class OpenVLATask:
    """See ``tformer.training.Task``; an index is a position in the endless stream of shuffled rows."""

    def __init__(self, options: OpenVLAOptions, parts: OpenVLAParts, model: OpenVLA, dataset: Dataset) -> None:
        self.options, self.parts, self.dataset = options, parts, dataset
        self.model: nn.Module = Trainee(model)
        if options.camera not in dataset.modality.video:
            known = ", ".join(dataset.modality.video) or "none"
            raise UserError(f"--camera is {options.camera!r}, and {dataset.path} has: {known}.")
        self._camera = dataset.modality.video[options.camera]
        self._rows = Rows(dataset, options.seed)
        self._bounds = parts.bounds("action")
        self._jitter = TensorflowJitter()
        self._prefetch = Prefetcher(lambda indices: self.make_batch(indices, options.augmentation), options.batch_size)

    @property
    def configuration(self) -> Mapping[str, Any]:
        """What a resume must have in common with the checkpoint."""
        names = ("checkpoint", "camera", "lora_rank", "augmentation", "batch_size", "steps_per_epoch", "seed")
        return {name: getattr(self.options, name) for name in names} | {"frames": self.dataset.frames}

    def batches(self, epoch: int) -> Sequence[Sequence[int]]:
        """See Task."""
        size, steps = self.options.batch_size, self.options.steps_per_epoch
        first = epoch * steps * size
        return [range(first + i * size, first + (i + 1) * size) for i in range(steps)]

    def collate(self, indices: Sequence[int]) -> OpenVLABatch:
        """See Task; the next batch is made in the background meanwhile."""
        return self._prefetch(indices)

    def make_batch(self, indices: Sequence[int], augmented: bool) -> OpenVLABatch:
        """Return the batch of these positions."""
        images, texts, labels = [], [], []
        for index in indices:
            episode, row = self._rows.place(index)
            images.append(self._image(episode, row, generator_of(self.options.seed, index) if augmented else None))
            action = self._bounds.normalise(recorded_actions(episode)[row])
            labels.append([*value_tokens(action, self.parts.config).tolist(), END])
            texts.append([*self.parts.prompt.tokens(episode.instruction(row)), *labels[-1]])
        lengths = torch.tensor([len(text) for text in texts])
        tokens = torch.zeros(len(texts), int(lengths.max()), dtype=torch.long)
        for i, text in enumerate(texts):
            tokens[i, : len(text)] = torch.tensor(text)
        return OpenVLABatch(self.parts.normalise(np.stack(images)), tokens, lengths, torch.tensor(labels))

    def loss(self, model: nn.Module, batch: OpenVLABatch) -> Loss:
        """See Task: cross-entropy of the action's tokens and the end."""
        logits = model(batch.pixels, batch.tokens, batch.lengths)  # (B, 8, vocabulary)
        total = functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), reduction="sum")
        return Loss(total, batch.labels.numel())

    def validate(self, model: nn.Module, epoch: int) -> Validation:
        """See Task: loss, share of action tokens met, and mean distance of the actions in [-1, 1]."""
        device = next(model.parameters()).device
        count = min(self.options.evaluate_examples, self.dataset.frames)
        chosen = (
            np.linspace(0, self.dataset.frames - 1, count).round().astype(int).tolist()
        )  # of the first shuffled pass
        total = met = distance = 0.0
        for start in range(0, count, self.options.batch_size):
            batch = self.make_batch(chosen[start : start + self.options.batch_size], augmented=False).to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=self.options.precision == "bf16"):
                logits = model(batch.pixels, batch.tokens, batch.lengths)
            total += float(functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), reduction="sum"))
            guess, wanted = logits[:, :-1].argmax(dim=-1).cpu().numpy(), batch.labels[:, :-1].cpu().numpy()
            met += float((guess == wanted).sum())
            values = (token_values(tokens, self.parts.config) for tokens in (guess, wanted))
            distance += float(np.abs(np.subtract(*values)).sum())
        numbers = count * DELTA_EEF_POSE.dim
        return Validation({"loss": total / count / LABELS, "accuracy": met / numbers, "l1": distance / numbers})

    def close(self) -> None:
        """Stop the background work."""
        self._prefetch.close()

    def _image(self, episode: Episode, row: int, generator: torch.Generator | None) -> np.ndarray:
        """Return (224, 224, 3) uint8: the frame as training data hold it, augmented where a generator is given."""
        frame = orient(episode.images(self._camera, [row])[0], "upright", "mirrored")
        image = lanczos3(jpeg_round_trip(frame), IMAGE_SIZE)
        if generator is None:
            return image
        changed = self._jitter(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255, generator)[0]
        return (changed.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
