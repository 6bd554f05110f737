"""Makes frames cheap in software: the robot with an eighth of its triangles, round things of fewer sides, no smoothing.

With stand-ins for all else, robosuite's Panda would be most of a frame's time, and smoothed edges half of what is
left. Its meshes are installed with robosuite. Only drawn meshes are thinned: contacts and masses come from others.
"""

from __future__ import annotations

import importlib.util
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .meshes import plain

_SOURCES = (
    "robots/panda/robot.xml",
    "grippers/panda_gripper.xml",
    "mounts/rethink_mount.xml",
)
"""The parts of LIBERO's robot, in robosuite's folder of models."""

_QUALITY = {"offsamples": "0", "numslices": "16", "numstacks": "8"}

_CELL = {"robots": 0.01, "grippers": 0.004, "mounts": 0.02}
"""Metres between the vertices that are left; the gripper is near its camera."""


def write_light_robot(folder: Path) -> None:
    """Write a thinned copy of every mesh that robosuite draws the robot with."""
    models = _robosuite_models()
    for source in _SOURCES:
        for path in _drawn_meshes(ET.parse(models / source).getroot(), (models / source).parent):
            target = folder / _light_name(path, models)
            target.parent.mkdir(parents=True, exist_ok=True)
            vertices, faces = thin(*_read_mesh(path), _CELL[source.split("/")[0]])
            if len(faces):
                plain(vertices, faces).write(target)


def draw_lightly(folder: Path) -> Callable[[str], str]:
    """Return an edit of robosuite's model XML: the thinned meshes of ``folder`` in their places, and a plainer quality.

    It changes nothing that moves.
    """
    models = _robosuite_models()

    def process(xml: str) -> str:
        root = ET.fromstring(xml)
        visual = root.find("visual")
        assert visual is not None  # robosuite's base.xml has it
        ET.SubElement(visual, "quality", _QUALITY)
        for mesh in root.iter("mesh"):
            path = Path(mesh.get("file", ""))
            if path.is_relative_to(models) and (light := folder / _light_name(path, models)).is_file():
                mesh.set("file", str(light))
                mesh.set("inertia", "shell")
        return ET.tostring(root, encoding="unicode")

    return process


def thin(
    vertices: NDArray[np.float64], faces: NDArray[np.int64], cell: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Merge the vertices within each cube of a grid into their mean, and drop the triangles that vanish.

    vertices: (n, 3); faces: (m, 3); cell: the cubes' edge. Returns the same for fewer.
    """
    cubes = np.floor((vertices - vertices.min(axis=0)) / cell).astype(np.int64)
    _, cluster, count = np.unique(cubes @ (1 << 42, 1 << 21, 1), return_inverse=True, return_counts=True)
    means = np.stack([np.bincount(cluster, vertices[:, k]) for k in range(3)], axis=-1) / count[:, None]
    faces = cluster[faces]
    a, b, c = faces.T
    faces = faces[(a != b) & (b != c) & (c != a)]
    _, first = np.unique(np.sort(faces, axis=1) @ (1 << 42, 1 << 21, 1), return_index=True)
    return means, faces[np.sort(first)]


def _robosuite_models() -> Path:
    package = importlib.util.find_spec("robosuite")
    assert package is not None and package.submodule_search_locations  # the environments need it before this
    return Path(next(iter(package.submodule_search_locations))) / "models" / "assets"


def _light_name(path: Path, models: Path) -> str:
    return "robot/" + "-".join(path.relative_to(models).with_suffix(".obj").parts)


def _drawn_meshes(root: ET.Element, folder: Path) -> list[Path]:
    """Return the files of the meshes that ``root`` draws and nothing collides with."""
    solid = {geom.get("mesh") for geom in root.iter("geom") if geom.get("group") != "1"}
    drawn = {geom.get("mesh") for geom in root.iter("geom")} - solid
    return [folder / str(mesh.get("file")) for mesh in root.iter("mesh") if mesh.get("name") in drawn]


def _read_mesh(path: Path) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return vertices (n, 3) and triangles (m, 3) of an .obj or binary .stl file."""
    if path.suffix == ".stl":
        triangle = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
        corners = np.fromfile(path, triangle, offset=84)["corners"].reshape(-1, 3).astype(np.float64)
        return corners, np.arange(len(corners)).reshape(-1, 3)
    vertices, faces = [], []
    for line in path.read_text(encoding="utf-8").splitlines():
        kind, *fields = line.split() or [""]
        if kind == "v":
            vertices.append([float(field) for field in fields[:3]])
        elif kind == "f":
            corners_of_face = [int(field.split("/")[0]) - 1 for field in fields]
            faces += [(corners_of_face[0], *corners_of_face[k : k + 2]) for k in range(1, len(fields) - 1)]
    return np.array(vertices), np.array(faces)
