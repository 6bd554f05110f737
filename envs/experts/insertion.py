"""Putting a mug into something that opens at the front: held by its handle, from outside, by a leaning hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .geometry import Scene, vertical_range
from .grasps import outer_handle
from .motion import CLOSED, OPEN, Motion, reach, squeeze, travel
from .places import resting_place

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Front:
    """The open front of an object, in the frame of its body.

    inward: the way in, unit length. point: where the body of what is put in should come to rest; its height is ignored.
    """

    inward: Vector
    point: Vector


FRONTS = {"microwave": Front((0.0, 1.0, 0.0), (-0.022, -0.045, 0.0))}
"""Category -> its open front."""

_LEAN = np.pi / 4
_WIDTH = 0.05
_STAND_OFF = 0.07
_BEFORE = 0.16
"""How far in front of its place, in metres, the mug is turned to and lifted to the right height."""
_ABOVE = 0.012


def insert(scene: Scene, name: str, region: str) -> Motion:
    """Bring the mug ``name`` into ``region`` through the front of the object that the region belongs to."""
    owner = scene["objects"][scene["sites"][region]["parent"]]
    front = FRONTS[owner["category"]]
    inward = owner["rotation"] @ front.inward
    rest = owner["position"] + owner["rotation"] @ front.point
    rest[2] = resting_place(scene, name, region)[2]

    across = np.cross(inward, [0.0, 0.0, 1.0])
    approach = np.sin(_LEAN) * inward - np.cos(_LEAN) * np.array([0.0, 0.0, 1.0])
    fingers = across if np.cross(approach, across)[0] >= 0 else -across
    rotation = np.stack([fingers, np.cross(approach, fingers), approach], axis=1)

    grip = outer_handle(scene["objects"][name])
    before = grip - _STAND_OFF * approach
    hanging = before[2] - grip[2]
    scene = yield from travel(scene, lambda _: before, rotation, _WIDTH, hanging=hanging, ignored=(name,))
    scene = yield from reach(scene, lambda _: grip, rotation, _WIDTH, limit=30, speed=0.5)
    scene = yield from squeeze(scene, CLOSED, rotation, limit=15, place=grip)

    def carried(now: Scene, to: np.ndarray) -> np.ndarray:
        return now["end_effector"]["position"] + to - now["objects"][name]["position"]

    lifted = scene["end_effector"]["position"] + [0, 0, 0.05]
    scene = yield from reach(scene, lambda _: lifted, rotation, CLOSED, tolerance=0.02, limit=15, speed=0.6)
    over = rest + [0, 0, _ABOVE]
    outside = over - _BEFORE * inward
    drop = scene["end_effector"]["position"][2] - vertical_range(scene, name)[0]
    scene = yield from travel(
        scene, lambda now: carried(now, outside), rotation, CLOSED, hanging=drop - 0.03, ignored=(name,), limit=60
    )
    scene = yield from reach(scene, lambda now: carried(now, outside), rotation, CLOSED, tolerance=0.012, limit=20)
    scene = yield from reach(
        scene, lambda now: carried(now, over), rotation, CLOSED, tolerance=0.01, limit=40, speed=0.5
    )
    scene = yield from reach(scene, lambda now: carried(now, rest), rotation, CLOSED, limit=10, speed=0.4)
    scene = yield from squeeze(scene, OPEN, rotation, limit=8)
    away = scene["end_effector"]["position"] - 0.12 * inward
    return (yield from reach(scene, lambda _: away, rotation, OPEN, tolerance=0.03, limit=20, speed=0.6))
