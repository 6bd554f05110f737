"""Skills: the motions that make one goal predicate true."""

from __future__ import annotations

import numpy as np

from .geometry import FINGER_REACH, HAND_HEIGHT, Scene, highest_near, vertical_range, way_out
from .grasps import Candidate, candidates
from .insertion import FRONTS, insert
from .motion import CLOSED, OPEN, Motion, reach, squeeze, travel
from .places import resting_place
from .sliding import slide

SLID = {"plate"}
"""Categories that are too flat to be gripped from above: on the table they are slid."""

_HAND_RADIUS = 0.11
_HOVER = 0.05
_DROPS = (0.0, 0.04, 0.08)
"""Heights from which an object may fall into a drawer, whose cabinet is in the hand's way."""


def is_held(scene: Scene, name: str, way: Candidate) -> bool:
    """Say whether the object still hangs where ``way`` gripped it; it may slip or swing a little."""
    away = scene["objects"][name]["position"] - scene["end_effector"]["position"] - way.hanging
    return bool(np.linalg.norm(away) < 0.04)


def place(scene: Scene, name: str, target: str, inside: bool, attempt: int) -> Motion:
    """Bring object ``name`` onto or into ``target``; ``attempt`` counts the failed ones and picks another grasp."""
    site = scene["sites"].get(target)
    owner = site["parent"] if site else target
    if scene["objects"][name]["category"] in SLID and not owner:
        return (yield from slide(scene, name, target))
    if inside and owner and scene["objects"][owner]["category"] in FRONTS:
        return (yield from insert(scene, name, target))
    drops = _DROPS if _is_drawer(scene, target) else ()
    ways = candidates(scene, name, resting_place(scene, name, target), drops)
    way = ways[attempt % len(ways)]
    scene = yield from pick(scene, name, way)
    if is_held(scene, name, way):
        scene = yield from bring(scene, name, target, way)
    return (yield from retreat(scene, way.release))


def _is_drawer(scene: Scene, target: str) -> bool:
    return target in scene["sites"] and bool(scene["sites"][target]["joints"])


def pick(scene: Scene, name: str, way: Candidate) -> Motion:
    """Grip object ``name`` and lift it by 6 cm, from under whatever overhangs it."""

    def above(now: Scene) -> np.ndarray:
        return way.position + [0, 0, _HOVER]

    def funnel(now: Scene) -> np.ndarray:
        """The place to grip, raised while the hand is beside it, so that the fingers come down where they should."""
        beside = float(np.linalg.norm((way.position - now["end_effector"]["position"])[:2]))
        return way.position + [0, 0, min(_HOVER, 4 * max(0.0, beside - 0.005))]

    scene = yield from travel(scene, above, way.rotation, way.width, hanging=FINGER_REACH)
    scene = yield from reach(scene, funnel, way.rotation, way.width, speed=0.5)
    scene = yield from squeeze(scene, CLOSED, way.rotation, limit=15)
    shift = way_out(scene, name)
    if shift.any():
        freed = scene["end_effector"]["position"] + shift
        scene = yield from reach(scene, lambda _: freed, way.rotation, CLOSED, limit=15, speed=0.4)
    lifted = scene["end_effector"]["position"] + [0, 0, 0.06]
    return (yield from reach(scene, lambda _: lifted, way.rotation, CLOSED, tolerance=0.03, speed=0.6))


def bring(scene: Scene, name: str, target: str, way: Candidate) -> Motion:
    """Carry object ``name`` over its resting place and lower it, or stop when it is lost on the way."""

    def over(now: Scene) -> np.ndarray:
        """Where the hand must be for the object to be at its resting place, whatever its swing and slip."""
        return now["end_effector"]["position"] + resting_place(now, name, target) - now["objects"][name]["position"]

    def down(now: Scene) -> np.ndarray:
        """The same, but no lower than lets the hand stay above what stands around; the object falls the rest."""
        goal = over(now) + [0, 0, way.drop]
        if drawer:
            return goal
        lowest = highest_near(now, goal, goal, _HAND_RADIUS, (name,)) - HAND_HEIGHT + 0.005
        return np.array([*goal[:2], max(goal[2], lowest)])

    drawer = _is_drawer(scene, target)
    scene = yield from travel(
        scene,
        lambda now: over(now) + [0, 0, 0.03],
        way.release,
        CLOSED,
        hanging=scene["end_effector"]["position"][2] - vertical_range(scene, name)[0],
        ignored=(name,),
        keep=lambda now: is_held(now, name, way),
    )
    if not is_held(scene, name, way):
        return scene
    return (yield from reach(scene, down, way.release, CLOSED, tolerance=0.004, limit=30, speed=0.6))


def retreat(scene: Scene, rotation: np.ndarray) -> Motion:
    """Let go and rise."""
    scene = yield from squeeze(scene, OPEN, rotation, limit=8)
    above = scene["end_effector"]["position"] + [0, 0, 0.1]
    return (yield from reach(scene, lambda _: above, rotation, OPEN, tolerance=0.03))
