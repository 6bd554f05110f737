"""Sliding a flat, open thing over what it stands on: the fingers press on it from inside and drag it along."""

from __future__ import annotations

import numpy as np

from .geometry import FINGER_REACH, Scene, facing_down, vertical_range
from .motion import CLOSED, Motion, action, fingers, reach, travel
from .places import resting_place

_HOVER = 0.05
_PRESS = 0.005
"""How far, in metres, below what it stands on the fingertips are sent: this presses with some 10 N."""
_FORWARD = 0.025
"""How far ahead of the middle they press: what is dragged from the front keeps its way."""
_CLOSE = 0.008


def slide(scene: Scene, name: str, target: str) -> Motion:
    """Drag object ``name`` until its body is within 8 mm of its resting place at ``target``, and let it go."""
    rotation = facing_down(0.0)
    goal = resting_place(scene, name, target)
    start = scene["objects"][name]["position"]
    ahead = _FORWARD * (goal - start) / max(float(np.linalg.norm((goal - start)[:2])), 1e-6) * [1, 1, 0]

    def pressing(now: Scene) -> np.ndarray:
        middle = now["objects"][name]["position"] + ahead
        return np.array([*middle[:2], vertical_range(now, name)[0] + FINGER_REACH])

    scene = yield from travel(
        scene, lambda now: pressing(now) + [0, 0, _HOVER], rotation, CLOSED, hanging=FINGER_REACH, ignored=(name,)
    )
    scene = yield from reach(scene, pressing, rotation, CLOSED, tolerance=0.01, limit=20, speed=0.5)
    for _ in range(60):
        away = (goal - scene["objects"][name]["position"]) * [1, 1, 0]
        if np.linalg.norm(away) < _CLOSE:
            break
        there = scene["end_effector"]["position"] + away
        down = np.array([*there[:2], pressing(scene)[2] - _PRESS])
        scene = yield action(scene, down, rotation, fingers(scene, CLOSED), speed=0.5)
    above = scene["end_effector"]["position"] + [0, 0, 0.1]
    return (yield from reach(scene, lambda _: above, rotation, CLOSED, tolerance=0.03))
