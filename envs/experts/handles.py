"""Handles as data: where drawers, doors and knobs are taken or pushed, and which joint that moves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from vla_harness.errors import UserError

from .geometry import Scene
from .insertion import FRONTS

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Grip:
    """One way to move a joint, in the frame of the object's body with the joint at zero.

    point: where the middle between the fingertips goes, metres. approach: the way the hand points, unit length.
    fingers: the way they close, unit length. width: opening on the way there; None closes the gripper and pushes.
    """

    point: Vector
    approach: Vector
    fingers: Vector
    width: float | None = None


@dataclass(frozen=True)
class Handle:
    """What moves one joint. increase, decrease: the way to move it towards greater and smaller positions, if any."""

    increase: Grip | None
    decrease: Grip | None


def _tilted(degrees: float) -> tuple[Vector, Vector]:
    """Return a hand that leans ``degrees`` from pointing down to pointing along y, and the fingers' way across it."""
    cos, sin = float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees)))
    return (0.0, sin, -cos), (0.0, cos, sin)


def _drawer(x: float, y: float, z: float) -> Handle:
    """A drawer that closes along y with a bar along x as its handle: gripped to open, pushed to close."""
    pull, across = _tilted(75)
    push, _ = _tilted(45)
    return Handle(
        increase=Grip((x, y - 0.016, z), push, (1.0, 0.0, 0.0)), decrease=Grip((x, y + 0.004, z), pull, across, 0.045)
    )


_CABINET = {
    "top_level": _drawer(-0.002, -0.102, 0.184),
    "middle_level": _drawer(-0.002, -0.102, 0.110),
    "bottom_level": _drawer(-0.002, -0.102, 0.041),
}
_KNOB = Grip((0.018, 0.0, 0.036), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0), 0.07)
_DOOR = Grip((0.018, -0.127, 0.165), (0.0, 0.0, -1.0), (-1.0, 0.0, 0.0))

HANDLES: dict[str, dict[str, Handle]] = {
    "wooden_cabinet": _CABINET,
    "white_cabinet": _CABINET,
    "microwave": {"microjoint": Handle(increase=_DOOR, decrease=None)},
    "flat_stove": {"button": Handle(increase=_KNOB, decrease=_KNOB)},
}
"""Category -> joint's name within the object -> handle. Measured on the collision shapes of the benchmark's assets."""


def joint_of(scene: Scene, target: str) -> tuple[str, str]:
    """Return the object and the joint, by their names in the scene, that open, close or switch ``target``.

    target: an object with one joint, or a region that one joint moves. Raises UserError for an object without joints.
    """
    if target in scene["sites"]:
        site = scene["sites"][target]
        return site["parent"], site["joints"][0]
    joints = scene["objects"][target]["joints"]
    if not joints:
        raise UserError(f"The policy 'scripted' finds nothing that moves in {target!r}: choose another task.")
    return target, next(iter(joints))


def grip_for(scene: Scene, name: str, joint: str, increase: bool) -> Grip:
    """Return how to move ``joint`` of object ``name`` to greater or smaller positions; raises UserError if unknown."""
    handle = HANDLES.get(scene["objects"][name]["category"], {}).get(joint.removeprefix(f"{name}_"))
    grip = None if handle is None else handle.increase if increase else handle.decrease
    if grip is None:
        way = "forward" if increase else "back"
        raise UserError(f"The policy 'scripted' knows no handle that moves {joint!r} {way}: choose another task.")
    return grip


def opening_of(scene: Scene, region: str) -> str | None:
    """Return what opens and closes the way into ``region``: the region itself if a joint moves it, or its object."""
    site = scene["sites"].get(region)
    if site is None or not site["parent"]:
        return None
    if site["joints"]:
        return region
    return site["parent"] if scene["objects"][site["parent"]]["category"] in FRONTS else None


def grip_pose(scene: Scene, name: str, joint: str, grip: Grip, position: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the grip site's position (3,) and rotation (3, 3) when the joint of object ``name`` is at ``position``.

    position: metres or radians.
    """
    obj = scene["objects"][name]
    state = obj["joints"][joint]
    approach, fingers = obj["rotation"] @ grip.approach, obj["rotation"] @ grip.fingers
    if np.cross(approach, fingers)[0] < -1e-6:  # the fingers are alike: keep the last joint near its middle
        fingers = -fingers
    rotation = np.stack([fingers, np.cross(approach, fingers), approach], axis=1)
    point = obj["position"] + obj["rotation"] @ grip.point
    if state["kind"] == "slide":
        return point + position * state["axis"], rotation
    turn = Rotation.from_rotvec(position * state["axis"]).as_matrix()
    return state["anchor"] + turn @ (point - state["anchor"]), turn @ rotation
