"""Generates the stand-ins' asset folder."""

from __future__ import annotations

from pathlib import Path

from .arenas import write_arena
from .light import write_light_robot
from .mjcf import read_tables, texture_file, write_object
from .textures import label, texture


def generate(folder: Path) -> None:
    """Write an asset folder of LIBERO's layout into ``folder``, and beside it the robot's thinned meshes."""
    tables = read_tables()
    (folder / "textures").mkdir(parents=True)
    for name in tables.objects:
        write_object(folder, name, tables)
    for name in tables.arenas["arenas"]:
        write_arena(folder, name, tables)
    for name, spec in tables.materials["textures"].items():
        path = spec.get("file") or f"textures/{texture_file(name)}"
        texture(name, spec).save(folder / path)
    for name, spec in tables.materials["labels"].items():
        label(spec).save(folder / "textures" / texture_file(f"label {name}"))
    write_light_robot(folder)
