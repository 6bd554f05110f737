"""Lifting an object off what it lies on."""

from __future__ import annotations

from dataclasses import dataclass

from .geometry import Scene, vertical_range
from .grasps import candidates
from .motion import OPEN, Motion, squeeze
from .skills import is_held, pick

_HIGH = 0.025
"""How far the lowest point of a lifted object is above all fixtures, in metres."""


@dataclass(frozen=True)
class Lift:
    """Hold an object up in the air: the goal ("lift", target)."""

    target: str

    def done(self, scene: Scene) -> bool:
        """Say whether the object is above everything that it may have lain on."""
        grounds = [vertical_range(scene, name)[1] for name, obj in scene["objects"].items() if obj["fixture"]]
        return vertical_range(scene, self.target)[0] > max(grounds) + _HIGH

    def run(self, scene: Scene, attempt: int) -> Motion:
        """Return the motions of one attempt; ``attempt`` counts from 0."""
        ways = candidates(scene, self.target, scene["objects"][self.target]["position"])
        way = ways[attempt % len(ways)]
        scene = yield from pick(scene, self.target, way)
        if not is_held(scene, self.target, way):
            scene = yield from squeeze(scene, OPEN, way.rotation, limit=8)
        return scene
