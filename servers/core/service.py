"""The core that every protocol shares: questions in, answers out, whoever asks and in whatever form."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import math
import platform
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from vla_harness import __version__
from vla_harness.errors import UserError
from vla_harness.kernels import SERVER_KERNELS, policy_kernels
from vla_harness.types import ActionConvention, ImageOrientation, JointConvention, Policy

from .batcher import Batcher, PolicyFailed, QueueFull, Stopped
from .client_conventions import OPENPI, ClientConvention, fits_libero
from .metrics import Metrics
from .questions import Act, NamedActions, Question, RawActions, RawChunks, ask_policy, blank_observation
from .refusal import Refusal
from .sessions import Sessions

log = logging.getLogger("vla_harness.servers")

MAX_FAILURES = 8
"""After so many failed requests in a row the policy is warmed up again, to tell bad requests from a broken policy."""

_CLOSE_S = 0.2
"""Seconds that the policy's thread gets to end after the last answer."""


@dataclass(frozen=True)
class ServiceSettings:
    """How questions are answered.

    max_batch: most questions in one call of the policy, beside the policy's own limit.
    max_wait_s: seconds a batch that is not full waits for company.
    max_queue: questions that may wait; beyond it clients get 503.
    client_images: how the images of foreign clients lie; None means as those of LIBERO's clients do, or, for a policy
        whose actions no LIBERO client executes, as its network was trained. (Our own client's images are upright.)
    openvla_compat: ``POST /act`` fails as OpenVLA's server does, with HTTP 200 and ``"error"``, also for a request
        without an unnorm_key to a policy that has several.
    """

    max_batch: int = 64
    max_wait_s: float = 0.0
    max_queue: int = 64
    client_images: ImageOrientation | None = None
    openvla_compat: bool = False


