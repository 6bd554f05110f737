"""The training loop that all commands share."""

from __future__ import annotations

import copy
import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from types import FrameType
from typing import Any, Generic, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..command import require_positive
from ..errors import TrainingFailed, UserError
from .checkpoints import find_checkpoint, list_checkpoints, read_checkpoint, save_checkpoint
from .distributed import Place, join_processes
from .log import TrainLog
from .options import TrainOptions
from .schedule import learning_rate, make_optimizer
from .task import BatchT, Task, TrainState


def train(task: Task[BatchT], options: TrainOptions) -> TrainState:
    """Train ``task.model`` and return where it ended. Under `torchrun`, all processes share each global batch.

    Raises UserError before anything is written where --out or --resume does not fit, TrainingFailed for a loss that is
    no number, KeyboardInterrupt after saving where SIGINT or SIGTERM asked it to stop.
    """
    require_positive(options, "epochs", "log_every", "keep")
    checkpoint = None
    if options.resume:
        checkpoint = read_checkpoint(find_checkpoint(options.resume, options.out), task.configuration)
    elif list_checkpoints(options.out):
        raise UserError(f"{options.out} already holds a training; add --resume latest or choose another --out.")
    with join_processes(options.device) as place:
        return Trainer(task, options, place).run(checkpoint)


