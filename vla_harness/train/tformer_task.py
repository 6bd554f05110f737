"""What the trainer trains when it trains the policy from scratch: augmentation, loss, validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from tformer.policy import PolicyConfig, VisuomotorPolicy
from tformer.tokenizers import WordTokenizer
from tformer.training import Loss, Validation

from ..policies.tformer.checkpoint import PolicyCard, Scale, images_to_network, save_policy
from .running import EXPORT
from .sampling import Prefetcher, generator_of, shuffled
from .tformer_samples import Samples

if TYPE_CHECKING:
    from .tformer import TformerOptions

GRIPPER_LEVELS = 3
"""Most values of a gripper's entry that count as the only ones it can have."""
LEAST_SPAN = 0.1
"""Least range of an action's entry: one that hardly ever moves would be blown up to noise."""


def make_card(
    samples: Samples,
    options: TformerOptions,
    network: PolicyConfig,
    start: PolicyCard | None,
    training: Mapping[str, Any],
) -> PolicyCard:
    """Return the card of the policy to train: vocabulary and normalisation from the samples.

    start: of the checkpoint that it starts from, whose normalisation is kept and whose words come first.
    """
    tokenizer = WordTokenizer.train([text.lower() for text in samples.instructions], 10_000, min_frequency=1)
    words = tokenizer.to_json()["words"]
    if start is not None:
        words = [*start.words, *(word for word in words if word not in start.words)]
    real = samples.actions[samples.mask > 0]
    levels = np.unique(real[:, -1])
    low, high = np.quantile(real, 0.005, axis=0), np.quantile(real, 0.995, axis=0)
    return PolicyCard(
        network=replace(network, vocabulary=WordTokenizer(words).vocab_size),
        words=tuple(words),
        cameras=options.cameras,
        state_keys=options.state_keys,
        image_size=(options.image_size, options.image_size),
        state=_standard(samples.state) if start is None else start.state,
        action=_scale((high + low) / 2, np.maximum(high - low, LEAST_SPAN) / 2) if start is None else start.action,
        aim=_standard(samples.aims) if start is None else start.aim,
        gripper=tuple(levels.tolist()) if len(levels) <= GRIPPER_LEVELS else (),
        training=training,
    )


def take_over(network: VisuomotorPolicy, start: VisuomotorPolicy) -> tuple[str, ...]:
    """Copy the weights of ``start`` that fit, the known words' among the vocabulary; return the names of the others."""
    theirs, others = start.state_dict(), []
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            found = theirs.get(name)
            if found is not None and found.shape[1:] == parameter.shape[1:] and len(found) <= len(parameter):
                parameter[: len(found)].copy_(found)
            else:
                others.append(name)
    return tuple(others)


def _standard(values: np.ndarray) -> Scale:
    return _scale(values.mean(axis=0), np.maximum(values.std(axis=0), 1e-3))


def _scale(offset: np.ndarray, scale: np.ndarray) -> Scale:
    return Scale(tuple(float(x) for x in offset), tuple(float(x) for x in scale))


@dataclass
class PolicyBatch:
    """As ``VisuomotorPolicy.losses`` takes them; aims: (B, 6), normalised."""

    images: Tensor
    state: Tensor
    words: Tensor
    actions: Tensor
    mask: Tensor
    aims: Tensor

    def to(self, device: torch.device) -> PolicyBatch:
        """Return the batch on ``device``."""
        return PolicyBatch(*(part.to(device) for part in vars(self).values()))


