"""The training loop that all commands share."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any, Generic, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..command import check_options
from ..errors import TrainingFailed, UserError, disk_is_full
from .checkpoints import find_checkpoint, list_checkpoints, read_checkpoint, save_checkpoint
from .distributed import Place, join_processes
from .interruption import StopRequest, stop_requests
from .log import TrainLog
from .options import TrainOptions
from .schedule import learning_rate, make_optimizer
from .task import BatchT, Task, TrainState


def train(task: Task[BatchT], options: TrainOptions) -> TrainState:
    """Train ``task.model`` and return where it ended. Under `torchrun`, all processes share each global batch.

    Raises UserError before anything is written where --out or --resume does not fit, TrainingFailed for a loss that is
    no number or a full disk, KeyboardInterrupt after saving where SIGINT or SIGTERM asked it to stop.
    """
    check_options(options)
    checkpoint = None
    if options.resume:
        checkpoint = read_checkpoint(find_checkpoint(options.resume, options.out), task.configuration)
    elif list_checkpoints(options.out):
        raise UserError(f"{options.out} already holds a training; add --resume latest or choose another --out.")
    with join_processes(options.device) as place:
        try:
            return Trainer(task, options, place).run(checkpoint)
        except Exception as error:
            if not disk_is_full(error):
                raise
            raise TrainingFailed(
                f"no space is left on the disk of {options.out}; free some and go on with --resume latest."
            ) from None


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
        self._requests = torch.zeros((), device=place.device)  # how many processes are asked to stop
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
        with TrainLog(out, self.total_steps, self.state.step) as log, stop_requests() as stop:
            while self.state.epoch < self.options.epochs:
                if not (self.train_epoch(log, stop) and self.finish_epoch(log, stop)):
                    self.save()
                    raise KeyboardInterrupt("the training is saved; go on with --resume latest")
        return self.state

    def train_epoch(self, log: TrainLog, stop: StopRequest) -> bool:
        """Take the rest of the epoch's steps. Returns False where it stopped early, as asked to."""
        self.model.train()
        batches = self.task.batches(self.state.epoch)
        loss_sum = torch.tensor(self.state.loss_sum, device=self.place.device)
        started, spent = time.perf_counter(), self.state.seconds
        stops = self._stopping(stop, wait=True)
        while self.state.position < len(batches) and not stops:
            loss_sum += self.step(batches[self.state.position])
            self.state.step, self.state.position = self.state.step + 1, self.state.position + 1
            log.advance()
            is_last = self.state.position == len(batches)
            stops = self._stopping(stop, wait=is_last)
            if self.state.step % self.options.log_every == 0 or is_last or stops:
                self.state.loss_sum = float(loss_sum)
                mean = self.mean_loss()
                self.check(mean)
                self.state.seconds = spent + time.perf_counter() - started
                log.numbers(self.state.step, {"train/loss": mean, "train/learning_rate": self.rate()})
        return not stops

    def mean_loss(self) -> float:
        """The mean loss of the steps taken of the present epoch."""
        return self.state.loss_sum / self.state.position

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

    def finish_epoch(self, log: TrainLog, stop: StopRequest) -> bool:
        """Validate, record and save on the leading process, while the others wait.

        Returns False where the validation was interrupted, which leaves the epoch unfinished: a resume validates anew.
        """
        scores: Mapping[str, float] = {}
        text, mean = "", self.mean_loss()
        if self.place.leads:
            judged = self.raw if self.averaged is None else self.averaged
            judged.eval()
            before = _random_states()
            try:
                # With several processes the others wait for this one, so that a request is met after the next step.
                with torch.no_grad(), stop.raised() if self.place.world == 1 else nullcontext():
                    scores, text = self.task.validate(judged, self.state.epoch + 1)
            except KeyboardInterrupt:
                _set_random_states(before)
                return False
        self.state.epoch, self.state.position, self.state.loss_sum = self.state.epoch + 1, 0, 0.0
        if self.place.leads:
            point = {"step": self.state.step, "epoch": self.state.epoch, "seconds": round(self.state.seconds, 2)}
            self.state.curve.append(point | {"train_loss": mean} | dict(scores))
            log.numbers(self.state.step, {f"validation/{name}": value for name, value in scores.items()})
            told = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
            told = f"epoch {self.state.epoch}, step {self.state.step}: train loss {mean:.4f}, validation {told}"
            log.say(f"{told}\n{text}" if text else told, self.state.step)
            log.curve(self.state.curve)
        self.save()
        return True

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
        _set_random_states(checkpoint["random"][self.place.rank % len(checkpoint["random"])])

    def _stopping(self, stop: StopRequest, wait: bool) -> bool:
        """Return True where any process is asked to stop, at the same step on all.

        Unless told to wait, several processes read the answer of the step before, so that a GPU need not idle for it.
        """
        if self.place.world == 1:
            return stop.requested
        earlier, self._requests = self._requests, torch.tensor(float(stop.requested), device=self.place.device)
        dist.all_reduce(self._requests)
        return bool(self._requests if wait else earlier)


def _random_states() -> dict[str, Tensor | None]:
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def _set_random_states(states: Mapping[str, Tensor | None]) -> None:
    if states["cpu"] is not None:
        torch.set_rng_state(states["cpu"])
    if torch.cuda.is_available() and states["cuda"] is not None:
        torch.cuda.set_rng_state(states["cuda"])
