"""The engine: it hands episodes to workers, answers their questions in batches, and replaces workers that fail.

Who may fail, and what follows:

- **A worker dies, or is silent for too long**: it is killed and replaced, and its episode starts again. After
  ``max_attempts`` the episode is an error. Deaths while an environment is built count against its task.
- **An environment cannot be built**: all episodes of its task that are left are errors, at once.
- **An environment raises, or an action is not finite**: that episode is an error.
- **The policy raises on a batch**: nobody knows what it has done to the memories of the batch's episodes, so all of
  them are forgotten and start again, each asking alone from then on. **It raises on one that asks alone**: that
  episode is an error. It raises on three of those with no answer in between: the policy is what is broken (a lost
  server, a full GPU), and the run ends with RunFailed; the three are not recorded, so that a resume plays them. A
  UserError is the policy's own word that it is well and cannot play this episode, so it never counts as broken.

Batches: whatever waits when the policy is free goes into one call, up to ``spec.max_batch``, oldest first. There is no
waiting window: while the policy computes, questions pile up by themselves, so under load batches grow to what the
load needs, and without load nobody waits for company.
"""

from __future__ import annotations

import os
import queue
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace

import numpy as np

from ..errors import ConventionError, RunFailed, UserError
from ..types import EpisodeResult, Observation, Policy
from .jobs import (
    Abandon,
    Act,
    Alive,
    Ask,
    Built,
    Ended,
    EpisodeJob,
    Gone,
    RolloutSettings,
    Unbuildable,
    Unjoinable,
    WorkerMessage,
    WorkerSetup,
    sentence_of,
)
from .process import WorkerProcess
from .schedule import Schedule, Task

BROKEN_POLICY = 3
"""Episodes in a row on which a policy fails before it, and not they, is taken for broken."""

TICK_S = 0.5
"""Seconds between two counts of the workers' silence."""


def run_episodes(
    jobs: Iterable[EpisodeJob], policy: Policy, settings: RolloutSettings, log: Callable[[str], None]
) -> Generator[EpisodeResult, None, None]:
    """Play ``jobs`` and yield each result as its episode ends, one for each job, in the order they end.

    log: takes the tracebacks behind errors, for a file. Closing the iterator ends all workers; so does an exception.
    Raises ConventionError if the policy and an environment do not go together, RunFailed if the policy is broken.
    """
    with closing(_Engine(jobs, policy, settings, log)) as engine:
        yield from engine.results()


