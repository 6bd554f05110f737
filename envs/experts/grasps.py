"""How objects are grasped from above: data about categories, and the poses that follow from an object's shape."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.spatial.transform import Rotation

from .geometry import (
    FINGER_REACH,
    OPEN_WIDTH,
    Scene,
    boxes,
    clearance,
    corners,
    crowding,
    gripper_points,
    leaning,
    stretch,
    vertical_range,
)

_WAY_DOWN = (0.0, 0.06, 0.12)
"""Heights, in metres, at which the hand is checked on its way down to a grasp beside an open drawer."""

_SIDEWAYS = (0.0, 0.35, -0.35)
"""Angles about the fingers' axis, in radians, by which the hand may lean away from an open drawer."""

_RIM_HEIGHT = 0.01
"""Boxes that end less than this below the rim are part of it; handles end lower."""


@dataclass(frozen=True)
class Rim:
    """An open vessel, held by its wall: one finger inside, one outside.

    inset: from the outermost point of the wall to its middle at the height of the grasp. depth: below the rim.
    widths: openings of the gripper that fit around the wall, widest first.
    """

    inset: float
    depth: float
    widths: tuple[float, ...] = (OPEN_WIDTH, 0.04)


@dataclass(frozen=True)
class Sides:
    """A closed body held between two opposite sides. depth: below the top. round: from any direction."""

    depth: float = 0.025
    round: bool = False
    widths: tuple[float, ...] = (OPEN_WIDTH,)


@dataclass(frozen=True)
class Knob:
    """What sticks out at the top of a body, held between its narrow sides. depth: below the top."""

    depth: float = 0.007
    widths: tuple[float, ...] = (0.04,)


GRASPS: dict[str, Rim | Sides | Knob] = {
    "akita_black_bowl": Rim(inset=0.004, depth=0.017),
    "porcelain_mug": Rim(inset=0.006, depth=0.017),
    "red_coffee_mug": Rim(inset=0.006, depth=0.017),
    "white_yellow_mug": Rim(inset=0.006, depth=0.017),
    "moka_pot": Knob(),
    "alphabet_soup": Sides(round=True),
    "tomato_sauce": Sides(round=True),
    "can": Sides(round=True),
}
"""Category -> grasp; categories that are not listed are held by their sides."""


@dataclass(frozen=True)
class Candidate:
    """One way to grasp.

    position (3,), rotation (3, 3): pose of the grip site. release: its rotation where the object is put down.
    hanging (3,): from the grip site to the object's body. width: opening between the fingers on the way down.
    score: how good the grasp is; only differences count. drop: how far above its place the object is let go, metres.
    """

    position: np.ndarray
    rotation: np.ndarray
    release: np.ndarray
    hanging: np.ndarray
    width: float
    score: float
    drop: float = 0.0


def candidates(scene: Scene, name: str, destination: np.ndarray, drops: tuple[float, ...] = ()) -> list[Candidate]:
    """Return the grasps of an object, best first.

    drops: heights above ``destination`` from which the object may fall; for places where the hand never has all the
    room it wants, so that what counts is how much of it is in the way.

    The best ones leave the open gripper room beside everything else, both where the object is and at ``destination``
    (where its body will be put down), turn the hand little and stretch the arm little. A gripper that is only half
    open goes where an open one has no room.
    """
    obj = scene["objects"][name]
    grasp = GRASPS.get(obj["category"], Sides())
    low, high = vertical_range(scene, name)
    others = boxes(scene, ignored=(name,))
    if isinstance(grasp, Rim):
        wall = _wall(obj, grasp)
        poses = _around_rim(obj, wall)
        others = {key: np.concatenate([others[key], obj["boxes"][key][wall.beside]]) for key in others}
    elif isinstance(grasp, Knob):
        poses = _on_top(obj, grasp)
    else:
        poses = _across(obj, grasp, high)
    carried = destination - obj["position"]
    points = {width: gripper_points(width) for width in grasp.widths}
    found = []
    for place, yaw in poses:
        yaw = (yaw + np.pi / 2) % np.pi - np.pi / 2  # the fingers are alike, so half a turn changes nothing
        position = np.array([*place[:2], max(place[2], low + FINGER_REACH + 0.003)])
        upright, over = leaning(scene, yaw, position), leaning(scene, yaw, position + carried)
        strain = 5 * max(0.0, stretch(scene, position, upright) - 0.6)
        for width, lean in product(grasp.widths, _SIDEWAYS if drops else _SIDEWAYS[:1]):
            rotation, release = (Rotation.from_rotvec(lean * pose[:, 0]).as_matrix() @ pose for pose in (upright, over))
            here, there = position + points[width] @ rotation.T, position + carried + points[width] @ release.T
            room, drop, crowded = clearance(others, here), 0.0, 0.0
            if drops:
                crowded, drop = min((crowding(others, there + [0, 0, each]) + each, each) for each in drops)
                crowded += sum(crowding(others, here + [0, 0, height], 0.004) for height in _WAY_DOWN)
            else:
                room = min(room, clearance(others, there))
            score = 50 * min(room, 0.015) - 5 * crowded - 0.3 * (abs(yaw) + abs(lean)) - strain
            found.append(Candidate(position, rotation, release, obj["position"] - position, width, score, drop))
            if room > 0.01:
                break
    return sorted(found, key=lambda candidate: -candidate.score)