class Trainer(Generic[BatchT]):
    """One training on one place; ``run`` does it."""

    def __init__(self, task: Task[BatchT], options: TrainOptions, place: Place) -> None:
        self.task, self.options, self.place = task, options, place
        self.state = TrainState()
        self.raw = task.model.to(place.device)
        self.optimizer = make_optimizer(self.raw, options)
        self.model: nn.Module = self.raw
        if options.compile:
            self.model = cast(nn.Module, torch.compile(self.raw))
        if place.world > 1:
            self.model = DistributedDataParallel(self.model)
        self.averaged = copy.deepcopy(self.raw).requires_grad_(False) if options.ema else None
        self.total_steps = options.epochs * len(task.batches(0))
        torch.manual_seed(options.seed + place.rank)  # dropout: another on each process

    def run(self, checkpoint: dict[str, Any] | None) -> TrainState:
        """Train from the checkpoint, or from the start, to the last epoch."""
        if checkpoint is not None:
            self.restore(checkpoint)
        out = self.options.out if self.place.leads else None
        if out is not None:
            try:
                out.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"--out {out} cannot be made a folder ({error.strerror}); give another.") from None
        with TrainLog(out, self.total_steps, self.state.step) as log, _stop_requests() as stop:
            while self.state.epoch < self.options.epochs:
                mean = self.train_epoch(log, stop)
                if stop.is_set():
                    self.save()
                    raise KeyboardInterrupt("the training is saved; go on with --resume latest")
                self.state.epoch, self.state.position, self.state.loss_sum = self.state.epoch + 1, 0, 0.0
                self.finish_epoch(log, mean)
        return self.state

    def train_epoch(self, log: TrainLog, stop: threading.Event) -> float:
        """Take the rest of the epoch's steps and return their mean loss; stop early where asked to."""
        self.model.train()
        batches = self.task.batches(self.state.epoch)
        loss_sum = torch.tensor(self.state.loss_sum, device=self.place.device)
        started, spent = time.perf_counter(), self.state.seconds
        for position in range(self.state.position, len(batches)):
            loss_sum += self.step(batches[position])
            self.state.step, self.state.position = self.state.step + 1, position + 1
            log.advance()
            if self.state.step % self.options.log_every == 0 or self.state.position == len(batches):
                self.state.loss_sum = float(loss_sum)
                mean = self.state.loss_sum / self.state.position
                self.check(mean)
                self.state.seconds = spent + time.perf_counter() - started
                log.numbers(self.state.step, {"train/loss": mean, "train/learning_rate": self.rate()})
                if self._agree(stop.is_set()):
                    stop.set()
                    break
        return mean

    def step(self, indices: Sequence[int]) -> Tensor:
        """Take one optimizer step on a global batch. Returns its mean loss over all processes, a scalar."""
        share = indices[self.place.rank :: self.place.world]
        # A batch smaller than the number of processes leaves some without a share: they repeat an item and count none.
        batch = self.task.collate(share or indices[:1]).to(self.place.device)
        with torch.autocast(self.place.device.type, torch.bfloat16, enabled=self.options.precision == "bf16"):
            total, items = self.task.loss(self.model, batch)
        sums = torch.stack([total.detach().float(), torch.as_tensor(items, device=total.device).float()])  # (2,)
        sums = sums if share else sums * 0
        if self.place.world > 1:
            dist.all_reduce(sums)
        # DistributedDataParallel averages gradients over processes; times the world that is their sum.
        loss = total * ((self.place.world if share else 0) / sums[1])
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.raw.parameters(), self.options.grad_clip)
        self.optimizer.step()
        if self.averaged is not None:
            self.average(self.averaged)
        return sums[0] / sums[1]

    @torch.no_grad()
    def average(self, averaged: nn.Module) -> None:
        """Move the running mean of the weights towards them; the first steps, which learn fastest, count less."""
        decay = min(self.options.ema, (1 + self.state.step) / (10 + self.state.step))
        torch._foreach_lerp_(list(averaged.parameters()), list(self.raw.parameters()), 1 - decay)
        for kept, present in zip(averaged.buffers(), self.raw.buffers(), strict=True):
            kept.copy_(present)

    def rate(self) -> float:
        """The learning rate of the coming step."""
        return learning_rate(self.state.step, self.total_steps, self.options)

    def check(self, mean: float) -> None:
        """Raise TrainingFailed unless the mean loss is a number; the last good checkpoint stays the newest."""
        if not math.isfinite(mean):
            raise TrainingFailed(
                f"the loss is {mean} within the {self.options.log_every} steps up to step {self.state.step}; "
                "no checkpoint was overwritten; try a lower --learning-rate or --grad-clip."
            )

    def finish_epoch(self, log: TrainLog, mean: float) -> None:
        """Validate, record and save on the leading process, while the others wait."""
        if self.place.leads:
            judged = self.raw if self.averaged is None else self.averaged
            judged.eval()
            with torch.no_grad():
                scores, text = self.task.validate(judged, self.state.epoch)
            point = {"step": self.state.step, "epoch": self.state.epoch, "seconds": round(self.state.seconds, 2)}
            self.state.curve.append(point | {"train_loss": mean} | dict(scores))
            log.numbers(self.state.step, {f"validation/{name}": value for name, value in scores.items()})
            told = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
            told = f"epoch {self.state.epoch}, step {self.state.step}: train loss {mean:.4f}, validation {told}"
            log.say(f"{told}\n{text}" if text else told, self.state.step)
            log.curve(self.state.curve)
        self.save()

    def save(self) -> None:
        """Write a checkpoint with all that a bit-for-bit continuation needs."""
        states: list[Any] = [_random_states()]
        if self.place.world > 1:
            states = [None] * self.place.world
            dist.all_gather_object(states, _random_states())
        if self.place.leads:
            content = {
                "configuration": dict(self.task.configuration),
                "model": self.raw.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "state": asdict(self.state),
                "random": states,
            }
            if self.averaged is not None:
                content["ema"] = self.averaged.state_dict()
            save_checkpoint(self.options.out, self.state.step, content, self.options.keep)
        if self.place.world > 1:
            dist.barrier()

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Put back what ``save`` wrote."""
        self.raw.load_state_dict(checkpoint["model"])
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        if self.averaged is not None:
            self.averaged.load_state_dict(checkpoint.get("ema", checkpoint["model"]))
        self.state = TrainState(**checkpoint["state"])
        states = checkpoint["random"][self.place.rank % len(checkpoint["random"])]
        torch.set_rng_state(states["cpu"])
        if torch.cuda.is_available() and states["cuda"] is not None:
            torch.cuda.set_rng_state(states["cuda"])

    def _agree(self, wish: bool) -> bool:
        """Whether any process wishes to stop, so that all do at the same step."""
        if self.place.world == 1:
            return wish
        wishes = torch.tensor(float(wish), device=self.place.device)
        dist.all_reduce(wishes)
        return bool(wishes)


def _random_states() -> dict[str, Tensor | None]:
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


@contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """Turn SIGINT and SIGTERM into an event, so that a training stops between two steps and not within one."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield stop
        return

    def request(number: int, frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
