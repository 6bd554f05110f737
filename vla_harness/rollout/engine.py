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
- **A copy of the policy is lost**, with its machine: another takes its place, and its episodes start again. So do
  episodes whose memory a policy's server lost (EpisodesLost); both count as attempts.

Batches: whatever waits when a copy of the policy is free goes into one call, up to ``spec.max_batch``, oldest first.
There is no waiting window: while the policy computes, questions pile up by themselves, so under load batches grow to
what the load needs, and without load nobody waits for company. A worker has one question open at most and a copy one
batch, so that nothing piles up beyond one observation for each worker, however slow the policy is.

Where workers and copies run is the crew's matter: processes on this machine, or actors on a cluster.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import cast

from ..errors import ConventionError, RunFailed
from ..types import EpisodeResult, Policy
from .crew import SHORTAGE_S, Crew, Events, Replica, WorkerLink
from .jobs import (
    Abandon,
    Act,
    Alive,
    Answered,
    Ask,
    Built,
    Ended,
    EpisodeJob,
    Gone,
    Loaded,
    Ready,
    ReplicaMessage,
    RolloutSettings,
    Unbuildable,
    Unjoinable,
    WorkerMessage,
    WorkerSetup,
)
from .local import LocalCrew
from .questions import Questions
from .schedule import Schedule, Task

BROKEN_POLICY = 3
"""Episodes in a row on which a policy fails before it, and not they, is taken for broken."""

TICK_S = 0.5
"""Seconds between two counts of the workers' silence."""


def run_episodes(
    jobs: Iterable[EpisodeJob], policy: Policy | Crew, settings: RolloutSettings, log: Callable[[str], None]
) -> Generator[EpisodeResult, None, None]:
    """Play ``jobs`` and yield each result as its episode ends, one for each job, in the order they end.

    policy: plays here, with worker processes on this machine; a crew plays where it is.
    log: takes the tracebacks behind errors, for a file. Closing the iterator ends all workers; so does an exception.
    Raises ConventionError if the policy and an environment do not go together, RunFailed if the policy is broken, or
    if nobody is there to play for half an hour.
    """
    crew = policy if isinstance(policy, Crew) else LocalCrew(policy)
    with closing(_Engine(jobs, crew, settings, log)) as engine:
        yield from engine.results()