@dataclass(frozen=True)
class _Wall:
    """The wall of an open vessel. center (3,): the middle of the circle where it is gripped. radius: to its middle.

    beside (n,): which boxes of the object lie outside the wall: a handle.
    """

    center: np.ndarray
    radius: float
    beside: np.ndarray


def _wall(obj: Scene, grasp: Rim) -> _Wall:
    """Return the wall in the frame of the object's body, measured on the boxes that reach up to the rim."""
    center = (obj["boxes"]["center"] - obj["position"]) @ obj["rotation"]
    axes = obj["rotation"].T @ obj["boxes"]["axes"]
    reach = (np.abs(axes) @ obj["boxes"]["half_size"][:, :, None])[:, :, 0]
    top = (center + reach)[:, 2].max()
    rim = (center + reach)[:, 2] > top - _RIM_HEIGHT
    low, high = (center - reach)[rim].min(axis=0), (center + reach)[rim].max(axis=0)
    middle = (low + high) / 2
    radius = float(np.mean((high - low)[:2])) / 2 - grasp.inset
    beside = np.linalg.norm((center - middle)[:, :2], axis=1) > radius + 0.01
    return _Wall(np.array([*middle[:2], top - grasp.depth]), radius, beside)


def outer_handle(vessel: Scene) -> np.ndarray:
    """Return the middle, (3,), of the part of a vessel's handle that is farthest from the vessel, in the world."""
    grasp = GRASPS[vessel["category"]]
    assert isinstance(grasp, Rim)
    wall = _wall(vessel, grasp)
    middle = vessel["position"] + vessel["rotation"] @ wall.center
    away = np.linalg.norm((vessel["boxes"]["center"] - middle)[:, :2], axis=1)
    return vessel["boxes"]["center"][int(np.argmax(np.where(wall.beside, away, 0.0)))].copy()


def _around_rim(obj: Scene, wall: _Wall) -> list[tuple[np.ndarray, float]]:
    """Return (position, yaw) at 24 places around the wall, tilted as it is; the fingers move along the radius."""
    poses = []
    for angle in np.arange(24) * (2 * np.pi / 24):
        outward = np.array([np.cos(angle), np.sin(angle), 0.0])
        x, y = (obj["rotation"] @ outward)[:2]
        position = obj["position"] + obj["rotation"] @ (wall.center + wall.radius * outward)
        poses.append((position, float(np.arctan2(y, x)) - np.pi / 2))
    return poses


def _on_top(obj: Scene, grasp: Knob) -> list[tuple[np.ndarray, float]]:
    """Return (position, yaw) at the highest box, the fingers moving along its narrower horizontal side."""
    high = corners(obj["boxes"])[1]
    top = int(np.argmax(high[:, 2]))
    center, axes, half = (obj["boxes"][key][top] for key in ("center", "axes", "half_size"))
    sides = [axis for axis in range(3) if axis != int(np.argmax(np.abs(axes[2])))]
    x, y = axes[:2, min(sides, key=lambda axis: half[axis])]
    return [(np.array([*center[:2], high[top, 2] - grasp.depth]), float(np.arctan2(y, x)) - np.pi / 2)]


def _across(obj: Scene, grasp: Sides, top: float) -> list[tuple[np.ndarray, float]]:
    """Return (position, yaw) below the ``top``, the fingers moving along the narrow horizontal sides.

    Where other things are in the hand's way, it helps to grip off the middle, or twisted: the fingers then turn the
    object between them.
    """
    middle = obj["position"] + obj["rotation"] @ obj["bounds"].mean(axis=0)
    middle[2] = top - grasp.depth
    if grasp.round:
        return [(middle, angle) for angle in np.arange(12) * (np.pi / 12)]
    width = obj["bounds"][1] - obj["bounds"][0]
    upright = int(np.argmax(np.abs(obj["rotation"][2])))
    sides = [axis for axis in range(3) if axis != upright]
    room = OPEN_WIDTH - 0.004
    poses = []
    for axis in [axis for axis in sides if width[axis] < room] or [min(sides, key=lambda axis: width[axis])]:
        other = sides[1 - sides.index(axis)]
        x, y = obj["rotation"][:2, axis]
        twists = [t for t in (0.0, 0.3, -0.3, 0.6, -0.6) if t == 0 or abs(t) * width[other] / 2 + width[axis] < room]
        for offset in (0.0, 0.25, -0.25):
            place = middle + offset * width[other] * obj["rotation"][:, other] * [1, 1, 0]
            poses += [(place, float(np.arctan2(y, x)) - np.pi / 2 + twist) for twist in twists]
    return poses
