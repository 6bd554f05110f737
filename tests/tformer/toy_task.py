"""A task that trains in milliseconds; run as a program under torchrun it trains into the folder it is given."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from tformer.training import Loss, TrainOptions, Validation, train


@dataclass(frozen=True)
class Points:
    inputs: Tensor
    targets: Tensor

    def to(self, device: torch.device) -> Points:
        return Points(self.inputs.to(device), self.targets.to(device))


class ToyTask:
    """Fits a small network to a fixed function of 3 numbers.

    stop: "signal" asks politely to stop at step ``stop_at``, "validation" does so in the validation of that epoch,
    "crash" raises at the step. nan_at: the step with a bad target.
    """

    def __init__(
        self,
        *,
        width: int = 8,
        items: int = 24,
        batch_size: int = 4,
        dropout: float = 0.0,
        seed: int = 5,
        stop: str = "",
        stop_at: int = 0,
        nan_at: int = 0,
    ) -> None:
        torch.manual_seed(seed)
        self.model: nn.Module = nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, 1))
        self.configuration = {"width": width}
        self.inputs = torch.randn(items, 3, generator=torch.Generator().manual_seed(1))
        self.targets = self.inputs.sum(dim=1, keepdim=True)
        self.batch_size, self.stop, self.stop_at, self.nan_at = batch_size, stop, stop_at, nan_at
        self.calls = 0

    def batches(self, epoch: int) -> Sequence[Sequence[int]]:
        order = torch.randperm(len(self.inputs), generator=torch.Generator().manual_seed(epoch)).tolist()
        return [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]

    def collate(self, indices: Sequence[int]) -> Points:
        self.calls += 1
        if self.calls == self.stop_at and self.stop == "crash":
            raise KeyboardInterrupt
        if self.calls == self.stop_at and self.stop == "signal":
            os.kill(os.getpid(), signal.SIGTERM)
        targets = self.targets[list(indices)]
        return Points(self.inputs[list(indices)], targets * float("nan") if self.calls == self.nan_at else targets)

    def loss(self, model: nn.Module, batch: Points) -> Loss:
        return Loss(functional.mse_loss(model(batch.inputs), batch.targets, reduction="sum"), len(batch.inputs))

    def validate(self, model: nn.Module, epoch: int) -> Validation:
        torch.rand(1)  # as a validation that samples does
        if self.stop == "validation" and epoch == self.stop_at:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)  # the signal ends it
        return Validation({"loss": float(functional.mse_loss(model(self.inputs), self.targets))})


if __name__ == "__main__":
    options = TrainOptions(out=Path(sys.argv[1]), epochs=3, warmup_steps=2, log_every=1, device="cpu")
    train(ToyTask(items=13, batch_size=4), options)
