"""Writes the stand-ins' MJCF files: the benchmark's bodies, joints, sites and collision boxes, simply drawn."""

from __future__ import annotations

import os
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from . import meshes

_BOX = {
    "type": "box",
    "group": "0",
    "solimp": "0.998 0.998 0.001",
    "solref": "0.001 1",
    "density": "100",
    "friction": "0.95 0.3 0.1",
}
"""What all boxes of ``collision.txt`` have in common."""

_DRAWN = {"group": "1", "contype": "0", "conaffinity": "0"}
"""robosuite's visual geoms: they touch nothing and, since it derives inertia from group 0, weigh nothing."""

_PRIMITIVES = ("box", "cylinder", "capsule", "ellipsoid")


@dataclass(frozen=True)
class Box:
    """One line of ``collision.txt``; the numbers as they are written there, so that reading them can't change them."""

    body: str
    pos: str
    quat: str
    size: str
    drawn: str


@dataclass(frozen=True)
class Tables:
    """All that is known about the stand-ins."""

    objects: dict[str, Any]
    arenas: dict[str, Any]
    materials: dict[str, Any]
    boxes: dict[str, list[Box]]


def read_tables() -> Tables:
    """Read the data files beside this module."""
    folder = Path(__file__).parent
    objects, arenas, materials = (
        tomllib.loads((folder / f"{name}.toml").read_text(encoding="utf-8"))
        for name in ("objects", "arenas", "materials")
    )
    boxes: dict[str, list[Box]] = {}
    for line in (folder / "collision.txt").read_text(encoding="utf-8").splitlines():
        fields = line.split()
        if line.startswith("#") or fields[0] == "object":
            continue
        pos, quat, size = (" ".join(fields[start:end]) for start, end in ((2, 5), (5, 9), (9, 12)))
        boxes.setdefault(fields[0], []).append(Box(fields[1], pos, quat, size, fields[12]))
    return Tables(objects, arenas, materials, boxes)


class MjcfFile:
    """One MJCF file being built, with the meshes and materials it needs.

    root_folder: of the assets. path: of this file in it. The textures lie in ``root_folder/textures``.
    """

    def __init__(self, root_folder: Path, path: str, tables: Tables) -> None:
        self.tables = tables
        self._path = root_folder / path
        self._textures = os.path.relpath("textures", Path(path).parent)
        self._root = ET.Element("mujoco", model=self._path.stem)
        ET.SubElement(self._root, "compiler", angle="radian")
        self.asset = ET.SubElement(self._root, "asset")
        self.worldbody = ET.SubElement(self._root, "worldbody")
        self._materials: set[str] = set()
        self._mesh_count = 0

    def save(self) -> None:
        """Write the file."""
        ET.indent(self._root)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(ET.tostring(self._root, encoding="unicode") + "\n", encoding="utf-8")

    def material(self, name: str) -> str:
        """Return the MJCF name of a material of the table, which this adds to the file at first use."""
        mjcf_name = name.replace(" ", "_")
        if mjcf_name not in self._materials:
            self._materials.add(mjcf_name)
            spec = self.tables.materials["materials"][name]
            specular, shininess = spec.get("shine", (0.5, 0.5))
            attributes = {"name": mjcf_name, "specular": str(specular), "shininess": str(shininess)}
            if "texture" in spec:
                attributes["texture"] = self._texture(spec["texture"], "cube")
            else:
                colour = spec["colour"].removeprefix("#").ljust(8, "f")
                attributes["rgba"] = _numbers([int(colour[k : k + 2], 16) / 255 for k in range(0, 8, 2)])
            ET.SubElement(self.asset, "material", attributes)
        return mjcf_name

    def _label(self, name: str) -> str:
        """Return the MJCF name of the material that shows a label."""
        mjcf_name = f"label_{name.replace(' ', '_')}"
        if mjcf_name not in self._materials:
            self._materials.add(mjcf_name)
            ET.SubElement(self.asset, "material", name=mjcf_name, texture=self._texture(f"label {name}", "2d"))
        return mjcf_name

    def _texture(self, name: str, kind: str) -> str:
        mjcf_name = f"tex-{name.replace(' ', '_')}"
        ET.SubElement(self.asset, "texture", name=mjcf_name, type=kind, file=f"{self._textures}/{texture_file(name)}")
        return mjcf_name

    def _mesh(self, mesh: meshes.Mesh, with_picture: bool) -> str:
        name = f"{self._path.stem}_{self._mesh_count}"
        self._mesh_count += 1
        self._path.parent.mkdir(parents=True, exist_ok=True)
        mesh.write(self._path.with_name(f"{name}.obj"), with_picture)
        # "shell", because open meshes have no volume.
        ET.SubElement(self.asset, "mesh", name=name, file=f"{name}.obj", inertia="shell")
        return name

    def add_look(self, body: ET.Element, looks: Sequence[Mapping[str, Any]]) -> None:
        """Add what is drawn of a body: entries of a ``look`` in the tables."""
        for look in looks:
            material = self._label(look["label"]) if "label" in look else self.material(look["material"])
            geom = ET.SubElement(body, "geom", _DRAWN, material=material)
            if "at" in look:
                geom.set("pos", _numbers(look["at"]))
            if "turn" in look:
                geom.set("quat", _numbers(_quaternion(look["turn"])))
            primitive = next((kind for kind in _PRIMITIVES if kind in look), None)
            if primitive:
                geom.set("type", primitive)
                geom.set("size", _numbers(look[primitive]))
            else:
                geom.set("type", "mesh")
                geom.set("mesh", self._mesh(_build_mesh(look), with_picture="label" in look))

    def add_boxes(self, body: ET.Element, boxes: Sequence[Box], drawn: Mapping[str, str]) -> None:
        """Add collision boxes, and a twin to be seen where ``drawn`` names a material for it."""
        for box in boxes:
            placed = {"type": "box", "pos": box.pos, "quat": box.quat, "size": box.size}
            if box.drawn in drawn:
                ET.SubElement(body, "geom", _DRAWN | placed, material=self.material(drawn[box.drawn]))
            ET.SubElement(body, "geom", _BOX | placed)

    def add_solids(self, body: ET.Element, part: Mapping[str, Any]) -> None:
        """Add the collision shapes that the tables spell out, with their twins to be seen."""
        for entry in part.get("solids", ()):
            solid = {"group": "0"} | part.get("solid_defaults", {}) | entry
            if "material" in solid:
                solid["material"] = self.material(solid["material"])
            if "drawn" in solid:
                shape = {key: solid[key] for key in ("type", "pos", "size", "euler") if key in solid}
                ET.SubElement(body, "geom", _DRAWN | shape, material=self.material(solid.pop("drawn")))
            ET.SubElement(body, "geom", solid)


