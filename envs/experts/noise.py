"""Disturbances for demonstrations: bounded pushes off the expert's way, from which it finds back by itself.

A policy that has only seen faultless demonstrations never learns to recover (Laskey et al. 2017, DART): record what
the expert wanted, execute what this makes of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vla_harness.errors import UserError
from vla_harness.types import random_generator


@dataclass(frozen=True)
class RecoveryNoise:
    """Adds the same push to an arm's actions for a while, then none for a while; the gripper's entry is left alone.

    scale: most that is added to an entry, 0 to 1, where 1 is the controller's most. share: of the time that is
    disturbed, 0 to 1. length: steps that one push lasts. seed: of all draws.
    """

    scale: float
    share: float = 0.3
    length: int = 6
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.scale <= 1 and 0 <= self.share <= 1 and self.length >= 1):
            raise UserError(f"{self} is no disturbance: scale and share are 0 to 1, and length is at least 1 step.")

    def disturb(self, action: np.ndarray, episode: str, step: int) -> np.ndarray:
        """Return what is executed, (7,) float32 in [-1, 1], when the expert wants ``action``.

        A function of (seed, episode, step) and the action.
        """
        draw = random_generator(self.seed, episode, step // self.length)
        disturbed = np.array(action, np.float32)
        if draw.random() < self.share:
            disturbed[:-1] += draw.uniform(-self.scale, self.scale, len(action) - 1)
        return np.clip(disturbed, -1.0, 1.0)
