"""One thread that asks the policy, and the queue before it: concurrent clients' questions go into one call."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any

from vla_harness.errors import UserError
from vla_harness.types import Policy

from .metrics import Metrics
from .questions import Act, Question, ask_policy


class QueueFull(Exception):
    """More questions wait than the queue's limit allows."""


class Stopped(Exception):
    """The batcher was stopped before the question was answered."""


class PolicyFailed(Exception):
    """The policy raised something else than a UserError, which is the ``__cause__``.

    Wrapped, because asyncio gives StopIteration, CancelledError, SystemExit and KeyboardInterrupt meanings of its own.
    crashed: it was no Exception, such as the panic of a library in Rust; the policy's state is unknown since then.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(_describe(error))
        self.__cause__ = error
        self.crashed = not isinstance(error, Exception)


class Order:
    """One request's questions, whose answers go out together: ``deliver`` gets them, or why there are none.

    It is called in the policy's thread, or in the one that stops the batcher, once or when both do at the same moment
    twice; it must not raise.
    """

    def __init__(self, questions: int, deliver: Callable[[list[Any] | Exception], None]) -> None:
        self._answers: list[Any] = [None] * questions
        self._open = questions
        self._deliver = deliver

    def settle(self, number: int, answer: Any) -> None:
        """Note one question's answer."""
        self._answers[number] = answer
        self._open -= 1
        if not self._open:
            self._deliver(self._answers)

    def fail(self, error: Exception) -> None:
        """Give up on all of them."""
        if self._open > 0:
            self._open = -1
            self._deliver(error)


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
        self._running: list[_Job] = []
        self._closed = False
        self._change = threading.Condition()
        metrics.queue.set_function(lambda: len(self._waiting))
        self._thread = threading.Thread(target=self._work, name="policy", daemon=True)
        self._thread.start()

    @property
    def unfinished(self) -> int:
        """Questions that wait or are being answered."""
        return len(self._waiting) + len(self._running)

    @property
    def computing(self) -> bool:
        """Whether the policy's thread lives on after ``close``, because the policy has not returned."""
        return self._closed and self._thread.is_alive()

    def submit(self, questions: Sequence[Question], deliver: Callable[[list[Any] | Exception], None]) -> Order:
        """Queue all of ``questions`` or, with QueueFull or Stopped, none. ``deliver``: see Order."""
        order = Order(len(questions), deliver)
        with self._change:
            if self._closed:
                raise Stopped
            if len(self._waiting) + len(questions) > self._max_queue:
                raise QueueFull
            self._waiting.extend(_Job(order, number, question) for number, question in enumerate(questions))
            self._change.notify()
        return order

    def withdraw(self, order: Order) -> None:
        """Free the places of those of its questions that still wait."""
        with self._change:
            for job in [job for job in self._waiting if job.order is order]:
                self._waiting.remove(job)

    def call(self, function: Callable[[], Any]) -> Future[Any]:
        """Queue a call that must not run beside the policy, such as its ``forget``; the queue's limit is not for it."""
        future: Future[Any] = Future()

        def deliver(outcome: list[Any] | Exception) -> None:
            with suppress(InvalidStateError):  # stopped and answered at the same moment
                if isinstance(outcome, Exception):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome[0])

        with self._change:
            self._waiting.append(_Job(Order(1, deliver), 0, function))
            self._change.notify()
        return future

    def stop(self) -> int:
        """Give up on what waits and on what the policy computes, with Stopped. Returns how many orders that were."""
        with self._change:
            self._closed = True
            orders = {job.order for job in (*self._waiting, *self._running)}
            self._waiting.clear()
            self._change.notify()
        for order in orders:
            order.fail(Stopped())
        return len(orders)

    def close(self, timeout_s: float | None = None) -> None:
        """Answer what is queued and end the thread; wait ``timeout_s`` seconds for it, None for as long as it takes."""
        with self._change:
            self._closed = True
            self._change.notify()
        self._thread.join(timeout_s)

    def _work(self) -> None:
        while batch := self._take():
            taken = time.perf_counter()
            for job in batch:
                if not callable(job.question):
                    self._metrics.wait_seconds.observe(taken - job.since)
            try:
                self._run(batch)
            finally:
                with self._change:
                    self._running = []

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
            self._running = batch
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
        started = time.perf_counter()
        try:
            if callable(first):
                jobs[0].order.settle(0, first())
                return
            answers = ask_policy(self._policy, questions)  # type: ignore[arg-type] # calls never share a batch
        except BaseException as error:  # whatever it is: without this thread nobody gets an answer any more
            if len(jobs) == 1:
                jobs[0].order.fail(error if isinstance(error, UserError) else PolicyFailed(error))
                self.withdraw(jobs[0].order)
            else:  # one client's question must not cost its neighbours their answers
                for job in jobs:
                    self._run([job])
            return
        self._metrics.inference_seconds.observe(time.perf_counter() - started)
        self._metrics.batch_size.observe(len(jobs))
        for job, answer in zip(jobs, answers, strict=True):
            job.order.settle(job.number, answer)


class _Job:
    __slots__ = ("number", "order", "question", "since")

    def __init__(self, order: Order, number: int, question: Question | Callable[[], Any]) -> None:
        self.order, self.number, self.question = order, number, question
        self.since = time.perf_counter()


def _describe(error: BaseException) -> str:
    """Return an error's type and the first line of its message, at most 300 characters."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}{f': {lines[0]}' if lines else ''}"[:300]
