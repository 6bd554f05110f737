"""The process that owns a simulator and its GL context, and plays one episode after the other."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn, Protocol

import numpy as np

from tformer.launch import mend_streams

from ..conventions import Adapter
from ..errors import ConventionError
from ..types import EpisodeResult, Observation
from .episode import Episode, film
from .jobs import (
    Abandon,
    Act,
    Alive,
    Ask,
    Built,
    Ended,
    EngineMessage,
    EpisodeJob,
    Simulator,
    Unbuildable,
    Unjoinable,
    WorkerMessage,
    WorkerSetup,
    sentence_of,
)

ALIVE_EVERY_S = 1.0


class Abandoned(Exception):
    """The engine gave the present episode up."""


def worker_main(connection: Connection, setup: WorkerSetup) -> None:
    """Serve the engine until it closes the pipe or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the engine decides what it means
    mend_streams()
    _die_with(setup.parent)
    Worker(connection, setup).serve()


class Pipe(Protocol):
    """What a worker needs of its connection to the engine; both raise OSError or EOFError when the engine is gone."""

    def send(self, message: Any, /) -> None:
        """Send a WorkerMessage."""
        ...

    def recv(self) -> Any:
        """Wait for an EngineMessage."""
        ...


class Worker:
    """Keeps the environment of the last task, because building one costs seconds and a reset milliseconds."""

    def __init__(self, connection: Pipe, setup: WorkerSetup) -> None:
        self._connection = connection
        self._setup = setup
        self._task: tuple[str, int] | None = None
        self._simulator: Simulator | None = None
        self._told = 0.0

    def serve(self) -> NoReturn:
        """Play job after job."""
        while True:
            job = self._receive()
            assert isinstance(job, EpisodeJob)
            try:
                simulator, adapter = self._prepare(job)
            except ConventionError as error:
                self._send(Unjoinable(str(error)))
            except Exception as error:
                self._discard()
                sentence = f"The environment of task {job.key.task_id} cannot be built: {sentence_of(error)}"
                self._send(Unbuildable(sentence, traceback.format_exc()))
            else:
                self._send(Built())
                self._play(job, simulator, adapter)

    def _prepare(self, job: EpisodeJob) -> tuple[Simulator, Adapter]:
        if self._simulator is None or self._task != job.task:
            self._discard()
            self._simulator = job.environment.build()
            self._task = job.task
        return self._simulator, Adapter(
            self._simulator.interface, self._setup.policy, job.environment.gymnasium_id.rpartition(":")[2]
        )

    def _discard(self) -> None:
        simulator, self._simulator = self._simulator, None
        if simulator is not None:
            with suppress(Exception):  # a broken simulator may not close well, and it is not used again
                simulator.close()

    def _play(self, job: EpisodeJob, simulator: Simulator, adapter: Adapter) -> None:
        episode = Episode(simulator, adapter, job, self._setup.settings.protocol, self._ask, self._alive)
        trace = ""
        try:
            result = episode.play()
        except Abandoned:
            return
        except Exception as error:
            result, trace = episode.failed(error), traceback.format_exc()
            self._discard()  # nobody knows what state the simulator is in now
        else:
            result, trace = self._filmed(job, simulator, result)
        self._send(Ended(result, trace))

    def _filmed(self, job: EpisodeJob, simulator: Simulator, result: EpisodeResult) -> tuple[EpisodeResult, str]:
        """Return the result with its video, if it is to have one; a film that fails does not change the outcome."""
        settings = self._setup.settings
        if settings.folder is None or settings.video == "none":
            return result, ""
        if settings.video == "failures" and result.outcome != "failure":
            return result, ""
        name = f"videos/task{job.key.task_id:02d}-state{job.key.initial_state:02d}-{result.outcome}.mp4"
        try:
            film(simulator, job, settings.protocol, result, Path(settings.folder, name), self._alive)
        except Exception:
            self._discard()
            return result, traceback.format_exc()
        return replace(result, video=name), ""

    def _ask(self, observation: Observation) -> np.ndarray:
        self._send(Ask(observation))
        answer = self._receive()
        if isinstance(answer, Abandon):
            raise Abandoned
        assert isinstance(answer, Act)
        return answer.chunk

    def _alive(self) -> None:
        if time.monotonic() - self._told > ALIVE_EVERY_S:
            self._send(Alive())

    def _send(self, message: WorkerMessage) -> None:
        self._told = time.monotonic()
        try:
            self._connection.send(message)
        except OSError:
            sys.exit()  # the engine is gone

    def _receive(self) -> EngineMessage:
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            sys.exit()


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when ``parent`` dies, also in the middle of a simulator's call.

    Where there is no prctl (macOS) the closed pipe ends the worker at its next message.
    """
    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call
        sys.exit()