class ActionService:
    """One policy behind a queue. All methods but ``answer``'s waiting are quick; call them from the event loop."""

    def __init__(self, policy: Policy, settings: ServiceSettings | None = None) -> None:
        """Start the policy's thread and its warm-up. Raises UserError for a policy that no client can serve."""
        if policy.spec.reads_scene:
            raise UserError(
                f"The policy {policy.spec.name!r} reads the simulator's state, which no client sends:"
                " serve a policy that reads images."
            )
        self.policy = policy
        self.settings = settings or ServiceSettings()
        self.metrics = Metrics()
        self.draining = False
        self.incarnation = uuid.uuid4().hex
        self._batcher = Batcher(
            policy,
            self.metrics,
            min(self.settings.max_batch, policy.spec.max_batch),
            self.settings.max_wait_s,
            self.settings.max_queue,
        )
        self._keeps_memory = type(policy).forget is not Policy.forget
        self._sessions = Sessions(self._forget)
        self.metrics.sessions.set_function(lambda: len(self._sessions))
        self._numbers = itertools.count()
        self._failures = 0
        self._warm_up = self._batcher.call(self._warm)

    def images_of(self, client: ClientConvention) -> ImageOrientation:
        """Return how the images of a foreign client lie."""
        spec = self.policy.spec
        return self.settings.client_images or (client.images if fits_libero(spec) else spec.image_orientation)

    @property
    def other_clients(self) -> str:
        """Return words for the conventions in which other projects' clients are served."""
        whose = "LIBERO's conventions" if fits_libero(self.policy.spec) else "the policy's own conventions"
        return f"{whose}, frames {self.images_of(OPENPI)}"

    @property
    def unnorm_keys(self) -> tuple[str, ...]:
        """Return the data sets whose statistics scale the policy's actions, if it has any."""
        return tuple(getattr(self.policy, "unnorm_keys", ()))

    @property
    def health(self) -> tuple[bool, str]:
        """Return whether the server is ready, and a word for its state."""
        if self.draining:
            return False, "shutting down"
        if self.failure is not None:
            return False, "broken"
        return (True, "healthy") if self._warm_up.done() else (False, "warming up")

    @property
    def failure(self) -> str | None:
        """Return why the policy can never answer again; None while it can."""
        if not self._warm_up.done() or not isinstance(error := self._warm_up.exception(), PolicyFailed):
            return None
        return f"The policy {self.policy.spec.name!r} failed on a blank observation: {error}"

    @property
    def unfinished(self) -> int:
        """Return how many questions wait or are being answered."""
        return self._batcher.unfinished

    @property
    def computing(self) -> bool:
        """Whether the policy still computes although the service was closed."""
        return self._batcher.computing

    def new_name(self, protocol: str) -> str:
        """Return a name for a client or an episode that has none."""
        return f"{protocol}/{next(self._numbers)}"

    async def answer(self, questions: Sequence[Question], protocol: str, session: str = "") -> list[Any]:
        """Return the answers to ``questions``; raises Refusal. When the caller is cancelled, so are the questions.

        session: the asking client, for policies that keep a memory of each episode.
        """
        return (await self.answer_remembering(questions, protocol, session))[0]

    async def answer_remembering(
        self, questions: Sequence[Question], protocol: str, session: str = ""
    ) -> tuple[list[Any], list[int]]:
        """Return what ``answer`` does, and a number of the memory in which each question was answered.

        See ``Sessions.use``; no numbers for policies that remember nothing.
        """
        started = time.perf_counter()
        status = 499  # the client went away
        try:
            ready, state = self.health
            if not ready:
                raise Refusal(503, self.failure or f"The server is {state}.", retry_after_s=2)
            memories = self._remember(questions, session)
            answers = await self._answer(questions)
            status = 200
            return answers, memories
        except Refusal as refusal:
            status = refusal.status
            raise
        finally:
            self.metrics.requests.labels(protocol, status).inc()
            self.metrics.request_seconds.labels(protocol).observe(time.perf_counter() - started)

    def memory_entries(self, memories: Sequence[int]) -> dict[str, Any]:
        """Return what replies to our own clients say, so that they notice when an episode's memory was lost."""
        return {"incarnation": self.incarnation, "memories": list(memories)}

    def _remember(self, questions: Sequence[Question], session: str) -> list[int]:
        if not self._keeps_memory:
            return []
        asked = [question.observation for question in questions if isinstance(question, Act)]
        return [self._sessions.use(one.episode, session, one.step) for one in asked]

    async def _answer(self, questions: Sequence[Question]) -> list[Any]:
        try:
            answers = await self._ask(questions)
            self._failures = 0
            return answers
        except Stopped:
            raise Refusal(503, "The server was stopped before this was answered.", retry_after_s=2) from None
        except QueueFull:
            raise Refusal(
                503, f"{self.settings.max_queue} questions wait already; ask again.", retry_after_s=1
            ) from None
        except UserError as error:
            raise Refusal(422, str(error)) from None
        except PolicyFailed as failure:
            self.metrics.errors.inc()
            log.error("The policy failed.", exc_info=failure.__cause__)
            self._doubt(failure)
            raise Refusal(500, "The policy failed on this request; the server's log says how.") from None

    def _doubt(self, failure: PolicyFailed) -> None:
        """Warm the policy up again if it may be broken for good; nothing is answered until that has gone well."""
        self._failures += 1
        if (failure.crashed or self._failures >= MAX_FAILURES) and self._warm_up.done() and self.failure is None:
            self._failures = 0
            log.warning("The policy is warmed up again, to see whether it can go on.")
            self._warm_up = self._batcher.call(self._warm)

    async def _ask(self, questions: Sequence[Question]) -> list[Any]:
        """Return the policy's answers, or raise what it raised, or QueueFull."""
        loop = asyncio.get_running_loop()
        answers: asyncio.Future[list[Any]] = loop.create_future()

        def deliver(outcome: list[Any] | Exception) -> None:
            with suppress(RuntimeError):  # the loop has ended, and with it whoever asked
                loop.call_soon_threadsafe(_settle, answers, outcome)

        order = self._batcher.submit(questions, deliver)
        try:
            return await answers
        except asyncio.CancelledError:
            self._batcher.withdraw(order)
            raise

    def end_episode(self, episode: str, session: str = "") -> None:
        """Drop the memory of ``episode``, if ``session`` plays it."""
        self._sessions.end(episode, session)

    async def drain(self, timeout_s: float) -> int:
        """Refuse what comes, and wait until what is in flight is answered, ``timeout_s`` seconds at most.

        Returns how many requests were not: they are refused.
        """
        self.draining = True
        until = time.monotonic() + timeout_s
        while self.unfinished and time.monotonic() < until:
            await asyncio.sleep(0.02)
        return self._batcher.stop()

    def close(self) -> None:
        """Refuse what comes, and end the policy's thread if the policy returns soon."""
        self.draining = True
        self._batcher.close(_CLOSE_S)

    def metadata(self) -> dict[str, Any]:
        """Return what ``GET /metadata`` says: plain data."""
        policy = self.policy
        said = {
            "server": "vla-harness",
            "policy": policy.spec.name,
            "spec": asdict(policy.spec),  # in JSON null stands for a number that is not known
            "action_convention": "stated" if _stated(policy.spec.action) else "unknown",
            "stateful": self._keeps_memory,
            "incarnation": self.incarnation,
            "unnorm_keys": list(self.unnorm_keys),
            "provenance": {**policy.provenance, SERVER_KERNELS: policy_kernels()},
            "client_images": self.images_of(OPENPI),  # our own clients of the other protocols ask
            "max_batch": min(policy.spec.max_batch, self.settings.max_queue),
            "raw_actions": isinstance(policy, RawActions | RawChunks),
            "named_actions": isinstance(policy, NamedActions),
            "versions": _versions(),
        }
        return json.loads(json.dumps(_finite(said), default=str))  # a policy may state a torch.dtype or a Path

    def _forget(self, episode: str) -> None:
        _report(self._batcher.call(lambda: self.policy.forget(episode)))

    def _warm(self) -> None:
        observation = blank_observation(self.policy.spec)
        if observation is None:
            return
        try:
            ask_policy(self.policy, [Act(observation)])
        except UserError:  # it is well, and does not know this episode
            pass
        except BaseException:
            log.exception("The policy failed while it warmed up.")
            raise
        finally:
            self.policy.forget(observation.episode)


def _settle(answers: asyncio.Future[list[Any]], outcome: list[Any] | Exception) -> None:
    if answers.done():  # the client went away
        return
    if isinstance(outcome, Exception):
        answers.set_exception(outcome)
    else:
        answers.set_result(outcome)


def _report(future: Future[Any]) -> None:
    """Log what a call in the policy's thread raises: nobody waits for it."""

    def look(done: Future[Any]) -> None:
        if (error := done.exception()) and not isinstance(error, Stopped):
            log.error("The policy failed to forget an episode: %s", error)

    future.add_done_callback(look)


def _stated(convention: ActionConvention | JointConvention) -> bool:
    """Return whether an action's meaning is known: no number of its convention is nan."""
    return not any(isinstance(value, float) and math.isnan(value) for value in asdict(convention).values())


def _finite(value: Any) -> Any:
    """Return ``value`` with None for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _versions() -> dict[str, str]:
    versions = {"vla_harness": __version__, "python": platform.python_version()}
    for name in ("numpy", "torch", "transformers", "fastapi", "uvicorn", "websockets", "pyzmq", "msgpack"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
