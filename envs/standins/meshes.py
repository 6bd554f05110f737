"""Builders of small meshes: things turned on a lathe, bent tubes, prisms and labelled cartons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

LABEL_WIDTH = 0.94
"""Part of a label's width that is picture; the strip right of it is the plain colour of a carton's narrow faces."""


@dataclass(frozen=True)
class Mesh:
    """Triangles with the outside on the side from which the corners run anticlockwise.

    vertices: (n, 3) float64, metres. faces: (m, 3) rows of vertices.
    uv: (k, 2) float64, (0, 0) the picture's lower left; uv_faces: (m, 3) rows of uv. Both empty without a picture.
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    uv: NDArray[np.float64]
    uv_faces: NDArray[np.int64]

    def write(self, path: Path, with_picture: bool = False) -> None:
        """Write a Wavefront .obj file, with the places in the picture if they are wanted."""
        lines = [f"v {x:.6g} {y:.6g} {z:.6g}" for x, y, z in self.vertices]
        if with_picture:
            lines += [f"vt {u:.5g} {v:.5g}" for u, v in self.uv]
            corners = np.stack([self.faces, self.uv_faces], axis=-1) + 1
            lines += ["f " + " ".join(f"{v}/{t}" for v, t in face) for face in corners]
        else:
            lines += [f"f {a} {b} {c}" for a, b, c in self.faces + 1]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def plain(vertices: ArrayLike, faces: ArrayLike) -> Mesh:
    """Return a mesh without a picture."""
    nothing = np.zeros((0, 2)), np.zeros((0, 3), np.int64)
    return Mesh(np.asarray(vertices, np.float64), np.asarray(faces, np.int64), *nothing)


def lathe(
    profile: Sequence[Sequence[float]],
    sides: int = 24,
    arc: Sequence[float] = (0.0, 360.0),
    scale: Sequence[float] = (1.0, 1.0, 1.0),
) -> Mesh:
    """Turn a profile of (radius, height) about z.

    The outside is on the right of the profile's direction, so a bowl goes from its foot up outside and down inside.
    arc: from and to which angle, degrees; less than a turn leaves it open. scale: of x, y, z.
    The picture goes once around, its upper edge at the profile's end.
    """
    points = np.asarray(profile, np.float64)
    whole = arc[1] - arc[0] >= 360.0
    columns = sides if whole else sides + 1
    angles = np.radians(np.linspace(arc[0], arc[1], sides + 1))
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=-1)[:columns]  # (columns, 2)
    vertices = np.concatenate(
        [points[:, None, :1] * ring, np.broadcast_to(points[:, None, 1:], (len(points), columns, 1))], axis=-1
    )
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    uv = np.stack(np.meshgrid(np.linspace(0.0, 1.0, sides + 1), along / along[-1]), axis=-1)  # (points, sides + 1, 2)

    faces, uv_faces = [], []
    for row in range(len(points) - 1):
        for column in range(sides):
            after = (column + 1) % columns
            a, b = row * columns + column, row * columns + after
            c, d = a + columns, b + columns
            u = row * (sides + 1) + column
            v = u + sides + 1
            if points[row, 0] > 0:
                faces.append((a, b, d))
                uv_faces.append((u, u + 1, v + 1))
            if points[row + 1, 0] > 0:
                faces.append((a, d, c))
                uv_faces.append((u, v + 1, v))
    return Mesh(
        vertices.reshape(-1, 3) * np.asarray(scale),
        np.asarray(faces, np.int64),
        uv.reshape(-1, 2),
        np.asarray(uv_faces, np.int64),
    )


def tube(path: Sequence[Sequence[float]], radius: float, sides: int = 8) -> Mesh:
    """Bend a closed tube along points (n, 3)."""
    points = np.asarray(path, np.float64)
    tangents = np.gradient(points, axis=0)
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    across = np.cross(tangents[0], np.eye(3)[np.argmin(np.abs(tangents[0]))])
    angles = np.linspace(0.0, 2.0 * np.pi, sides, endpoint=False)
    rings = []
    for point, tangent in zip(points, tangents, strict=True):
        across = across - tangent * (across @ tangent)  # carried along without a twist
        across /= np.linalg.norm(across)
        other = np.cross(tangent, across)
        rings.append(point + radius * (np.cos(angles)[:, None] * across + np.sin(angles)[:, None] * other))
    faces = []
    for row in range(len(points) - 1):
        for column in range(sides):
            a, b = row * sides + column, row * sides + (column + 1) % sides
            faces += [(a, b, b + sides), (a, b + sides, a + sides)]
    last = (len(points) - 1) * sides
    faces += [(0, k + 1, k) for k in range(1, sides - 1)]
    faces += [(last, last + k, last + k + 1) for k in range(1, sides - 1)]
    return plain(np.concatenate(rings), faces)


def prism(outline: Sequence[Sequence[float]], width: float) -> Mesh:
    """Draw a convex outline of (y, z) out along x, to both sides of x = 0."""
    corners = np.asarray(outline, np.float64)
    following = np.roll(corners, -1, axis=0)
    if np.sum(corners[:, 0] * following[:, 1] - following[:, 0] * corners[:, 1]) < 0:
        corners = corners[::-1]  # anticlockwise, seen from +x
    count = len(corners)
    vertices = [(x, y, z) for x in (width / 2, -width / 2) for y, z in corners]
    faces = []
    for k in range(count):
        after = (k + 1) % count
        faces += [(k, k + count, after + count), (k, after + count, after)]
    faces += [(0, k, k + 1) for k in range(1, count - 1)]
    faces += [(count, count + k + 1, count + k) for k in range(1, count - 1)]
    return plain(vertices, faces)


def carton(half_size: Sequence[float]) -> Mesh:
    """Return a box whose broad faces bear a picture and whose narrow ones bear its plain strip.

    A flat box has the picture above and below, its right along x. A box along y, more than twice as long as wide, has
    it on all four long faces, its upper edge towards +y.
    """
    half = np.asarray(half_size, np.float64)
    standing = half[1] > 1.9 * max(half[0], half[2])
    picture = np.array([(0.0, 0.0), (LABEL_WIDTH, 0.0), (LABEL_WIDTH, 1.0), (0.0, 1.0)])
    strip = np.full((4, 2), ((1.0 + LABEL_WIDTH) / 2, 0.5))
    vertices: list[NDArray[np.float64]] = []
    uv: list[NDArray[np.float64]] = []
    for axis in range(3):
        for sign in (1.0, -1.0):
            outward = sign * np.eye(3)[axis]
            upward = np.eye(3)[1 if axis != 1 else 2]
            if not standing and axis == 2:
                upward = sign * upward  # so that the right is +x on both faces
            right = np.cross(upward, outward)
            bears = axis != 1 if standing else axis == 2
            for across, up in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
                vertices.append((outward + across * right + up * upward) * half)
            uv += list(picture if bears else strip)
    first = np.arange(0, 24, 4)[:, None]
    faces = np.concatenate([first + np.array(corners) for corners in ((0, 1, 2), (0, 2, 3))])
    return Mesh(np.array(vertices), faces, np.array(uv), faces)
