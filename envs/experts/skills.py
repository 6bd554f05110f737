"""Skills: from one goal predicate to the motions that make it true."""

from __future__ import annotations

import numpy as np

from .geometry import FINGER_REACH, HAND_HEIGHT, Scene, highest_near, surface, vertical_range, way_out
from .grasps import candidates
from .motion import CLOSED, OPEN, Motion, reach, squeeze, travel

_HAND_RADIUS = 0.11
_HOVER = 0.05


def resting_place(scene: Scene, name: str, target: str) -> np.ndarray:
    """Return where the body of object ``name`` will be, (3,), when it rests on or in the object or site ``target``."""
    if target in scene["sites"]:
        site = scene["sites"][target]
        center, owner = site["position"], site["parent"]
        height = surface(scene, owner, center) if owner else -np.inf
        height = max(height, center[2] - np.abs(site["rotation"] @ site["half_size"])[2])
    else:
        center = scene["objects"][target]["position"]
        height = surface(scene, target, center + [0, 0, 1])
    obj = scene["objects"][name]
    return np.array([*center[:2], height + obj["position"][2] - vertical_range(scene, name)[0]])


def is_placed(scene: Scene, name: str, target: str) -> bool:
    """Say whether object ``name`` is where ``resting_place`` wants it, to 2 cm."""
    away = scene["objects"][name]["position"] - resting_place(scene, name, target)
    return bool(np.linalg.norm(away[:2]) < 0.02 and abs(away[2]) < 0.03)


def place(scene: Scene, name: str, target: str, attempt: int) -> Motion:
    """Bring object ``name`` onto or into ``target``; ``attempt`` counts the failed ones and picks another grasp."""
    ways = candidates(scene, name, resting_place(scene, name, target))
    way = ways[attempt % len(ways)]
    rotation = way.rotation
    offset = way.position - scene["objects"][name]["position"]

    def grip(now: Scene) -> np.ndarray:
        return now["objects"][name]["position"] + offset

    scene = yield from travel(scene, lambda now: grip(now) + [0, 0, _HOVER], rotation, way.width, hanging=FINGER_REACH)
    scene = yield from reach(scene, lambda now: funnel(now, way.position), rotation, way.width, speed=0.5)
    scene = yield from squeeze(scene, CLOSED, rotation, limit=15)
    shift = way_out(scene, name)
    if shift.any():
        freed = scene["end_effector"]["position"] + shift
        scene = yield from reach(scene, lambda _: freed, rotation, CLOSED, limit=15, speed=0.4)
    held = scene["objects"][name]["position"] - scene["end_effector"]["position"]
    above = scene["end_effector"]["position"] + [0, 0, 0.06]
    scene = yield from reach(scene, lambda _: above, rotation, CLOSED, tolerance=0.03, speed=0.6)

    def carried(now: Scene) -> bool:
        """Say whether the object still hangs where it was gripped; it may swing a little."""
        return bool(np.linalg.norm(now["objects"][name]["position"] - now["end_effector"]["position"] - held) < 0.03)

    if not carried(scene):
        return (yield from retreat(scene, rotation))

    def over(now: Scene) -> np.ndarray:
        place = resting_place(now, name, target)
        return now["end_effector"]["position"] + place - now["objects"][name]["position"]

    hanging = scene["end_effector"]["position"][2] - vertical_range(scene, name)[0]
    scene = yield from travel(
        scene,
        lambda now: over(now) + [0, 0, 0.03],
        way.release,
        CLOSED,
        hanging=hanging,
        ignored=(name,),
        keep=carried,
    )
    if not carried(scene):
        return (yield from retreat(scene, way.release))

    def down(now: Scene) -> np.ndarray:
        goal = over(now)
        lowest = highest_near(now, goal, goal, _HAND_RADIUS, (name,)) - HAND_HEIGHT + 0.005
        return np.array([*goal[:2], max(goal[2], lowest)])

    scene = yield from reach(scene, down, way.release, CLOSED, tolerance=0.004, limit=30, speed=0.6)
    return (yield from retreat(scene, way.release))


def funnel(scene: Scene, position: np.ndarray) -> np.ndarray:
    """Return ``position``, raised while the hand is beside it, so that the fingers come down where they should."""
    beside = float(np.linalg.norm((position - scene["end_effector"]["position"])[:2]))
    return position + [0, 0, min(_HOVER, 4 * max(0.0, beside - 0.005))]


def retreat(scene: Scene, rotation: np.ndarray) -> Motion:
    """Let go and rise."""
    scene = yield from squeeze(scene, OPEN, rotation, limit=8)
    above = scene["end_effector"]["position"] + [0, 0, 0.1]
    return (yield from reach(scene, lambda _: above, rotation, OPEN, tolerance=0.03))
