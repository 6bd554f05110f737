"""The contract between the trainer and what it trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn


class Movable(Protocol):
    """Anything that goes to a device as a whole."""

    def to(self, device: torch.device) -> Self: ...


BatchT = TypeVar("BatchT", bound=Movable)


class Loss(NamedTuple):
    """A loss as sum and number of items, so that parts of a batch add up to exactly the mean over the whole batch."""

    total: Tensor
    """Scalar: the sum over all items (tokens, pixels, examples) of the batch."""
    items: int | Tensor
    """How many items that were."""


class Validation(NamedTuple):
    """What an epoch's validation found."""

    scores: Mapping[str, float]
    """Numbers for the curve and TensorBoard, such as {"loss": 1.9}."""
    text: str = ""
    """Examples to show, such as a sampled text."""


class Task(Protocol[BatchT]):
    """What is to be learned: a model, batches in a fixed order, a loss and a validation."""

    @property
    def model(self) -> nn.Module:
        """The model, on any device; ``loss`` must call the one it is given, which may be wrapped."""
        ...

    @property
    def configuration(self) -> Mapping[str, Any]:
        """Plain values that make the model and the data; a checkpoint with others is refused."""
        ...

    def batches(self, epoch: int) -> Sequence[Sequence[int]]:
        """The epoch's global batches in order, each as indices; a function of epoch and seed, of one length for all."""
        ...

    def collate(self, indices: Sequence[int]) -> BatchT:
        """Return the batch of these items; several processes each take a share of a global batch's indices."""
        ...

    def loss(self, model: nn.Module, batch: BatchT) -> Loss:
        """Return the loss of ``model``, which is in training mode, on the batch."""
        ...

    def validate(self, model: nn.Module, epoch: int) -> Validation:
        """Return scores and examples of ``model``, which is in evaluation mode; called without gradients."""
        ...


@dataclass
class TrainState:
    """Where a training stands; with the weights, the optimizer and the random states it is all that a resume needs."""

    step: int = 0
    """Optimizer steps taken."""
    epoch: int = 0
    """Epochs completed."""
    position: int = 0
    """Batches taken of the epoch that is not yet complete."""
    loss_sum: float = 0.0
    """Sum of the losses of those batches."""
    seconds: float = 0.0
    """Time spent on training steps, without validation."""
    curve: list[dict[str, float]] = field(default_factory=list)
    """One point per epoch: step, epoch, seconds, train_loss and the validation's scores."""
