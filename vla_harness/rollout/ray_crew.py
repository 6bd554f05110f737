"""The crew on a Ray cluster: an actor for each simulator, and one for each copy of the policy.

Frames go from the simulator's node to the policy's, through Ray's object store; what comes by the engine are words
and actions. Actors are never restarted by Ray: only the engine knows what an episode that broke off needs.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import ray
import ray.exceptions

from .. import registry
from ..errors import UserError
from ..kernels import fixed_kernels
from ..types import Observation, Policy, PolicySpec
from .crew import SHORTAGE_S, Crew, Events, Replica, WorkerLink, ask_policy
from .jobs import Answered, Ask, EngineMessage, Gone, Loaded, Question, Ready, WorkerMessage, WorkerSetup, sentence_of
from .process import ONE_THREAD
from .worker import Worker

_PASSED_ON = ("MUJOCO_GL", "PYOPENGL_PLATFORM", "MUJOCO_EGL_DEVICE_ID", "VLA_HARNESS_GL_RENDERER", "LIBERO_ASSETS")
"""Variables of this process that say how simulators render, and where they find their files."""

_remote: Any = ray.remote  # whose annotations know neither an actor's options nor a mapping of them

_FETCH_S = 60.0
"""Seconds after which an observation that does not arrive is taken for lost."""

_TRIES, _PAUSE_S = 4, 5.0
"""How often the first copy of the policy is started, and the seconds in between: Ray notices a lost node in ten."""


@dataclass(frozen=True)
class PolicyRecipe:
    """How a node builds the policy: ``load_policy(name, **options)``, where ``entry`` is the registry's line."""

    name: str
    entry: str
    options: Mapping[str, Any]

    def build(self) -> Policy:
        """Load the policy."""
        registry.POLICIES[self.name] = self.entry  # a command may have added it to its own process's registry
        return registry.load_policy(self.name, **self.options)


@dataclass(frozen=True)
class StoredObservation:
    """An observation in Ray's object store."""

    episode: str
    reference: Any


# What runs on the nodes.


class _StoringPipe:
    """A worker's connection inside its actor. Observations stay on this node; where they lie goes to the engine."""

    def __init__(self) -> None:
        self.inbox: queue.SimpleQueue[EngineMessage] = queue.SimpleQueue()
        self.outbox: queue.SimpleQueue[WorkerMessage] = queue.SimpleQueue()
        self._held: Any = None  # the last reference, lest the object goes before the engine has it

    def send(self, message: WorkerMessage) -> None:
        if isinstance(message, Ask):
            self._held = ray.put(message.observation)
            message = Ask(StoredObservation(message.observation.episode, self._held))
        self.outbox.put(message)

    def recv(self) -> EngineMessage:
        return self.inbox.get()


class SimulatorActor:
    """A worker in a thread of its own, which owns the rendering context as a worker process's only thread does."""

    def __init__(self, setup: WorkerSetup, environment: Mapping[str, str]) -> None:
        os.environ.update(environment)
        self._pipe = _StoringPipe()
        self._pipe.outbox.put(Ready())
        threading.Thread(target=self._serve, args=(setup,), daemon=True).start()

    def _serve(self, setup: WorkerSetup) -> None:
        try:
            Worker(self._pipe, setup).serve()
        finally:
            os._exit(1)  # a worker that leaves is lost, and its actor must not seem well

    @ray.method(concurrency_group="deliver")
    def deliver(self, message: EngineMessage) -> None:
        """Pass a message to the worker."""
        self._pipe.inbox.put(message)

    @ray.method(concurrency_group="receive")
    def receive(self) -> list[WorkerMessage]:
        """Wait for the worker's messages and return them."""
        messages = [self._pipe.outbox.get()]
        with suppress(queue.Empty):
            while True:
                messages.append(self._pipe.outbox.get_nowait())
        return messages


class PolicyActor:
    """A copy of the policy."""

    def __init__(self, recipe: PolicyRecipe) -> None:
        self._recipe = recipe

    def load(self) -> tuple[PolicySpec, dict[str, Any]] | str:
        """Load the policy; return its spec and provenance, or the sentence of a UserError."""
        try:
            self._policy = self._recipe.build()
        except UserError as error:
            return str(error)
        return self._policy.spec, dict(self._policy.provenance)

    def act(self, references: Sequence[Any]) -> Answered:
        """Answer a batch of observations, without those that do not arrive."""
        observations = [_fetched(reference) for reference in references]
        arrived = [observation for observation in observations if observation is not None]
        answered = ask_policy(self._policy, arrived) if arrived else Answered()
        if len(arrived) == len(observations) or (arrived and not answered.chunks):
            return answered
        chunks = iter(answered.chunks)
        return Answered([None if observation is None else next(chunks) for observation in observations])

    def forget(self, episode: str) -> None:
        """Drop the memory of ``episode``."""
        self._policy.forget(episode)


def _fetched(reference: Any) -> Observation | None:
    try:
        return ray.get(reference, timeout=_FETCH_S)
    except ray.exceptions.RayError:
        return None  # it went with the node of its simulator


# The engine's side.


