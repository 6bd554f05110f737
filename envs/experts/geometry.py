"""What the experts measure in a scene (``envs.libero.scene``): heights, surfaces, and room for the gripper.

Lengths are metres in the world frame, z up. Boxes are the collision boxes of a scene's objects.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

Scene = Mapping[str, Any]

FINGER_REACH = 0.010
"""How far the fingertips reach below the grip site when the hand points down."""

HAND_HEIGHT = 0.031
"""How far the underside of the hand lies above the grip site."""

OPEN_WIDTH = 0.078
"""Distance between the finger pads when the gripper is open."""

# The Panda's arm as two links in a vertical plane: shoulder (joint 2), elbow (joint 4), wrist (joint 6). The elbow lies
# 0.0825 m beside both links. The shoulder is given from the robot's base, the wrist in the grip site's frame.
_SHOULDER = np.array([0.0, 0.0, 0.333])
_WRIST = np.array([0.0, -0.088, -0.2035])
_UPPER_ARM, _FOREARM = np.hypot(0.316, 0.0825), np.hypot(0.384, 0.0825)
_ELBOW_OFFSET = np.arctan2(0.0825, 0.384)

_REACH = 0.67
"""Farthest the wrist may be from the shoulder: the arm is straight at 0.719, and weak shortly before."""

_LIFT = 0.08
"""How far above a place the hand must still be able to stand."""

_WRIST_BEND = 0.35
"""Least angle, in radians, between forearm and hand: at zero the axes of joints 5 and 7 fall together."""


def facing_down(yaw: float) -> np.ndarray:
    """Return the grip site's (3, 3) rotation with the hand pointing down and the fingers moving along world y + yaw.

    The site's x lies along the fingers' motion, its z points out of the hand.
    """
    cos, sin = np.cos(yaw), np.sin(yaw)
    return np.array([[-sin, cos, 0.0], [cos, sin, 0.0], [0.0, 0.0, -1.0]])


def leaning(scene: Scene, yaw: float, position: np.ndarray) -> np.ndarray:
    """Return a rotation like ``facing_down(yaw)``, leaning as little as lets the arm hold ``position`` well.

    Far away the hand leans out, so that the wrist stays nearer to the robot and the arm bent; close by it leans in, so
    that hand and forearm don't align. Stretched or aligned, the controller no longer moves the hand where it should.
    """
    shoulder = scene["robot_base"] + _SHOULDER
    away = (position - shoulder)[:2] / np.linalg.norm((position - shoulder)[:2])
    axis = np.array([away[1], -away[0], 0.0])
    for lean in sorted(np.linspace(-0.7, 0.7, 29), key=abs):
        rotation = Rotation.from_rotvec(lean * axis).as_matrix() @ facing_down(yaw)
        wrist = position + rotation @ _WRIST - shoulder
        bend = _wrist_bend(float(np.linalg.norm(wrist[:2])), wrist[2], lean)
        if bend > _WRIST_BEND and stretch(scene, position + [0, 0, _LIFT], rotation) < _REACH:
            return rotation
    return facing_down(yaw)


def stretch(scene: Scene, position: np.ndarray, rotation: np.ndarray) -> float:
    """Return the distance from shoulder to wrist when the grip site has the given pose."""
    return float(np.linalg.norm(position + rotation @ _WRIST - scene["robot_base"] - _SHOULDER))


def _wrist_bend(out: float, up: float, lean: float) -> float:
    """Return the angle between forearm and hand for a wrist ``out`` and ``up`` from the shoulder; pi less joint 6."""
    distance = np.hypot(out, up)
    cosine = (_UPPER_ARM**2 + distance**2 - _FOREARM**2) / (2 * _UPPER_ARM * distance)
    raised = np.arctan2(up, out) + np.arccos(np.clip(cosine, -1, 1))
    forearm = np.arctan2(up - _UPPER_ARM * np.sin(raised), out - _UPPER_ARM * np.cos(raised)) - _ELBOW_OFFSET
    return float(forearm - (lean - np.pi / 2))


def gripper_points(width: float) -> np.ndarray:
    """Return (n, 3) points all over the gripper opened to ``width``, in the grip site's frame.

    Measured on the collision meshes of robosuite's panda_gripper.xml: fingertips, fingers, hand, wrist.
    """
    half = width / 2
    return np.concatenate(
        [_filled((side * half, -0.010, -0.008), (side * (half + 0.017), 0.010, 0.010), (3, 3, 3)) for side in (-1, 1)]
        + [
            _filled((side * half, -0.010, -0.044), (side * (half + 0.026), 0.010, -0.008), (3, 3, 4))
            for side in (-1, 1)
        ]
        + [
            _filled((-0.104, -0.032, -0.123), (0.104, 0.032, -0.031), (9, 3, 3)),
            _filled((-0.056, -0.056, -0.230), (0.056, 0.056, -0.150), (3, 3, 2)),
        ]
    )


def _filled(low: tuple[float, ...], high: tuple[float, ...], counts: tuple[int, ...]) -> np.ndarray:
    """Return (n, 3) points in a regular grid from corner to corner."""
    axes = [np.linspace(a, b, n) for a, b, n in zip(low, high, counts, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)


def boxes(scene: Scene, ignored: Collection[str] = ()) -> dict[str, np.ndarray]:
    """Return center (n, 3), axes (n, 3, 3), half_size (n, 3) of all objects' boxes, but for the ``ignored`` objects."""
    chosen = [obj["boxes"] for name, obj in scene["objects"].items() if name not in ignored]
    return {key: np.concatenate([each[key] for each in chosen]) for key in ("center", "axes", "half_size")}


