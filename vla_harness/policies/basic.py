"""Policies without a model: the floor that a success rate is compared with, and quick checks of a set-up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..types import DELTA_EEF_POSE, Observation, Policy, PolicySpec, random_generator


class NoopPolicy(Policy):
    """Stands still with an open gripper."""

    def __init__(self) -> None:
        self.spec = PolicySpec("noop", DELTA_EEF_POSE)

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        """Return (batch, 1, 7) float32: no motion, gripper open."""
        actions = np.zeros((len(observations), 1, DELTA_EEF_POSE.dim), np.float32)
        actions[:, :, -1] = DELTA_EEF_POSE.gripper_open
        return actions


class RandomPolicy(Policy):
    """Draws every entry of every action uniformly from [-1, 1)."""

    def __init__(self, seed: int = 0) -> None:
        """Draw from (``seed``, episode, step); the run's own seed is part of the episode's name."""
        self.spec = PolicySpec("random", DELTA_EEF_POSE)
        self._seed = seed

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        """Return (batch, 1, 7) float32, the same for an (episode, step) whatever the batch around it."""
        return np.stack(
            [
                random_generator(self._seed, o.episode, o.step).uniform(-1.0, 1.0, (1, DELTA_EEF_POSE.dim))
                for o in observations
            ]
        ).astype(np.float32)
