"""Where an object should come to rest: on another object, in a container, or at a free spot of a region."""

from __future__ import annotations

import numpy as np

from .geometry import Scene, boxes, corners, surface, vertical_range

_FLAT = 0.01
"""Regions whose half height is less are surfaces, where one can choose a spot; others are containers."""

_GAP = 0.012
"""Room beside an object that is put down."""


def resting_place(scene: Scene, name: str, target: str) -> np.ndarray:
    """Return where the body of object ``name`` will be, (3,), when it rests on or in the object or site ``target``."""
    obj = scene["objects"][name]
    if target in scene["sites"]:
        site = scene["sites"][target]
        half_height = np.abs(site["rotation"] @ site["half_size"])[2]
        shift = _spot(scene, name, target) if half_height < _FLAT else _open_part(scene, target)
        center = site["position"] + shift
        below = surface(scene, site["parent"], center) if site["parent"] else _floor(scene)
        height = max(below, site["position"][2] - half_height)
    else:
        center = scene["objects"][target]["position"]
        height = surface(scene, target, center + [0, 0, 1])
    return np.array([*center[:2], height + obj["position"][2] - vertical_range(scene, name)[0]])


def _open_part(scene: Scene, region: str) -> np.ndarray:
    """Return the shift (3,) from the middle of a container to the middle of the part that nothing covers.

    A drawer is covered as far as it isn't pulled out, and by a few millimetres of its cabinet's front.
    """
    site = scene["sites"][region]
    if not site["joints"]:
        return np.zeros(3)
    joint = scene["objects"][site["parent"]]["joints"][site["joints"][0]]
    length = 2 * float(np.abs(joint["axis"] @ site["rotation"] @ site["half_size"]))
    return np.sign(joint["position"]) * joint["axis"] * (max(0.0, length - abs(joint["position"])) / 2 + 0.006)


def _floor(scene: Scene) -> float:
    """Return the height of what everything stands on."""
    return min(vertical_range(scene, name)[0] for name, obj in scene["objects"].items() if not obj["fixture"])


def _spot(scene: Scene, name: str, region: str) -> np.ndarray:
    """Return the shift (3,) from the middle of a flat region to where object ``name`` goes.

    Objects that share the region stand in a row; one alone goes to the free spot nearest to the middle.
    """
    site = scene["sites"][region]
    low, high = corners(scene["objects"][name]["boxes"])
    size = (high.max(axis=0) - low.min(axis=0))[:2]
    sharing = [goal[1] for goal in scene["goal"] if goal[0] == "on" and goal[2] == region]
    if len(sharing) > 1:
        along = int(np.argmin(size))
        shift = np.zeros(3)
        shift[along] = (sharing.index(name) - (len(sharing) - 1) / 2) * (size[along] + _GAP)
        return shift
    away = (low.min(axis=0) + high.max(axis=0)) / 2 - scene["objects"][name]["position"]
    reach = 0.75 * np.abs(site["rotation"] @ site["half_size"])[:2]
    steps = np.stack(np.meshgrid(*[np.linspace(-1, 1, 9)] * 2), axis=-1).reshape(-1, 2)
    others_low, others_high = corners(boxes(scene, ignored=(name, site["parent"])))
    for step in sorted(steps, key=lambda step: float(np.linalg.norm(step))):
        center = (site["position"] + away)[:2] + step * reach
        apart = np.maximum(others_low[:, :2] - center, center - others_high[:, :2]) - size / 2
        if (apart.max(axis=1) > _GAP / 2).all():
            return np.array([*(step * reach), 0.0])
    return np.zeros(3)
