"""Moving joints by their handles: drawers, doors, knobs."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from .geometry import FINGER_REACH, Scene
from .handles import grip_for, grip_pose
from .motion import CLOSED, OPEN, Motion, action, fingers, reach, squeeze, travel

_STAND_OFF = 0.08
_RISE = 0.08
_PAST = 0.005
"""How far past its goal the joint is sent at the end: enough to overcome damping, too little to swing far."""
_LEAD = {"slide": 0.05, "hinge": 0.35}
"""How far ahead of the joint, in metres or radians, the hand is sent: this pulls."""


def operate(scene: Scene, name: str, joint: str, goal: float) -> Motion:
    """Take the handle of ``joint`` of object ``name``, move the joint to position ``goal`` or past it, and let go.

    Raises UserError for a joint without a handle to move it that way.
    """
    obj = scene["objects"][name]
    start = obj["joints"][joint]["position"]
    way = np.sign(goal - start)
    grip = grip_for(scene, name, joint, increase=bool(way > 0))
    position, rotation = grip_pose(scene, name, joint, grip, start)
    before = position - _STAND_OFF * rotation[:, 2]
    width = CLOSED if grip.width is None else grip.width

    scene = yield from travel(scene, lambda _: before, rotation, width, hanging=FINGER_REACH)
    scene = yield from reach(scene, lambda _: position, rotation, width, limit=30, speed=0.6)
    if grip.width is not None:
        scene = yield from squeeze(scene, CLOSED, rotation, limit=12, place=position)
    lead = _LEAD[obj["joints"][joint]["kind"]]
    best, stuck = start, 0
    for _ in range(100):
        now = scene["objects"][name]["joints"][joint]["position"]
        stuck = 0 if way * (now - best) > 1e-4 else stuck + 1
        best = max(best, now) if way > 0 else min(best, now)
        if way * (now - goal) > 0 or stuck > 15:
            break
        ahead = way * min(lead, way * (goal - now) + _PAST)
        target, turned = grip_pose(scene, name, joint, grip, now + ahead)
        scene = yield action(scene, target, turned, fingers(scene, CLOSED))
    rotation = scene["end_effector"]["rotation"]
    if grip.width is not None:
        scene = yield from squeeze(scene, OPEN, rotation, limit=6)
    away = scene["end_effector"]["position"] - _STAND_OFF * rotation[:, 2]
    scene = yield from reach(scene, lambda _: away, rotation, OPEN, tolerance=0.03, limit=15)
    above = scene["end_effector"]["position"] + [0, 0, _RISE]
    return (yield from reach(scene, lambda _: above, _upright(rotation), OPEN, tolerance=0.05, limit=25))


def _upright(rotation: np.ndarray) -> np.ndarray:
    """Return ``rotation`` turned about a horizontal axis until the hand points down.

    Turning on from a leaning hand to any other grasp at once may take the wrist through a singularity.
    """
    tilt = np.cross(rotation[:, 2], [0, 0, -1])
    angle = np.arctan2(np.linalg.norm(tilt), -rotation[2, 2])
    return Rotation.from_rotvec(angle * tilt / max(float(np.linalg.norm(tilt)), 1e-9)).as_matrix() @ rotation
