"""Writes the stand-ins' arenas: floor, walls, tables, lights and cameras of LIBERO's scenes, with plain scenery."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from .mjcf import MjcfFile, Tables


def write_arena(root_folder: Path, name: str, tables: Tables) -> None:
    """Write the MJCF file and the meshes of one arena of the tables."""
    arena, common = tables.arenas["arenas"][name], tables.arenas
    file = MjcfFile(root_folder, f"scenes/{name}.xml", tables)
    _add_surfaces(file, *arena["wall"])
    world = file.worldbody
    floor = ET.SubElement(world, "body", name="floor", pos="0 0 0") if arena.get("floor_body") else world
    ET.SubElement(
        floor,
        "geom",
        {"name": "floor", "type": "plane", "pos": "0 0 0", "size": "3 3 .125", "condim": "3", "group": "1"},
        material="floorplane",
    )
    bodies: dict[str, ET.Element] = {}
    for part in arena.get("furniture", ()):
        body = ET.SubElement(bodies[part["parent"]] if "parent" in part else world, "body", name=part["name"])
        body.attrib.update(pos=part["pos"], quat=part["quat"])
        file.add_boxes(body, tables.boxes[part["boxes"]] if "boxes" in part else (), part.get("drawn", {}))
        bodies[part["name"]] = body
    file.add_look(world, arena.get("look", ()))
    drawn = {"group": "1", "contype": "0", "conaffinity": "0"}
    for side, wall in (common["walls"] | arena.get("walls", {})).items():
        if wall:
            ET.SubElement(world, "geom", drawn | wall, name=f"wall_{side}_visual", type="box", material="walls_mat")
    if arena.get("table"):
        table = ET.SubElement(world, "body", name="table", pos="0 0 0.4")
        solid = {"type": "box", "pos": "0 0 0", "size": "0.4 0.4 0.4"}
        ET.SubElement(table, "geom", solid, group="0", name="table_collision", friction="1 0.005 0.0001")
        ET.SubElement(table, "geom", drawn | solid, name="table_visual", material="table_texture")
        ET.SubElement(table, "site", name="table_top", pos="0 0 0.4", size="0.001 0.001 0.001", rgba="0 0 0 0")
        for leg in range(1, 5):
            place = {"type": "cylinder", "pos": "0 0 0", "size": "0.05 0.1"}
            ET.SubElement(table, "geom", drawn | place, name=f"table_leg{leg}_visual", material="table_texture")
    for light, attributes in (arena.get("lights", {}) | common["lights"]).items():
        ET.SubElement(world, "light", attributes, name=light)
    for camera, attributes in common["cameras"].items():
        ET.SubElement(world, "camera", attributes, name=camera, mode="fixed")
    file.save()


def _add_surfaces(file: MjcfFile, wall_specular: float, wall_shininess: float) -> None:
    """Add sky, floor, wall and table top; LIBERO replaces the file names of floor and wall by its style's."""
    textures = "../textures"
    for name, kind, picture in (
        ("texplane", "2d", "grey boards"),
        ("tex-wall", "2d", "grey plaster"),
        ("tex-table", "cube", "maple table"),
    ):
        path = f"{textures}/{Path(file.tables.materials['textures'][picture]['file']).name}"
        ET.SubElement(file.asset, "texture", name=name, type=kind, file=path)
    sky = {"type": "skybox", "builtin": "gradient", "rgb1": ".9 .9 1.", "rgb2": ".2 .3 .4"}
    ET.SubElement(file.asset, "texture", sky, width="32", height="32")
    for name, specular, shininess, texture, tiled in (
        ("floorplane", 0.0, 0.0, "texplane", True),
        ("walls_mat", wall_specular, wall_shininess, "tex-wall", True),
        ("table_texture", 0.2, 0.0, "tex-table", False),
    ):
        material = ET.SubElement(file.asset, "material", name=name, texture=texture)
        material.attrib.update(specular=str(specular), shininess=str(shininess))
        if tiled:
            material.attrib.update(texrepeat="3 3", texuniform="true")
