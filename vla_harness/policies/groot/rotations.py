"""Changes between representations of rotations, as GR00T's metadata names them (which are pytorch3d's).

quaternion: (4,) w first. axis_angle: (3,) radians. rotation_6d: (6,) the first two rows of the matrix.
euler_angles_rpy and the other orders: (3,) radians about the moving axes x (r), y (p), z (y), in the letters' order.
matrix: (3, 3).
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

WIDTHS = {"quaternion": 4, "axis_angle": 3, "rotation_6d": 6}
"""Entries of the representations; all others but the matrix have three."""

BOUNDS = {"quaternion": 1.0, "rotation_6d": 1.0}
"""Largest entry of an absolute rotation in a representation; all others are angles, up to pi."""

_EULER = re.compile(r"euler_angles_([rpy]{3})")


def convert_rotation(entries: np.ndarray, source: str, target: str) -> np.ndarray:
    """Return (..., k) ``entries`` of the representation ``source`` in ``target``; float64. A matrix is (..., 3, 3).

    Quaternions come out with w >= 0. Raises ValueError for an unknown representation.
    """
    flat = np.asarray(entries, np.float64)
    trailing = 2 if source == "matrix" else 1
    leading = flat.shape[: flat.ndim - trailing]
    written = _write(_read(flat.reshape(-1, *flat.shape[-trailing:]), source), target)
    return written.reshape(*leading, *written.shape[1:])


def rotation_width(name: str) -> int:
    """Return how many entries the representation ``name`` has."""
    return WIDTHS.get(name, 3)


def _read(entries: np.ndarray, source: str) -> Rotation:
    if source == "quaternion":
        return Rotation.from_quat(entries, scalar_first=True)
    if source == "axis_angle":
        return Rotation.from_rotvec(entries)
    if source == "matrix":
        return Rotation.from_matrix(entries)
    if source == "rotation_6d":  # Gram-Schmidt: what a network writes is not orthonormal
        first = _unit(entries[:, :3])
        second = entries[:, 3:]
        second = _unit(second - (first * second).sum(1, keepdims=True) * first)
        return Rotation.from_matrix(np.stack([first, second, np.cross(first, second)], axis=1))
    return Rotation.from_euler(_axes(source), entries)


def _write(rotation: Rotation, target: str) -> np.ndarray:
    if target == "quaternion":
        return rotation.as_quat(canonical=True, scalar_first=True)
    if target == "axis_angle":
        return rotation.as_rotvec()
    if target == "matrix":
        return rotation.as_matrix()
    if target == "rotation_6d":
        return rotation.as_matrix()[:, :2].reshape(-1, 6)
    return rotation.as_euler(_axes(target))


def _axes(name: str) -> Any:
    """Return SciPy's name of moving axes: "XYZ" for "euler_angles_rpy"."""
    order = _EULER.fullmatch(name)
    if order is None:
        raise ValueError(f"there is no representation of rotations {name!r}")
    return order[1].translate(str.maketrans("rpy", "XYZ"))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
