"""One LIBERO episode that can be watched while it is played."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator
from dataclasses import dataclass, field, replace

import numpy as np

from vla_harness.conventions import Adapter
from vla_harness.envs.assets import resolve_assets
from vla_harness.errors import UserError
from vla_harness.protocols import default_protocol, protocol_card
from vla_harness.rollout import EnvironmentRecipe, EpisodeJob
from vla_harness.rollout.episode import FILMED_CAMERA, Episode
from vla_harness.rollout.jobs import Simulator
from vla_harness.types import EpisodeKey, Observation, Policy

_FRAME = 256
_NOTHING = np.zeros((0, 7), np.float32)


class _Stopped(Exception):
    """Nobody watches any more."""


@dataclass(frozen=True)
class Moment:
    """What there is to see of a rollout.

    frame: (256, 256, 3) uint8. actions: those decided on so far, (n, 7). sentence: how far it is. stand_ins: the frame
    is drawn with generated stand-in assets; None before the assets were looked for.
    """

    frame: np.ndarray | None
    actions: np.ndarray
    sentence: str
    stand_ins: bool | None = None


@dataclass
class LiveRollout:
    """Plays an episode in a thread of its own, because a rendering context belongs to the thread that made it.

    steps: most steps of the episode. every: steps from one frame to the next.
    """

    policy: Policy
    suite: str
    task: int
    initial_state: int
    assets: str = "auto"
    steps: int | None = None
    every: int = 4
    _moments: queue.SimpleQueue[Moment | None] = field(default_factory=queue.SimpleQueue, init=False)
    _stop: threading.Event = field(default_factory=threading.Event, init=False)
    _stand_ins: bool | None = field(default=None, init=False)

    def moments(self) -> Generator[Moment, None, None]:
        """Yield moments until the episode has ended. Closing the iterator stops the episode."""
        thread = threading.Thread(target=self._play, daemon=True)
        thread.start()
        try:
            while (moment := self._moments.get()) is not None:
                yield moment
        finally:
            self._stop.set()
            thread.join()

    def _play(self) -> None:
        try:
            self._episode()
        except _Stopped:
            pass
        except Exception as error:
            sentence = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            self._moments.put(Moment(None, _NOTHING, f"The rollout failed: {sentence}", self._stand_ins))
        finally:
            self._moments.put(None)

    def _episode(self) -> None:
        self._stand_ins = resolve_assets(self.assets).kind == "primitive"
        starting = "The simulator starts; the first time this takes up to a minute."
        self._moments.put(Moment(None, _NOTHING, starting, self._stand_ins))
        options = {"task": self.task, "observations": "on_request", "assets": self.assets}
        recipe = EnvironmentRecipe(f"vla_harness.envs:libero/{self.suite}-v0", options)
        simulator = recipe.build()
        try:
            self._watch(simulator, recipe)
        finally:
            simulator.close()

    def _watch(self, simulator: Simulator, recipe: EnvironmentRecipe) -> None:
        card = protocol_card(default_protocol(self.policy.spec))
        limit = min(self.steps or card.max_steps[self.suite], card.max_steps[self.suite])
        key = EpisodeKey(self.suite, self.task, self.initial_state, 7)
        job = EpisodeJob(key, simulator.task_name, simulator.instruction, recipe)
        adapter = Adapter(simulator.interface, self.policy.spec, f"libero/{self.suite}")
        decided: list[np.ndarray] = []
        signs = 0

        def ask(seen: Observation) -> np.ndarray:
            chunk = np.asarray(self.policy.act([seen]))[0]
            decided.append(adapter.actions(chunk[: card.actions_per_inference]))
            return chunk

        def alive() -> None:
            nonlocal signs
            signs += 1
            if self._stop.is_set():
                raise _Stopped
            if signs % self.every == 0:
                shown = f"step {episode.steps} of at most {limit}"
                self._moments.put(self._moment(simulator, decided, shown))

        episode = Episode(simulator, adapter, job, replace(card, max_steps={self.suite: limit}), ask, alive)
        self.policy.forget(str(key))
        result = episode.play()
        self.policy.forget(str(key))
        self._moments.put(self._moment(simulator, decided, f"{result.outcome} after {result.steps} steps"))

    def _moment(self, simulator: Simulator, decided: list[np.ndarray], sentence: str) -> Moment:
        actions = np.concatenate(decided) if decided else _NOTHING
        return Moment(simulator.render_camera(FILMED_CAMERA, _FRAME, _FRAME), actions, sentence, self._stand_ins)