class TformerTask:
    """See ``tformer.training.Task``; an index is a position in the endless stream of shuffled passes."""

    def __init__(
        self, options: TformerOptions, samples: Samples, card: PolicyCard, start: VisuomotorPolicy | None = None
    ) -> None:
        self.options, self.card = options, card
        torch.manual_seed(options.seed)
        network = VisuomotorPolicy(card.network)
        self.fresh = () if start is None else take_over(network, start)
        self.model: nn.Module = _Trainee(network, options.draws)
        every = options.hold_out
        is_held = samples.episode % every == every - 1 if every else np.zeros(len(samples), bool)
        self._training, self._held = np.flatnonzero(~is_held), np.flatnonzero(is_held)
        self._samples = samples
        self._state = torch.from_numpy(card.state.normalise(samples.state))
        self._aims = torch.from_numpy(card.aim.normalise(samples.aims))
        self._actions = torch.from_numpy(card.action.normalise(samples.actions).clip(-1, 1))
        self._mask = torch.from_numpy(samples.mask)
        self._words = card.tokens(samples.instructions)
        self._prefetch = Prefetcher(self._shuffled_batch, options.batch_size)

    @property
    def configuration(self) -> Mapping[str, Any]:
        """What a resume must have in common with the checkpoint."""
        names = ("batch_size", "steps_per_epoch", "seed", "draws", "shift", "colour", "aim_weight", "hold_out")
        return {name: getattr(self.options, name) for name in names} | {
            "network": self.card.network.to_dict(),
            "samples": len(self._samples),
        }

    def batches(self, epoch: int) -> Sequence[Sequence[int]]:
        """See Task."""
        size, steps = self.options.batch_size, self.options.steps_per_epoch
        first = epoch * steps * size
        return [range(first + i * size, first + (i + 1) * size) for i in range(steps)]

    def collate(self, indices: Sequence[int]) -> PolicyBatch:
        """See Task; the next batch is made in the background meanwhile."""
        return self._prefetch(indices)

    def loss(self, model: nn.Module, batch: PolicyBatch) -> Loss:
        """See Task: the head's loss and the aims', for as many items as the batch has rows."""
        head, aims = model(batch)
        return Loss((head + self.options.aim_weight * _distance(aims, batch.aims)) * len(batch.state), len(batch.state))

    def validate(self, model: nn.Module, epoch: int) -> Validation:
        """See Task: on held-out episodes, the error of drawn chunks and, in centimetres, of the aims.

        The policy as it stands is exported first, so that a training can be stopped at any epoch.
        """
        assert isinstance(model, _Trainee)
        network = model.network
        save_policy(self.options.out / EXPORT, self.card, network.state_dict())
        if not len(self._held):
            return Validation({})
        rows = self._held[: self.options.evaluate_examples * 4 : 4]
        error = count = 0.0
        away: list[np.ndarray] = []
        device = next(model.parameters()).device
        for start in range(0, len(rows), 32):
            chosen = rows[start : start + 32]
            batch = self._batch(chosen, None).to(device)
            draws = [generator_of(self.options.seed, int(row)) for row in chosen]
            tokens, aims = network.observe(batch.images, batch.state, batch.words)
            drawn = network.head.sample(tokens, draws)
            error += float(((drawn - batch.actions).abs().mean(-1) * batch.mask).sum())
            count += float(batch.mask.sum())
            if self._aims.shape[1]:
                gap = (aims - batch.aims).cpu().numpy() * np.array(self.card.aim.scale)
                away.append(np.linalg.norm(gap.reshape(len(gap), -1, 3), axis=2))
        scores = {"action_l1": error / count}
        if away:
            subject, goal = np.concatenate(away).mean(axis=0) * 100
            scores |= {"subject_cm": float(subject), "goal_cm": float(goal)}
        return Validation(scores)

    def close(self) -> None:
        """Stop the background work."""
        self._prefetch.close()

    def _shuffled_batch(self, indices: Sequence[int]) -> PolicyBatch:
        count = len(self._training)
        rows = [self._training[shuffled(count, self.options.seed + i // count)[i % count]] for i in indices]
        return self._batch(np.array(rows), indices)

    def _batch(self, rows: np.ndarray, draws: Sequence[int] | None) -> PolicyBatch:
        """Return the batch of these rows; draws: what each row's augmentation is keyed by, None for none."""
        frames = self._samples.frames[rows]
        images = images_to_network(frames if draws is None else self._shifted(frames, draws))
        if draws is not None and self.options.colour:
            images = self._coloured(images, draws)
        at = torch.from_numpy(rows)
        words = self._words[torch.from_numpy(self._samples.instruction[rows])]
        return PolicyBatch(images, self._state[at], words, self._actions[at], self._mask[at], self._aims[at])

    def _shifted(self, frames: np.ndarray, draws: Sequence[int]) -> np.ndarray:
        """Move each frame by up to ``shift`` pixels, repeating its edge (DrQ, arXiv:2004.13649)."""
        most, size = self.options.shift, frames.shape[2]
        padded = np.pad(frames, ((0, 0), (0, 0), (most, most), (most, most), (0, 0)), mode="edge")
        moved = np.empty_like(frames)
        for row, draw in enumerate(draws):
            at = torch.randint(0, 2 * most + 1, (frames.shape[1], 2), generator=generator_of(self.options.seed, draw))
            for camera, (y, x) in enumerate(at.tolist()):
                moved[row, camera] = padded[row, camera, y : y + size, x : x + size]
        return moved

    def _coloured(self, images: Tensor, draws: Sequence[int]) -> Tensor:
        """Change brightness, contrast and each channel's strength; images in -1 … 1."""
        strength = self.options.colour
        change = torch.stack([torch.rand(5, generator=generator_of(self.options.seed + 1, draw)) for draw in draws])
        change = (2 * change - 1)[:, :, None, None, None] * strength  # (B, 5, 1, 1, 1)
        gain = 1 + change[:, 2:].transpose(1, 2)  # (B, 1, 3, 1, 1)
        middle = images.mean(dim=(2, 3, 4), keepdim=True)  # (B, K, 1, 1, 1)
        images = (images - middle) * (1 + change[:, :1]) + middle + change[:, 1:2]
        return ((images + 1) * gain - 1).clamp(-1, 1)


def _distance(found: Tensor, wanted: Tensor) -> Tensor:
    """Mean absolute error, (); zero where there are no aims."""
    return (found - wanted).abs().mean() if wanted.shape[1] else found.sum() * 0


class _Trainee(nn.Module):
    """The network as the trainer calls it."""

    def __init__(self, network: VisuomotorPolicy, draws: int) -> None:
        super().__init__()
        self.network, self.draws = network, draws

    def forward(self, batch: PolicyBatch) -> tuple[Tensor, Tensor]:
        """Return the head's loss and the aims."""
        return self.network.losses(batch.images, batch.state, batch.words, batch.actions, batch.mask, self.draws)
