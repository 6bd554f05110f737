"""Closed-loop motions of the end effector, as generators: each yields an action and is sent the scene that follows.

Actions are robosuite's OSC_POSE deltas, (7,) float32 in [-1, 1]: 0.05 m and 0.5 rad per 1.0 in world axes, then the
gripper (-1 opens, +1 closes, 0 holds), at 20 Hz. The controller moves at most about 0.3 m/s.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator

import numpy as np
from scipy.spatial.transform import Rotation

from .geometry import Scene, highest_near

Motion = Generator[np.ndarray, Scene, Scene]
Goal = Callable[[Scene], np.ndarray]

OPEN, CLOSED = 0.1, -0.1
"""Widths, in metres, beyond what the fingers can do: open and close with all force."""

_METRES, _RADIANS = 0.05, 0.5
_GAIN = 2.5
_MARGIN = 0.02
_GRIPPER_RADIUS = 0.06
_APART = np.array([1.0, -1.0])  # finger joints -> distance between the pads
_LAG = 0.1  # seconds the fingers go on moving after the command holds them


def action(scene: Scene, position: np.ndarray, rotation: np.ndarray, gripper: float, speed: float = 1.0) -> np.ndarray:
    """Return the action towards a pose of the grip site, no faster than ``speed`` (1.0 is the controller's most)."""
    hand = scene["end_effector"]
    move = _GAIN * (position - hand["position"]) / _METRES
    turn = _GAIN * Rotation.from_matrix(rotation @ hand["rotation"].T).as_rotvec() / _RADIANS
    move *= min(1.0, speed / max(np.abs(move).max(), 1e-9))
    turn *= min(1.0, 1.0 / max(np.abs(turn).max(), 1e-9))
    return np.concatenate([move, turn, [gripper]]).astype(np.float32)


def fingers(scene: Scene, width: float) -> float:
    """Return the gripper entry that brings the fingers to ``width`` metres apart and holds them there."""
    excess = float(scene["gripper_qpos"] @ _APART + _LAG * scene["gripper_qvel"] @ _APART) - width
    return 0.0 if abs(excess) < 0.005 else float(np.sign(excess))


def turned(scene: Scene, rotation: np.ndarray) -> float:
    """Return the angle, in radians, between the hand and ``rotation``."""
    return float(Rotation.from_matrix(rotation @ scene["end_effector"]["rotation"].T).magnitude())


def reach(
    scene: Scene,
    goal: Goal,
    rotation: np.ndarray,
    width: float,
    *,
    tolerance: float = 0.006,
    limit: int = 40,
    speed: float = 1.0,
) -> Motion:
    """Move straight to ``goal(scene)`` until within ``tolerance`` metres of it and at rest; at most ``limit`` steps.

    At rest means slower than a quarter of ``tolerance`` a step: a stretched arm swings past its goal and back.
    """
    before = np.full(3, np.inf)
    for _ in range(limit):
        target, here = goal(scene), scene["end_effector"]["position"]
        settled = np.linalg.norm(here - before) < tolerance / 4
        if settled and np.linalg.norm(target - here) < tolerance and turned(scene, rotation) < 0.1:
            break
        before = here
        scene = yield action(scene, target, rotation, fingers(scene, width), speed)
    return scene


def travel(
    scene: Scene,
    goal: Goal,
    rotation: np.ndarray,
    width: float,
    *,
    hanging: float,
    ignored: Collection[str] = (),
    keep: Callable[[Scene], bool] = lambda _: True,
    limit: int = 90,
) -> Motion:
    """Rise above whatever lies between, cross over it, and end above or at ``goal(scene)``.

    hanging: how far the fingers or what they carry reach below the grip site. ignored: objects that are no obstacle.
    keep: the journey ends early when this is no longer so.
    """
    for _ in range(limit):
        here, target = scene["end_effector"]["position"], goal(scene)
        away = float(np.linalg.norm((target - here)[:2]))
        if not keep(scene) or (away < 0.012 and turned(scene, rotation) < 0.08):
            break
        lowest = highest_near(scene, here, target, _GRIPPER_RADIUS, ignored) + hanging + _MARGIN
        height = max(target[2], lowest)
        ready = np.clip(1 - (lowest - here[2]) / 0.03, 0, 1)  # sideways only as far as the height allows
        waypoint = np.array([*(here + ready * (target - here))[:2], height])
        scene = yield action(scene, waypoint, rotation, fingers(scene, width))
    return scene


def squeeze(scene: Scene, width: float, rotation: np.ndarray, *, limit: int, place: np.ndarray | None = None) -> Motion:
    """Open or close the fingers until they stop moving, for at most ``limit`` steps, at ``place`` or where they are."""
    place = scene["end_effector"]["position"] if place is None else place
    before, still = np.inf, 0
    for step in range(limit):
        scene = yield action(scene, place, rotation, fingers(scene, width))
        now = float(scene["gripper_qpos"] @ _APART)
        still = still + 1 if step >= 3 and abs(now - before) < 5e-4 else 0
        if still == 2:
            break
        before = now
    return scene
