"""How objects are grasped from above: data about categories, and the poses that follow from an object's shape."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .geometry import (
    FINGER_REACH,
    OPEN_WIDTH,
    Scene,
    boxes,
    clearance,
    gripper_points,
    leaning,
    stretch,
    vertical_range,
)


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


GRASPS: dict[str, Rim | Sides] = {
    "akita_black_bowl": Rim(inset=0.004, depth=0.017),
    "alphabet_soup": Sides(round=True),
    "tomato_sauce": Sides(round=True),
}
"""Category -> grasp; categories that are not listed are held by their sides."""


@dataclass(frozen=True)
class Candidate:
    """One way to grasp.

    position (3,), rotation (3, 3): pose of the grip site. release: its rotation where the object is put down.
    hanging (3,): from the grip site to the object's body. width: opening between the fingers on the way down.
    score: how good the grasp is; only differences count.
    """

    position: np.ndarray
    rotation: np.ndarray
    release: np.ndarray
    hanging: np.ndarray
    width: float
    score: float


def candidates(scene: Scene, name: str, destination: np.ndarray) -> list[Candidate]:
    """Return the grasps of an object, best first.

    The best ones leave the open gripper room beside everything else, both where the object is and at ``destination``
    (where its body will be put down), turn the hand little and stretch the arm little. A gripper that is only half
    open goes where an open one has no room.
    """
    obj = scene["objects"][name]
    grasp = GRASPS.get(obj["category"], Sides())
    low, high = vertical_range(scene, name)
    poses = _around_rim(obj, grasp) if isinstance(grasp, Rim) else _across(obj, grasp, high)
    others = boxes(scene, ignored=(name,))
    carried = destination - obj["position"]
    found = []
    for place, yaw in poses:
        yaw = (yaw + np.pi / 2) % np.pi - np.pi / 2  # the fingers are alike, so half a turn changes nothing
        position = np.array([*place[:2], max(place[2], low + FINGER_REACH + 0.003)])
        rotation, release = leaning(scene, yaw, position), leaning(scene, yaw, position + carried)
        strain = 5 * max(0.0, stretch(scene, position, rotation) - 0.6)
        for width in grasp.widths:
            points = gripper_points(width)
            room = min(
                clearance(others, position + points @ rotation.T),
                clearance(others, position + carried + points @ release.T),
            )
            score = 50 * min(room, 0.015) - 0.3 * abs(yaw) - strain
            found.append(Candidate(position, rotation, release, obj["position"] - position, width, score))
            if room > 0.01:
                break
    return sorted(found, key=lambda candidate: -candidate.score)


def _around_rim(obj: Scene, grasp: Rim) -> list[tuple[np.ndarray, float]]:
    """Return (position, yaw) at 24 places around the wall, tilted as it is; the fingers move along the radius."""
    low, high = obj["bounds"]
    radius = float(np.mean((high - low)[:2])) / 2 - grasp.inset
    poses = []
    for angle in np.arange(24) * (2 * np.pi / 24):
        outward = np.array([np.cos(angle), np.sin(angle), 0.0])
        place = np.array([*(low + high)[:2] / 2, high[2] - grasp.depth]) + radius * outward
        x, y = (obj["rotation"] @ outward)[:2]
        poses.append((obj["position"] + obj["rotation"] @ place, float(np.arctan2(y, x)) - np.pi / 2))
    return poses


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
