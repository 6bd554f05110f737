"""What the engine and its workers say to each other: plain data that pickles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import gymnasium
import numpy as np

from .. import protocols
from ..errors import UserError
from ..types import EpisodeKey, EpisodeResult, PolicySpec, SimulatedTask

VideoChoice = Literal["none", "failures", "all"]


class Simulator(SimulatedTask, Protocol):
    """A simulated task with gymnasium's own methods."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        ...

    def step(self, action: np.ndarray) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Advance by one control step."""
        ...

    def close(self) -> None:
        """Free the simulator and its GL context."""
        ...


@dataclass(frozen=True)
class EnvironmentRecipe:
    """How a worker builds an environment: ``gymnasium.make(gymnasium_id, **options)``.

    gymnasium_id: may name the module that registers it, as in "vla_harness.envs:libero/spatial-v0".
    """

    gymnasium_id: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def build(self) -> Simulator:
        """Return the environment without gymnasium's wrappers, whose checks cost time at every step."""
        made = gymnasium.make(self.gymnasium_id, disable_env_checker=True, **self.options)
        return cast(Simulator, made.unwrapped)


@dataclass(frozen=True)
class EpisodeJob:
    """One episode to play, and all that a worker needs to know for it."""

    key: EpisodeKey
    task_name: str
    instruction: str
    environment: EnvironmentRecipe

    @property
    def task(self) -> tuple[str, int]:
        """Episodes with the same value share an environment."""
        return self.key.suite, self.key.task_id


@dataclass(frozen=True)
class RolloutSettings:
    """How episodes are played.

    protocol: the card the run keeps to.
    workers: processes, each with its own simulator.
    folder: the run's folder; videos go to its ``videos``. None when ``video`` is "none".
    video: which episodes are filmed.
    silence_s: seconds without a sign of life after which a worker counts as hung, while it plays.
    build_s: the same while it builds an environment, which reads meshes and may compile.
    max_attempts: how often an episode is tried, and a task's environment built, when workers die or hang over it.
    round_states: initial states that all tasks are played from before the next ones; None: all of a task's at once.
    """

    protocol: protocols.Protocol
    workers: int
    folder: Path | None = None
    video: VideoChoice = "none"
    silence_s: float = 60.0
    build_s: float = 300.0
    max_attempts: int = 3
    round_states: int | None = None


@dataclass(frozen=True)
class WorkerSetup:
    """What a worker is told once, at its start."""

    policy: PolicySpec
    settings: RolloutSettings
    parent: int
    """Process id of the engine."""


# From a worker to the engine.


@dataclass(frozen=True)
class Ready:
    """The worker can take jobs: it has found its place. A crew whose workers can do so at once leaves it out."""


@dataclass(frozen=True)
class Alive:
    """Sent about once a second from the worker's own loop, so that a hung simulator stops it."""


@dataclass(frozen=True)
class Built:
    """The environment of the present job stands."""


@dataclass(frozen=True)
class Unbuildable:
    """The environment of the present job cannot be built."""

    sentence: str
    trace: str


@dataclass(frozen=True)
class Unjoinable:
    """The policy's and the environment's conventions do not go together; ``sentence`` is the ConventionError's."""

    sentence: str


class Question(Protocol):
    """What the engine reads of an observation; the rest may stay where it is until a policy reads it."""

    @property
    def episode(self) -> str:
        """The episode's identifier."""
        ...


@dataclass(frozen=True)
class Ask:
    """The worker's chunk is used up, and it waits for the next one. observation: an Observation, or where it lies."""

    observation: Question


@dataclass(frozen=True)
class Ended:
    """The present job ended. trace: for the run's error log, also of what failed without costing the result."""

    result: EpisodeResult
    trace: str = ""


@dataclass(frozen=True)
class Gone:
    """The sender died. Put into the queue by this side. reason: in words, where this side knows it by then."""

    reason: str = ""


WorkerMessage = Ready | Alive | Built | Unbuildable | Unjoinable | Ask | Ended | Gone


# From a copy of the policy to the engine.


@dataclass(frozen=True)
class Loaded:
    """The copy can answer questions."""


@dataclass(frozen=True)
class Answered:
    """A batch is done.

    chunks: (horizon, action_dim) float32 actions for each question, None for one that was lost on its way, or whose
        episode the policy has forgotten; or empty, and then the policy raised.
    sentence, trace: of what it raised, or why questions were lost. mendable: that was a UserError.
    """

    chunks: Sequence[np.ndarray | None] = ()
    sentence: str = ""
    trace: str = ""
    mendable: bool = False


ReplicaMessage = Loaded | Answered | Gone


# From the engine to a worker: an EpisodeJob, or while the worker waits for actions one of these.


@dataclass(frozen=True)
class Act:
    """(n, action_dim) float32 actions in the policy's convention."""

    chunk: np.ndarray


@dataclass(frozen=True)
class Abandon:
    """Give the present episode up without a result."""


EngineMessage = EpisodeJob | Act | Abandon


def sentence_of(error: BaseException) -> str:
    """Return an exception as one sentence: a UserError's own, else its type and the first line of its message."""
    if isinstance(error, UserError):
        return str(error)
    first = str(error).strip().partition("\n")[0].rstrip(" .")
    return f"{type(error).__name__}: {first}." if first else f"{type(error).__name__}."