def write_object(root_folder: Path, name: str, tables: Tables) -> None:
    """Write the MJCF file and the meshes of one object of the tables."""
    entry = tables.objects[name]
    boxes = tables.boxes.get(entry.get("like", name), [])
    entry = tables.objects.get(entry.get("like", ""), {}) | entry
    file = MjcfFile(root_folder, entry.get("file") or f"{entry['folder']}/{name}/{name}.xml", tables)
    outer = ET.SubElement(file.worldbody, "body")
    bodies: dict[str, ET.Element] = {}
    for part in [entry | {"name": "object"}, *entry.get("bodies", ())]:
        parent = bodies[part.get("parent", "object")] if bodies else outer
        body = ET.SubElement(parent, "body", name=part["name"])
        body.attrib.update({key: part[key] for key in ("pos", "quat") if key in part})
        for tag in ("inertial", "joint"):
            if tag in part:
                ET.SubElement(body, tag, part[tag])
        for region in part.get("regions", ()):
            ET.SubElement(body, "site", region, type="box", group="0", rgba="0 0 0 0")
        for site in part.get("sites", ()):
            ET.SubElement(body, "site", site)
        file.add_solids(body, part)
        file.add_look(body, tables.objects[part["look_of"]]["look"] if "look_of" in part else part.get("look", ()))
        file.add_boxes(body, [box for box in boxes if box.body == part["name"]], entry.get("drawn", {}))
        bodies[part["name"]] = body
    bottom, top, radius = entry["extent"]
    for site, place in (
        ("bottom_site", (0, 0, bottom)),
        ("top_site", (0, 0, top)),
        ("horizontal_radius_site", (radius, radius, 0)),
    ):
        ET.SubElement(outer, "site", name=site, pos=_numbers(place), size="0.005", rgba="0 0 0 0")
    file.save()


def texture_file(name: str) -> str:
    """Return the file, in the folder of textures, of a texture of the table or of "label NAME"."""
    return f"standin_{name.replace(' ', '_')}.png"


def _build_mesh(look: Mapping[str, Any]) -> meshes.Mesh:
    """Build the mesh of a ``look`` entry that is none of MuJoCo's own shapes."""
    if "lathe" in look:
        return meshes.lathe(look["lathe"], **{key: look[key] for key in ("sides", "arc", "scale") if key in look})
    if "tube" in look:
        return meshes.tube(look["tube"], look["radius"])
    if "prism" in look:
        return meshes.prism(look["prism"], look["width"])
    return meshes.carton(look["carton"])


def _quaternion(turn: Sequence[float]) -> Sequence[float]:
    """Return the w x y z quaternion of turns about the body's own x, y, z, one after the other, degrees."""
    quaternion = np.empty(4)
    mujoco.mju_euler2Quat(quaternion, np.radians(turn), "xyz")
    return list(quaternion)


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.6g}" for value in values)
