"""Opening a door whose latch is turned by its handle: robosuite's Door."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from .geometry import Scene
from .motion import CLOSED, OPEN, Motion, action, fingers, reach, squeeze, turned

_OPENED = 0.32
"""Angle of the hinge at which the door counts as open, in radians; robosuite asks for 0.3, and 0.4 is its limit."""

_TURNED = 1.4
"""Angle of the latch that frees the door; it is free from about 1.2 on."""

_FORWARD, _OUT = 0.10, 0.115
"""Where the handle is gripped: metres from the door towards the hand, and from the axle along the handle."""

_STAND_OFF = 0.10
_WIDTH = 0.07
_LATCH_LEAD, _HINGE_LEAD = 0.45, 0.2
"""How far ahead of the joints, in radians, the hand is sent: this turns and pulls."""


@dataclass(frozen=True)
class Unlatch:
    """Turn a door's handle and pull the door open: the goal ("unlatch", target)."""

    target: str

    def done(self, scene: Scene) -> bool:
        """Say whether the door is open."""
        return bool(_joint(scene, self.target, "hinge")["position"] > _OPENED)

    def run(self, scene: Scene, attempt: int) -> Motion:
        """Return the motions of one attempt."""
        return open_latched(scene, self.target)


def open_latched(scene: Scene, name: str) -> Motion:
    """Take the handle of door ``name``, turn it as far as frees the door, pull, and let go."""
    position, rotation = handle_pose(scene, name, _joint(scene, name, "latch_joint")["position"], 0.0)
    before = position - _STAND_OFF * rotation[:, 2]
    scene = yield from reach(scene, lambda _: before, rotation, _WIDTH, tolerance=0.02, limit=60)
    scene = yield from reach(scene, lambda _: position, rotation, _WIDTH, limit=30, speed=0.5)
    scene = yield from squeeze(scene, CLOSED, rotation, limit=12, place=position)
    best, stuck = -np.inf, 0
    for _ in range(150):
        hinge, latch = (_joint(scene, name, joint)["position"] for joint in ("hinge", "latch_joint"))
        stuck = 0 if hinge + latch > best + 1e-3 else stuck + 1
        best = max(best, hinge + latch)
        if hinge > _OPENED or stuck > 20:
            break
        free = latch > _TURNED - 0.15 or hinge > 0.1
        ahead = min(_TURNED, latch + _LATCH_LEAD)
        target, rotation = handle_pose(scene, name, ahead, _HINGE_LEAD if free else 0.0)
        scene = yield action(scene, target, rotation, fingers(scene, CLOSED))
    rotation = scene["end_effector"]["rotation"]
    scene = yield from squeeze(scene, OPEN, rotation, limit=8)
    away = scene["end_effector"]["position"] - _STAND_OFF * rotation[:, 2]
    return (yield from reach(scene, lambda _: away, rotation, OPEN, tolerance=0.03, limit=20))


def handle_pose(scene: Scene, name: str, latch: float, swing: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the grip site's position (3,) and rotation (3, 3) at the handle of door ``name``.

    latch: angle of the latch there, in radians. swing: how much further than now the hinge is open there.
    The hand points at the door and its fingers hold the handle from above and below; it turns with the handle.
    """
    axle, hinge = _joint(scene, name, "latch_joint"), _joint(scene, name, "hinge")
    turn = Rotation.from_rotvec(latch * axle["axis"]).as_matrix()
    up = np.array([0.0, 0.0, 1.0])
    outward, across = turn @ np.cross(axle["axis"], up), turn @ up
    position = axle["anchor"] - _FORWARD * axle["axis"] + _OUT * outward
    swung = Rotation.from_rotvec(swing * hinge["axis"]).as_matrix()
    approach, across = swung @ axle["axis"], swung @ across
    rotations = [np.stack([side, np.cross(approach, side), approach], axis=1) for side in (across, -across)]
    rotation = min(rotations, key=lambda rotation: turned(scene, rotation))
    return hinge["anchor"] + swung @ (position - hinge["anchor"]), rotation


def _joint(scene: Scene, name: str, ending: str) -> Scene:
    joints = scene["objects"][name]["joints"]
    return next(joint for full, joint in joints.items() if full.endswith(ending))
