"""Whether goals are reached, from the scene alone: LIBERO's own checks, a little stricter.

LIBERO also asks for contact ("on"); the skills let go of an object only where it rests.
"""

from __future__ import annotations

import numpy as np

from .geometry import Scene, vertical_range

_MARGIN = 0.005
_ON_OBJECT = 0.025
"""How far apart, seen from above, an object and what it stands on may be; LIBERO allows 0.03."""


def is_in(scene: Scene, name: str, site: str) -> bool:
    """Say whether the body of object ``name`` is inside the box of ``site``, which LIBERO extends by 1 cm downwards."""
    region = scene["sites"][site]
    size = np.abs(region["rotation"] @ region["half_size"]) - _MARGIN
    away = scene["objects"][name]["position"] - region["position"]
    return bool((np.abs(away[:2]) < size[:2]).all() and -size[2] - 0.01 < away[2] < size[2])


def is_on(scene: Scene, name: str, target: str) -> bool:
    """Say whether object ``name`` stands on ``target``, an object or a site."""
    obj = scene["objects"][name]
    if target in scene["objects"]:
        away = obj["position"] - scene["objects"][target]["position"]
        low, high = vertical_range(scene, target)
        resting = low < vertical_range(scene, name)[0] < high + 0.02
        return bool(resting and away[2] >= 0 and np.linalg.norm(away[:2]) < _ON_OBJECT)
    region = scene["sites"][target]
    away = region["rotation"] @ (obj["position"] - region["position"])
    size = region["half_size"]
    return bool((np.abs(away[:2]) < size[:2] - _MARGIN).all() and size[2] - 0.005 < away[2] < size[2] + 0.095)
