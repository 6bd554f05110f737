"""A worker process as the engine sees it: started, listened to, killed."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker

from .jobs import EngineMessage, EpisodeJob, Gone, WorkerMessage, WorkerSetup
from .worker import worker_main

_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)
"""Workers are the parallelism: BLAS threads inside each would fight for the cores."""


class WorkerProcess:
    """One spawned worker, its pipe, and the job it was given.

    A thread of its own reads the pipe into ``events`` as (worker, message). A pipe that was read by the engine itself
    would block it for good on a message that a stopped worker has half sent; and with the thread, frames travel while
    the policy computes.

    job: what it plays; None while it is idle. building: it has not said yet that the job's environment stands.
    asking: it waits for actions. silent_s: seconds since it last said something, counted up by the engine.
    """

    def __init__(self, setup: WorkerSetup, events: queue.SimpleQueue[tuple[WorkerProcess, WorkerMessage]]) -> None:
        self.job: EpisodeJob | None = None
        self.building = self.asking = False
        self.silent_s = 0.0
        self.task: tuple[str, int] | None = None
        """The task whose environment it keeps, or is building."""
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=worker_main, args=(theirs, setup), daemon=True)
        with _start_conditions():
            self._process.start()
        theirs.close()
        self._events = events
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def pid(self) -> int | None:
        """Process id."""
        return self._process.pid

    def give(self, job: EpisodeJob) -> None:
        """Have the worker play ``job``."""
        self.job, self.task, self.building = job, job.task, True
        self.send(job)

    def send(self, message: EngineMessage) -> None:
        """Send a message; one to a dead worker is dropped, because its ``Gone`` is on the way."""
        self.asking, self.silent_s = False, 0.0
        with suppress(OSError):
            self._connection.send(message)

    def kill(self, grace_s: float = 1.0) -> str:
        """End the process and return how it ended. A worker owns nothing that outlives it.

        grace_s: seconds to wait for one that is dying by itself and has a cause of its own to tell.
        """
        self._process.join(grace_s)
        self._process.kill()
        self._process.join()
        code = self._process.exitcode or 0
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"left with exit code {code}"

    def _listen(self) -> None:
        while True:
            try:
                message = self._connection.recv()
            except Exception:  # the end of the pipe, also in the middle of a message
                self._events.put((self, Gone()))
                return
            self.silent_s = 0.0
            self._events.put((self, message))


@contextmanager
def _start_conditions() -> Iterator[None]:
    """Arrange what a child inherits at its start: one BLAS thread, and SIGINT blocked.

    A child that is still importing would answer Ctrl-C with a traceback.
    """
    resource_tracker.ensure_running()  # starting it unblocks SIGINT
    saved = {name: os.environ.get(name) for name in _ONE_THREAD}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    os.environ.update(_ONE_THREAD)
    try:
        yield
    finally:
        for name, value in saved.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
