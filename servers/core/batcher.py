"""One thread that asks the policy, and the queue before it: concurrent clients' questions go into one call."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from vla_harness.types import Policy

from .metrics import Metrics
from .questions import Act, Question, ask_policy


class QueueFull(Exception):
    """More questions wait than the queue's limit allows."""


class Batcher:
    """Puts questions to a policy in one thread of its own, oldest first, whatever waits together in one call.

    A batch holds at most ``max_batch`` questions and never two of one episode, because a policy's memory of it would
    not know which came first. With ``max_wait_s`` a batch that is not full waits so long for company; without, it
    goes at once, and under load company piles up by itself while the policy computes.
    """

    def __init__(
        self, policy: Policy, metrics: Metrics, max_batch: int, max_wait_s: float = 0.0, max_queue: int = 64
    ) -> None:
        self._policy, self._metrics = policy, metrics
        self._max_batch, self._max_wait_s, self._max_queue = max_batch, max_wait_s, max_queue
        self._waiting: deque[_Job] = deque()
        self._running = 0
        self._closed = False
        self._change = threading.Condition()
        metrics.queue.set_function(lambda: len(self._waiting))
        self._thread = threading.Thread(target=self._work, name="policy", daemon=True)
        self._thread.start()

    @property
    def unfinished(self) -> int:
        """Questions that wait or are being answered."""
        return len(self._waiting) + self._running

    def submit(self, questions: Sequence[Question]) -> list[Future[Any]]:
        """Queue all of ``questions`` or, with QueueFull, none. Cancelling a future frees its place in the queue."""
        with self._change:
            if len(self._waiting) + len(questions) > self._max_queue:
                raise QueueFull
            jobs = [_Job(question) for question in questions]
            self._waiting.extend(jobs)
            self._change.notify()
        for job in jobs:
            job.future.add_done_callback(partial(self._drop_cancelled, job))
        return [job.future for job in jobs]

    def call(self, function: Callable[[], Any]) -> Future[Any]:
        """Queue a call that must not run beside the policy, such as its ``forget``; the queue's limit is not for it."""
        job = _Job(function)
        with self._change:
            self._waiting.append(job)
            self._change.notify()
        return job.future

    def close(self) -> None:
        """Answer what is queued and end the thread."""
        with self._change:
            self._closed = True
            self._change.notify()
        self._thread.join()

    def _drop_cancelled(self, job: _Job, future: Future[Any]) -> None:
        with self._change:
            if future.cancelled() and job in self._waiting:
                self._waiting.remove(job)

    def _work(self) -> None:
        while batch := self._take():
            live = [job for job in batch if job.future.set_running_or_notify_cancel()]
            try:
                if live:
                    self._run(live)
            finally:
                with self._change:
                    self._running = 0

    def _take(self) -> list[_Job]:
        """Return the next batch, or [] when all is done and the batcher closed."""
        with self._change:
            while not self._waiting:
                if self._closed:
                    return []
                self._change.wait()
            batch = self._company()
            wait_s = self._max_wait_s if isinstance(batch[0].question, Act) else 0.0
            until = batch[0].since + wait_s
            while len(batch) < self._max_batch and not self._closed and (left := until - time.perf_counter()) > 0:
                self._change.wait(left)
                if not self._waiting:  # its client went away
                    break
                batch = self._company()
            if not self._waiting:
                return self._take()
            for job in batch:
                self._waiting.remove(job)
            self._running = len(batch)
            return batch

    def _company(self) -> list[_Job]:
        """Return the jobs that go into the next call: the oldest, and whatever fits beside it."""
        first = self._waiting[0]
        if not isinstance(first.question, Act):
            return [first]
        batch: list[_Job] = []
        episodes: set[str] = set()
        for job in self._waiting:
            if len(batch) == self._max_batch or callable(job.question):  # what must be forgotten stays in order
                break
            if isinstance(job.question, Act) and (episode := job.question.observation.episode) not in episodes:
                episodes.add(episode)
                batch.append(job)
        return batch

    def _run(self, jobs: Sequence[_Job]) -> None:
        questions = [job.question for job in jobs]
        first = questions[0]
        if callable(first):
            _settle(jobs[0], first)
            return
        started = time.perf_counter()
        for job in jobs:
            self._metrics.wait_seconds.observe(started - job.since)
        try:
            answers = ask_policy(self._policy, questions)  # type: ignore[arg-type] # calls never share a batch
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].future.set_exception(error)
            else:  # one client's question must not cost its neighbours their answers
                for job in jobs:
                    self._run([job])
            return
        self._metrics.inference_seconds.observe(time.perf_counter() - started)
        self._metrics.batch_size.observe(len(jobs))
        for job, answer in zip(jobs, answers, strict=True):
            job.future.set_result(answer)


class _Job:
    def __init__(self, question: Question | Callable[[], Any]) -> None:
        self.question = question
        self.future: Future[Any] = Future()
        self.since = time.perf_counter()


def _settle(job: _Job, function: Callable[[], Any]) -> None:
    try:
        job.future.set_result(function())
    except Exception as error:
        job.future.set_exception(error)