class RayWorker(WorkerLink):
    """A simulator's actor. It is ready when Ray has found a node with a free core."""

    def __init__(self, setup: WorkerSetup, events: Events) -> None:
        super().__init__(events)
        environment = ONE_THREAD | {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        kind = _remote(num_cpus=1, concurrency_groups={"deliver": 1, "receive": 1})(SimulatorActor)
        self._actor = kind.remote(setup, environment)
        self._end = "was killed"
        self.listen()

    def kill(self, grace_s: float = 1.0) -> str:
        """End the actor, and say how it ended."""
        ray.kill(self._actor)
        return self._end

    def _send(self, message: EngineMessage) -> None:
        self._actor.deliver.remote(message)

    def _receive(self) -> list[WorkerMessage]:
        try:
            return ray.get(self._actor.receive.remote())
        except Exception as error:
            self._end = f"was lost ({_cause(error)})"
            raise


class RayReplica(Replica):
    """An actor with a copy of the policy. A thread of its own waits for its answers."""

    def __init__(self, actor: Any, loading: Any, events: Events) -> None:
        super().__init__()
        self._actor = actor
        self._calls: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._wait, args=(loading, events), daemon=True).start()

    def _ask(self, questions: Sequence[Question]) -> None:
        references = [question.reference for question in questions if isinstance(question, StoredObservation)]
        self._calls.put(self._actor.act.remote(references))

    def forget(self, episode: str) -> None:
        """Have the policy drop the memory of ``episode``, after what it was asked before."""
        self._actor.forget.remote(episode)

    def close(self) -> None:
        """End the actor."""
        self._calls.put(None)
        ray.kill(self._actor)

    def _wait(self, loading: Any, events: Events) -> None:
        try:
            loaded = ray.get(loading)
            if isinstance(loaded, str):
                events.put((self, Gone(loaded)))
                return
            events.put((self, Loaded()))
            while (call := self._calls.get()) is not None:
                events.put((self, ray.get(call)))
        except Exception as error:
            events.put((self, Gone(_cause(error))))


class RayCrew(Crew):
    """Copies of a policy and simulators on the cluster that $RAY_ADDRESS or this machine's own Ray leads to.

    Where there is none, Ray is started on this machine for the run.
    """

    shortage = (
        "For half an hour no node of the Ray cluster has had room for a simulator, or for the policy:"
        " see `ray status`, and go on with --resume."
    )

    def __init__(self, recipe: PolicyRecipe, copies: int | None, use_gpus: bool) -> None:
        """Connect, and load the first copy of the policy.

        copies: of the policy; None for one on each GPU, or one if there is none. use_gpus: each copy takes a GPU,
        where the cluster has any. Raises UserError if the cluster is not there, or the policy cannot be loaded.
        """
        super().__init__()
        _connect()
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0)) if use_gpus else 0
        self.copies = copies or max(1, gpus)
        if gpus and self.copies > gpus:
            raise UserError(f"--replicas is {self.copies}, and the cluster has {gpus} GPUs: give at most {gpus}.")
        # Without a GPU a copy reserves nothing: policies that light leave the cores to the simulators.
        self._resources = {"num_gpus": 1, "num_cpus": 1} if gpus else {"num_cpus": 0}
        self.cores = max(1, int(resources.get("CPU", 1)) - (self.copies if gpus else 0))
        self._recipe = recipe
        self._first: tuple[Any, Any] | None
        self._first, loaded = self._load_first()
        if isinstance(loaded, str):
            raise UserError(loaded)
        self.spec, provenance = loaded
        alive = [node for node in ray.nodes() if node["Alive"]]
        cluster = {"version": ray.__version__, "nodes": len(alive), "copies": self.copies}
        self._provenance = provenance | {"ray": cluster}

    @property
    def provenance(self) -> Mapping[str, Any]:
        """The policy's, with Ray's version and what the cluster was at the start."""
        return self._provenance

    def hire(self, setup: WorkerSetup, events: Events) -> RayWorker:
        """Start a simulator's actor on some node."""
        folder = setup.settings.folder
        if folder is not None:  # actors have a working directory of their own
            setup = replace(setup, settings=replace(setup.settings, folder=folder.absolute()))
        return RayWorker(setup, events)

    def enlist(self, events: Events) -> RayReplica:
        """Return the copy that was loaded first, and after it others."""
        started, self._first = self._first or self._start(), None
        return RayReplica(*started, events)

    def _load_first(self) -> tuple[tuple[Any, Any], Any]:
        """Start the first copy and wait for it; again, if its node was lost but Ray had not noticed yet."""
        for attempt in range(1, _TRIES + 1):
            first = self._start()
            try:
                return first, ray.get(first[1], timeout=SHORTAGE_S)
            except ray.exceptions.GetTimeoutError as error:
                raise UserError(self.shortage) from error
            except ray.exceptions.RayActorError as error:
                if attempt == _TRIES:
                    raise UserError(
                        f"The policy is lost while a node of the Ray cluster loads it ({_cause(error)}): see whether"
                        " the node's memory suffices."
                    ) from error
                time.sleep(_PAUSE_S)
        raise AssertionError

    def _start(self) -> tuple[Any, Any]:
        """Start a copy; return its actor and the reference of what ``load`` returns."""
        spread = _remote(scheduling_strategy="SPREAD", **self._resources)(PolicyActor)
        actor = spread.remote(self._recipe)
        return actor, actor.load.remote()


def _connect() -> None:
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a run reports to nobody
    try:
        ray.init(
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=True,
            runtime_env={"env_vars": fixed_kernels()},  # an actor has imported numpy before it can set them
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(
            f"No Ray cluster answers ({sentence_of(error).rstrip('.')}): start one with `ray start --head`, or put its"
            " address into RAY_ADDRESS."
        ) from error


def _cause(error: BaseException) -> str:
    """Return the first line of what Ray says, without its identifiers."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0].rstrip(' .:')}"
