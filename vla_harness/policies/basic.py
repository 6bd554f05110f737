"""Policies without a model: the floor that a success rate is compared with, and quick checks of a set-up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tformer.values import Seed

from ..types import (
    DELTA_EEF_POSE,
    ActionConvention,
    JointConvention,
    Observation,
    Policy,
    PolicySpec,
    random_generator,
)


class NoopPolicy(Policy):
    """Stands still with open grippers."""

    def __init__(self, action: ActionConvention | JointConvention = DELTA_EEF_POSE) -> None:
        """Write ``action``s; 0 must mean no motion in them, as in deltas, velocities and torques."""
        self.spec = PolicySpec("noop", action)

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        """Return (batch, 1, dim) float32: no motion, grippers open."""
        convention = self.spec.action
        actions = np.zeros((len(observations), 1, convention.dim), np.float32)
        actions[..., convention.gripper_entries] = convention.gripper_open
        return actions


class RandomPolicy(Policy):
    """Draws every entry of every action uniformly from [-1, 1)."""

    def __init__(self, seed: Seed = 0, action: ActionConvention | JointConvention = DELTA_EEF_POSE) -> None:
        """Draw actions from (seed, episode, step).

        Args:
            seed: Of the draws; the run's own seed is part of the episode's name.
            action: What the environment takes.
        """
        self.spec = PolicySpec("random", action)
        self._seed = seed

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        """Return (batch, 1, dim) float32, the same for an (episode, step) whatever the batch around it."""
        return np.stack(
            [
                random_generator(self._seed, o.episode, o.step).uniform(-1.0, 1.0, (1, self.spec.action.dim))
                for o in observations
            ]
        ).astype(np.float32)