class _Engine:
    def __init__(
        self, jobs: Iterable[EpisodeJob], policy: Policy, settings: RolloutSettings, log: Callable[[str], None]
    ) -> None:
        self._policy, self._settings, self._log = policy, settings, log
        self._setup = WorkerSetup(policy.spec, settings, os.getpid())
        self._schedule = Schedule(jobs)
        self._events: queue.SimpleQueue[tuple[WorkerProcess, WorkerMessage]] = queue.SimpleQueue()
        self._workers: list[WorkerProcess] = []
        self._questions: dict[WorkerProcess, Observation] = {}  # in the order of asking
        self._ended: list[EpisodeResult] = []
        self._plays: Counter[str] = Counter()
        self._losses: Counter[str | Task] = Counter()
        self._alone: set[str] = set()
        self._suspects: list[EpisodeResult] = []
        self._closed = threading.Event()
        threading.Thread(target=self._count_silence, daemon=True).start()

    def results(self) -> Iterator[EpisodeResult]:
        """Yield results until no episode is left."""
        while True:
            self._employ()
            yield from self._ended
            self._ended.clear()
            if not self._schedule and not any(worker.job for worker in self._workers):
                yield from self._suspects
                return
            self._hear()
            self._watch()
            self._answer()

    def close(self) -> None:
        """End all workers."""
        self._closed.set()
        for worker in self._workers:
            worker.kill(grace_s=0.0)
        self._workers.clear()

    # Workers and their jobs.

    def _employ(self) -> None:
        """Give every idle worker a job, and start workers while there are jobs for them."""
        for worker in self._workers:
            if worker.job is None:
                self._give(worker)
        while self._schedule and len(self._workers) < self._settings.workers:
            worker = WorkerProcess(self._setup, self._events)
            self._workers.append(worker)
            self._give(worker)

    def _give(self, worker: WorkerProcess) -> None:
        others = [other.task for other in self._workers if other is not worker and other.task is not None]
        job = self._schedule.take(worker.task, others)
        if job is not None:
            self._plays[str(job.key)] += 1
            worker.give(job)

    def _release(self, worker: WorkerProcess) -> EpisodeJob:
        """Take the job from ``worker`` and return it; the policy forgets the episode."""
        job = worker.job
        assert job is not None
        worker.job = None
        self._questions.pop(worker, None)
        self._policy.forget(str(job.key))
        return job

    def _end(self, result: EpisodeResult) -> None:
        self._ended.append(replace(result, attempts=self._plays[str(result.key)]))

    def _hear(self) -> None:
        """Take all that the workers said; wait for something unless there are questions to answer already."""
        try:
            event = self._events.get(block=not self._questions, timeout=TICK_S)
            while True:
                worker, message = event
                if worker in self._workers:  # else it was replaced, and this is an old message
                    self._handle(worker, message)
                event = self._events.get_nowait()
        except queue.Empty:
            pass

    def _handle(self, worker: WorkerProcess, message: WorkerMessage) -> None:
        match message:
            case Alive():
                pass
            case Built():
                worker.building = False
                if worker.task is not None:
                    self._losses.pop(worker.task, None)
            case Ask(observation):
                worker.asking = True
                self._questions[worker] = observation
            case Ended(result, trace):
                self._release(worker)
                self._end(result)
                if trace:
                    self._log(f"{result.key}\n{trace}")
            case Unbuildable(sentence, trace):
                job = self._release(worker)
                worker.task = None
                self._log(f"{job.key}\n{trace}")
                self._condemn(job, sentence)
            case Unjoinable(sentence):
                raise ConventionError(sentence)
            case Gone():
                self._lose(worker, f"its worker {worker.kill()}")

    def _count_silence(self) -> None:
        """Count how long each worker has been silent though it has something to do; runs in a thread of its own.

        Counted, and not read from a clock: while this process itself is stopped, or the machine sleeps, or the policy
        computes for minutes, nobody is taken for hung who is not.
        """
        while not self._closed.wait(TICK_S):
            for worker in list(self._workers):
                if worker.job is not None and not worker.asking:
                    worker.silent_s += TICK_S

    def _watch(self) -> None:
        """Replace workers that have been silent for too long."""
        for worker in list(self._workers):
            limit = self._settings.build_s if worker.building else self._settings.silence_s
            if worker.job is not None and worker.silent_s > limit:
                worker.kill(grace_s=0.0)
                self._lose(worker, f"its worker was silent for {limit:g} seconds")

    def _lose(self, worker: WorkerProcess, reason: str) -> None:
        """Deal with a dead worker's episode; ``_employ`` replaces the worker."""
        self._workers.remove(worker)
        if worker.job is None:
            return
        building = worker.building
        job = self._release(worker)
        counted = job.task if building else str(job.key)
        self._losses[counted] += 1
        self._log(f"{job.key}\n{reason} (loss {self._losses[counted]})")
        if self._losses[counted] < self._settings.max_attempts:
            self._schedule.put_back(job)
        elif building:
            self._condemn(job, f"The environment of task {job.key.task_id} cannot be built: {reason}, every time.")
        else:
            self._end(_error(job, f"The episode was given up after {self._losses[counted]} attempts: {reason}."))

    def _condemn(self, job: EpisodeJob, sentence: str) -> None:
        """End all that is left of a task whose environment cannot be built."""
        for doomed in (job, *self._schedule.drop(job.task)):
            self._end(_error(doomed, sentence))

    # Questions and answers.

    def _answer(self) -> None:
        """Answer one batch of questions."""
        batch = self._next_batch()
        if not batch:
            return
        observations = [self._questions[worker] for worker in batch]
        try:
            actions = self._act(observations)
        except Exception as error:
            self._log(f"{', '.join(o.episode for o in observations)}\n{traceback.format_exc()}")
            self._policy_raised(batch, error)
            return
        self._ended.extend(self._suspects)
        self._suspects.clear()
        for worker, chunk in zip(batch, actions, strict=True):
            del self._questions[worker]
            worker.send(Act(chunk))

    def _next_batch(self) -> list[WorkerProcess]:
        batch: list[WorkerProcess] = []
        for worker, observation in self._questions.items():
            if observation.episode in self._alone:
                if not batch:
                    return [worker]
            elif len(batch) < self._policy.spec.max_batch:
                batch.append(worker)
        return batch

    def _act(self, observations: Sequence[Observation]) -> np.ndarray:
        spec = self._policy.spec
        actions = np.asarray(self._policy.act(observations), np.float32)
        wanted = (len(observations), spec.horizon, spec.action.dim)
        if actions.shape != wanted:
            raise ValueError(f"the policy {spec.name!r} returned actions of shape {actions.shape}, not {wanted}")
        return actions

    def _policy_raised(self, batch: Sequence[WorkerProcess], error: Exception) -> None:
        for worker in batch:
            job = self._release(worker)
            worker.send(Abandon())
            if len(batch) > 1:
                self._alone.add(str(job.key))
                self._schedule.put_back(job)
                continue
            result = _error(job, f"The policy failed: {sentence_of(error)}")
            if isinstance(error, UserError):
                self._end(result)
            else:
                self._suspects.append(replace(result, attempts=self._plays[str(job.key)]))
        if len(self._suspects) >= BROKEN_POLICY:
            raise RunFailed(f"The policy failed on {BROKEN_POLICY} episodes in a row: {sentence_of(error)}")


def _error(job: EpisodeJob, sentence: str) -> EpisodeResult:
    return EpisodeResult(job.key, job.task_name, job.instruction, "error", error=sentence)