class _Engine:
    def __init__(
        self, jobs: Iterable[EpisodeJob], crew: Crew, settings: RolloutSettings, log: Callable[[str], None]
    ) -> None:
        self._crew, self._settings, self._log = crew, settings, log
        self._setup = WorkerSetup(crew.spec, settings, os.getpid())
        self._schedule = Schedule(jobs, settings.round_states)
        self._events: Events = queue.SimpleQueue()
        self._workers: list[WorkerLink] = []
        self._replicas: list[Replica] = []
        self._questions = Questions(crew.spec.max_batch)
        self._ended: list[EpisodeResult] = []
        self._plays: Counter[str] = Counter()
        self._losses: Counter[str | Task] = Counter()
        self._stillborn = self._replica_losses = 0
        self._short_s = 0.0
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
        """End all workers and copies of the policy."""
        self._closed.set()
        for worker in self._workers:
            worker.kill(grace_s=0.0)
        self._workers.clear()
        for replica in self._replicas:
            replica.close()
        self._replicas.clear()

    # Workers and their jobs.

    def _employ(self) -> None:
        """Give every idle worker a job, and start workers while there are jobs for them, and copies of the policy."""
        for worker in self._workers:
            self._give(worker)
        while self._schedule and len(self._workers) < self._settings.workers:
            worker = self._crew.hire(self._setup, self._events)
            self._workers.append(worker)
            self._give(worker)
        while len(self._replicas) < self._crew.copies:
            self._replicas.append(self._crew.enlist(self._events))

    def _give(self, worker: WorkerLink) -> None:
        if not worker.ready or worker.job is not None:
            return
        others = [other.task for other in self._workers if other is not worker and other.task is not None]
        job = self._schedule.take(worker.task, others)
        if job is not None:
            self._plays[str(job.key)] += 1
            worker.give(job)

    def _release(self, worker: WorkerLink) -> EpisodeJob:
        """Take the job from ``worker`` and return it; the policy forgets the episode."""
        job = worker.job
        assert job is not None
        worker.job = None
        self._questions.drop(worker, str(job.key))
        return job

    def _end(self, result: EpisodeResult) -> None:
        self._ended.append(replace(result, attempts=self._plays[str(result.key)]))

    def _hear(self) -> None:
        """Take all that was said; wait for something unless there are questions to answer already."""
        try:
            event = self._events.get(block=not self._questions.answerable(self._replicas), timeout=TICK_S)
            while True:
                sender, message = event
                if sender in self._workers:  # else it was replaced, and this is an old message
                    self._handle(sender, cast(WorkerMessage, message))
                elif sender in self._replicas:
                    self._handle_replica(sender, cast(ReplicaMessage, message))
                event = self._events.get_nowait()
        except queue.Empty:
            pass

    def _handle(self, worker: WorkerLink, message: WorkerMessage) -> None:
        match message:
            case Ready():
                worker.ready = True
                self._stillborn = 0
            case Alive():
                pass
            case Built():
                worker.building = False
                if worker.task is not None:
                    self._losses.pop(worker.task, None)
            case Ask(observation):
                worker.asking = True
                self._questions.add(worker, observation)
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
            staffed = any(w.ready for w in list(self._workers)) and any(r.ready for r in list(self._replicas))
            self._short_s = 0.0 if staffed else self._short_s + TICK_S

    def _watch(self) -> None:
        """Replace workers that have been silent for too long, and give up where there are none for too long."""
        if self._short_s > SHORTAGE_S:
            raise RunFailed(self._crew.shortage)
        for worker in list(self._workers):
            limit = self._settings.build_s if worker.building else self._settings.silence_s
            if worker.job is not None and worker.silent_s > limit:
                worker.kill(grace_s=0.0)
                self._lose(worker, f"its worker was silent for {limit:g} seconds")

    def _lose(self, worker: WorkerLink, reason: str) -> None:
        """Deal with a dead worker's episode; ``_employ`` replaces the worker."""
        self._workers.remove(worker)
        if worker.job is not None:
            building = worker.building
            self._start_again(self._release(worker), reason, building)
        elif not worker.ready:
            self._stillborn += 1
            if self._stillborn >= self._settings.max_attempts * self._settings.workers:
                raise RunFailed(f"No worker could be started: {reason}, every time.")

    def _start_again(self, job: EpisodeJob, reason: str, building: bool = False) -> None:
        """Play an episode again that was broken off; give it, or a task that cannot be built, up in the end."""
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
        """Give every free copy of the policy a batch of questions."""
        for worker in self._questions.orphans():
            self._abandon(worker, "the copy of the policy that knew it was lost")
        self._questions.assign(self._replicas)
        for replica in self._replicas:
            batch = self._questions.batch(replica) if replica.free else []
            answered = replica.ask(batch) if batch else None
            if answered is not None:
                self._answered(replica, answered)

    def _abandon(self, worker: WorkerLink, reason: str) -> None:
        job = self._release(worker)
        worker.send(Abandon())
        self._start_again(job, reason)

    def _handle_replica(self, replica: Replica, message: ReplicaMessage) -> None:
        match message:
            case Loaded():
                replica.ready = True
            case Answered():
                self._answered(replica, message)
            case Gone(reason):
                self._log(f"A copy of the policy was lost: {reason}")
                replica.close()
                self._replicas.remove(replica)
                self._questions.lose(replica)
                self._replica_losses += 1
                if self._replica_losses >= self._settings.max_attempts * self._crew.copies:
                    raise RunFailed(f"The policy was lost {self._replica_losses} times in a row: {reason}")

    def _answered(self, replica: Replica, answered: Answered) -> None:
        batch, replica.batch = replica.batch, []
        if not answered.chunks:
            self._log(f"{', '.join(question.episode for _, question in batch)}\n{answered.trace}")
            waiting = [worker for worker, question in batch if self._questions.settle(worker, question)]
            self._policy_raised(waiting, answered, alone=len(batch) == 1)
            return
        self._crew.batch_times.record(len(batch), time.perf_counter() - replica.asked_at)
        self._replica_losses = 0
        self._ended.extend(self._suspects)
        self._suspects.clear()
        for (worker, question), chunk in zip(batch, answered.chunks, strict=True):
            if not self._questions.settle(worker, question):
                continue  # its worker died meanwhile
            if chunk is None:
                self._abandon(worker, answered.sentence or "its question was lost on its way to the policy")
            else:
                self._crew.batch_times.wait(time.perf_counter() - worker.heard_at)
                worker.send(Act(chunk))

    def _policy_raised(self, waiting: list[WorkerLink], answered: Answered, alone: bool) -> None:
        for worker in waiting:
            job = self._release(worker)
            worker.send(Abandon())
            if not alone:
                self._questions.ask_alone(str(job.key))
                self._schedule.put_back(job)
                continue
            result = _error(job, f"The policy failed: {answered.sentence}")
            if answered.mendable:
                self._end(result)
            else:
                self._suspects.append(replace(result, attempts=self._plays[str(job.key)]))
        if len(self._suspects) >= BROKEN_POLICY:
            raise RunFailed(f"The policy failed on {BROKEN_POLICY} episodes in a row: {answered.sentence}")


def _error(job: EpisodeJob, sentence: str) -> EpisodeResult:
    return EpisodeResult(job.key, job.task_name, job.instruction, "error", error=sentence)
