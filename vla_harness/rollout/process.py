"""A worker process as the engine sees it: started, listened to, killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker

from ..kernels import fixed_kernels
from .crew import Events, WorkerLink
from .jobs import EngineMessage, WorkerMessage, WorkerSetup
from .worker import worker_main

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)
"""Workers are the parallelism: BLAS threads inside each would fight for the cores."""


class WorkerProcess(WorkerLink):
    """One spawned worker and its pipe. It takes jobs at once: they wait in the pipe while it starts."""

    def __init__(self, setup: WorkerSetup, events: Events) -> None:
        super().__init__(events)
        self.ready = True
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=worker_main, args=(theirs, setup), daemon=True)
        with _start_conditions():
            self._process.start()
        theirs.close()
        self.listen()

    def kill(self, grace_s: float = 1.0) -> str:
        """End the process and return how it ended. A worker owns nothing that outlives it."""
        self._process.join(grace_s)
        self._process.kill()
        self._process.join()
        code = self._process.exitcode or 0
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"left with exit code {code}"

    def _send(self, message: EngineMessage) -> None:
        with suppress(OSError):
            self._connection.send(message)

    def _receive(self) -> list[WorkerMessage]:
        return [self._connection.recv()]


@contextmanager
def _start_conditions() -> Iterator[None]:
    """Arrange what a child inherits at its start: one BLAS thread, the fixed BLAS kernels, and SIGINT blocked.

    A child that is still importing would answer Ctrl-C with a traceback.
    """
    resource_tracker.ensure_running()  # starting it unblocks SIGINT
    conditions = ONE_THREAD | fixed_kernels()
    saved = {name: os.environ.get(name) for name in conditions}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    os.environ.update(conditions)
    try:
        yield
    finally:
        for name, value in saved.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