def corners(shapes: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and upper corners, (n, 3) each, of the upright boxes around ``shapes``."""
    reach = (np.abs(shapes["axes"]) @ shapes["half_size"][:, :, None])[:, :, 0]
    return shapes["center"] - reach, shapes["center"] + reach


def vertical_range(scene: Scene, name: str) -> tuple[float, float]:
    """Return the heights of an object's lowest and highest point."""
    low, high = corners(scene["objects"][name]["boxes"])
    return float(low[:, 2].min()), float(high[:, 2].max())


def highest_near(scene: Scene, start: np.ndarray, end: np.ndarray, radius: float, ignored: Collection[str]) -> float:
    """Return the height of the tallest thing within ``radius`` of the horizontal line ``start`` - ``end``, or -inf."""
    low, high = corners(boxes(scene, ignored))
    count = max(2, int(np.linalg.norm(end[:2] - start[:2]) / 0.02))
    points = start[:2] + np.linspace(0, 1, count)[:, None, None] * (end[:2] - start[:2])
    apart = np.linalg.norm(np.maximum(0, np.maximum(low[:, :2] - points, points - high[:, :2])), axis=-1)
    near = (apart < radius).any(axis=0)
    return float(high[near, 2].max()) if near.any() else -np.inf


def surface(scene: Scene, name: str, at: np.ndarray) -> float:
    """Return the height of the object's highest surface under the point ``at`` (3,), or -inf."""
    low, high = corners(scene["objects"][name]["boxes"])
    under = ((low[:, :2] <= at[:2]) & (at[:2] <= high[:, :2])).all(axis=1) & (high[:, 2] <= at[2])
    return float(high[under, 2].max()) if under.any() else -np.inf


def clearance(shapes: Mapping[str, np.ndarray], points: np.ndarray) -> float:
    """Return the distance between ``points`` (n, 3) and the nearest of ``shapes``; negative when one is inside."""
    middle = points.mean(axis=0)
    reach = np.linalg.norm(points - middle, axis=1).max() + np.linalg.norm(shapes["half_size"], axis=1) + 0.02
    near = np.linalg.norm(shapes["center"] - middle, axis=1) < reach
    if not near.any():
        return 0.02
    local = np.abs((points[None] - shapes["center"][near][:, None]) @ shapes["axes"][near])
    beyond = local - shapes["half_size"][near][:, None]
    outside = np.sqrt(np.square(np.maximum(beyond, 0)).sum(axis=-1))
    return float((outside + np.minimum(beyond.max(axis=-1), 0)).min())


def crowding(shapes: Mapping[str, np.ndarray], points: np.ndarray, margin: float = 0.008) -> float:
    """Return the share of ``points`` (n, 3) that lie less than ``margin`` from one of ``shapes``, or inside."""
    local = np.abs((points[None] - shapes["center"][:, None]) @ shapes["axes"])
    return float((local < shapes["half_size"][:, None] + margin).all(axis=-1).any(axis=0).mean())


def way_out(scene: Scene, name: str) -> np.ndarray:
    """Return the shortest level shift, (3,), after which nothing overhangs the object; zero if nothing does now.

    Something overhangs when it is wholly above the object and less than 1 cm beside it, seen from above.
    """
    shapes = scene["objects"][name]["boxes"]
    signs = np.stack(np.meshgrid(*[(-1, 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 1, 3)
    outline = shapes["center"] + ((signs * shapes["half_size"])[..., None, :] * shapes["axes"]).sum(axis=-1)
    outline = outline.reshape(-1, 3)
    others = boxes(scene, ignored=(name,))
    above = corners(others)[0][:, 2] > outline[:, 2].max() - 0.01
    center, axes, half = others["center"][above], others["axes"][above], others["half_size"][above]
    for length in np.arange(0.0, 0.06, 0.005):
        for angle in np.arange(16) * (np.pi / 8):
            shift = length * np.array([np.cos(angle), np.sin(angle), 0.0])
            away = (outline + shift - center[:, None]) * [1, 1, 0]
            if not (np.abs(away @ axes) < half[:, None] + 0.01).all(axis=-1).any():
                return shift
    return np.zeros(3)
