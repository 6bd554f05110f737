"""Toy episodes for the tests of the rollout engine: a policy, jobs, and how to play and compare them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vla_harness.protocols import PROTOCOLS, Protocol
from vla_harness.rollout import EnvironmentRecipe, EpisodeJob, RolloutSettings, run_episodes
from vla_harness.types import DELTA_EEF_POSE, EpisodeKey, EpisodeResult, Observation, Policy, PolicySpec

STEPS = 40
CARD = replace(PROTOCOLS["openvla"], max_steps={"toy": STEPS}, actions_per_inference=None, image_size=(16, 24))


class Reacher(Policy):
    """Goes straight to the target, four actions a call; each call of an episode is a little slower than the last.

    The slowing is its memory: an episode that is started again without ``forget`` is another one.
    """

    def __init__(self, fault: Callable[[Sequence[Observation]], None] | None = None, **spec: Any) -> None:
        usual: dict[str, Any] = {
            "action": DELTA_EEF_POSE,
            "state_keys": ("eef_pos",),
            "horizon": 4,
            "reads_scene": True,
        }
        self.spec = PolicySpec("reacher", **usual | spec)
        self.seen: list[list[Observation]] = []
        self.forgotten: list[str] = []
        self._calls: dict[str, int] = {}
        self._fault = fault

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        self.seen.append(list(observations))
        return np.stack([self._one(observation, observations) for observation in observations])

    def _one(self, observation: Observation, batch: Sequence[Observation]) -> np.ndarray:
        calls = self._calls[observation.episode] = self._calls.get(observation.episode, 0) + 1
        if self._fault is not None:
            self._fault(batch)  # after the memory has changed, and perhaps half way through the batch
        actions = np.zeros((self.spec.horizon, 7), np.float32)
        assert observation.scene is not None
        towards = observation.scene["target"] - observation.state[:3]
        actions[:, :3] = np.clip(towards / (0.1 * self.spec.horizon) * 0.99**calls, -0.4, 0.4)
        return actions

    def forget(self, episode: str) -> None:
        self.forgotten.append(episode)
        self._calls.pop(episode, None)


def jobs(tasks: Iterable[int] = range(3), states: Iterable[int] = range(4), **options: Any) -> list[EpisodeJob]:
    states = list(states)
    return [
        EpisodeJob(
            EpisodeKey("toy", task, state, 7),
            f"toy_{task}",
            f"reach target {task}",
            EnvironmentRecipe("tests.toy_environment:toy/reach-v0", {"task": task, **options}),
        )
        for task in tasks
        for state in states
    ]


def play(
    todo: Sequence[EpisodeJob],
    policy: Policy | None = None,
    workers: int = 1,
    log: Callable[[str], None] = lambda text: None,
    protocol: Protocol = CARD,
    **settings: Any,
) -> dict[str, EpisodeResult]:
    found = list(run_episodes(todo, policy or Reacher(), RolloutSettings(protocol, workers, **settings), log))
    results = {str(result.key): result for result in found}
    assert len(results) == len(found) == len(todo)
    return results


def substance(results: dict[str, EpisodeResult]) -> dict[str, tuple[str, str, str]]:
    return {key: (result.outcome, result.action_sha256, result.state_sha256) for key, result in results.items()}
