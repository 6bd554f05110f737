"""Who plays for the engine: workers with simulators, and copies of the policy. Where they run is a crew's matter."""

from __future__ import annotations

import queue
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from ..errors import EpisodesLost, UserError
from ..types import Observation, Policy, PolicySpec
from .jobs import (
    Answered,
    EngineMessage,
    EpisodeJob,
    Gone,
    Question,
    ReplicaMessage,
    WorkerMessage,
    WorkerSetup,
    sentence_of,
)
from .schedule import Task

Events: TypeAlias = "queue.SimpleQueue[tuple[WorkerLink, WorkerMessage] | tuple[Replica, ReplicaMessage]]"

SHORTAGE_S = 1800.0
"""Seconds without any worker, or without any copy of the policy, after which a run ends. A cluster that has to start
machines, or a large checkpoint, takes minutes."""


class WorkerLink(ABC):
    """A worker as the engine sees it, and the job it was given.

    A thread of its own reads what the worker says into ``events`` as (worker, message). A connection that was read by
    the engine itself would block it for good on a message that a stopped worker has half sent; and with the thread,
    frames travel while the policy computes.

    ready: it can take a job. job: what it plays; None while it is idle. building: it has not said yet that the job's
    environment stands. asking: it waits for actions. heard_at: when it last said something, by ``time.perf_counter``.
    silent_s: seconds since then, counted up by the engine. task: whose environment it keeps, or is building.
    """

    def __init__(self, events: Events) -> None:
        """Call ``listen`` when the worker is started."""
        self.ready = False
        self.job: EpisodeJob | None = None
        self.building = self.asking = False
        self.silent_s = self.heard_at = 0.0
        self.task: Task | None = None
        self._events = events

    def give(self, job: EpisodeJob) -> None:
        """Have the worker play ``job``."""
        self.job, self.task, self.building = job, job.task, True
        self.send(job)

    def send(self, message: EngineMessage) -> None:
        """Send a message; one to a dead worker is dropped, because its ``Gone`` is on the way."""
        self.asking, self.silent_s = False, 0.0
        self._send(message)

    def listen(self) -> None:
        """Start the thread that reads what the worker says."""
        threading.Thread(target=self._listen, daemon=True).start()

    @abstractmethod
    def kill(self, grace_s: float = 1.0) -> str:
        """End the worker and return how it ended, as "was killed by SIGKILL".

        grace_s: seconds to wait for one that is dying by itself and has a cause of its own to tell.
        """

    @abstractmethod
    def _send(self, message: EngineMessage) -> None: ...

    @abstractmethod
    def _receive(self) -> Iterable[WorkerMessage]:
        """Wait for the worker's next messages; raise anything when it is dead."""

    def _listen(self) -> None:
        while True:
            try:
                messages = self._receive()
            except Exception:  # the end of the connection, also in the middle of a message
                self._events.put((self, Gone()))
                return
            self.silent_s, self.heard_at = 0.0, time.perf_counter()
            for message in messages:
                self._events.put((self, message))


class Replica(ABC):
    """A copy of the policy. It computes one batch at a time.

    ready: it can be asked. batch: what it computes. asked_at: when that began, by ``time.perf_counter``.
    """

    def __init__(self) -> None:
        self.ready = False
        self.batch: list[tuple[WorkerLink, Question]] = []
        self.asked_at = 0.0

    @property
    def free(self) -> bool:
        """Whether it can be given a batch."""
        return self.ready and not self.batch

    def ask(self, batch: list[tuple[WorkerLink, Question]]) -> Answered | None:
        """Begin a batch. Returns the answer if it is there already; else it comes as an event."""
        self.batch, self.asked_at = batch, time.perf_counter()
        return self._ask([question for _, question in batch])

    @abstractmethod
    def _ask(self, questions: Sequence[Question]) -> Answered | None: ...

    @abstractmethod
    def forget(self, episode: str) -> None:
        """Have the policy drop the memory of ``episode``."""

    @abstractmethod
    def close(self) -> None:
        """Free what it holds."""


class Crew(ABC):
    """A policy, and the place where copies of it and simulators run.

    spec: the policy's. copies: how many copies of the policy there are. cores: the processor cores that
    are left for simulators. shortage: one sentence, for when there is no place for a worker or the policy for long.
    batch_times: how long its answers took.
    """

    spec: PolicySpec
    copies: int
    cores: int
    shortage: str

    def __init__(self) -> None:
        self.batch_times = BatchTimes()

    @property
    @abstractmethod
    def provenance(self) -> Mapping[str, Any]:
        """The policy's, with what the place adds; see ``Policy.provenance``."""

    @abstractmethod
    def hire(self, setup: WorkerSetup, events: Events) -> WorkerLink:
        """Start a worker."""

    @abstractmethod
    def enlist(self, events: Events) -> Replica:
        """Start a copy of the policy, or return the one that is there already."""


class BatchTimes:
    """How long batches took, by their size, and how long questions were with the engine until their answer left."""

    def __init__(self) -> None:
        self._by_size: dict[int, list[float]] = {}
        self._waits = [0, 0.0]

    def record(self, size: int, seconds: float) -> None:
        """Count one batch."""
        _count(self._by_size.setdefault(size, [0, 0.0]), seconds)

    def wait(self, seconds: float) -> None:
        """Count one question."""
        _count(self._waits, seconds)

    def as_data(self) -> dict[str, Any]:
        """Return {"sizes": {size: [batches, seconds together]}, "waits": [questions, seconds together]} for JSON."""
        sizes = {str(size): list(entry) for size, entry in sorted(self._by_size.items())}
        return {"sizes": sizes, "waits": list(self._waits)} if sizes else {}


def _count(entry: list[float], seconds: float) -> None:
    entry[0] += 1
    entry[1] += seconds


def ask_policy(policy: Policy, observations: Sequence[Observation]) -> Answered:
    """Return the policy's actions, checked, or what it raised."""
    spec = policy.spec
    try:
        actions = np.asarray(policy.act(observations), np.float32)
        wanted = (len(observations), spec.horizon, spec.action.dim)
        if actions.shape != wanted:
            raise ValueError(f"the policy {spec.name!r} returned actions of shape {actions.shape}, not {wanted}")
    except EpisodesLost as lost:
        return Answered(list(lost.chunks), str(lost))
    except Exception as error:
        return Answered((), sentence_of(error), traceback.format_exc(), isinstance(error, UserError))
    return Answered(list(actions))
