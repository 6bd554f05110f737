"""The simulator's own view of a robosuite task, for policies that read it: ``envs.libero.scene``'s, with its keys.

Goals: ("lift", cube), ("on", cube, cube), ("in", can, compartment) and ("unlatch", door). Tables and bins are fixtures;
compartments are sites, though robosuite has none there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..libero.scene import SceneReader

Part = tuple[str, str]
"""Root body and category of an object or fixture."""


class RobosuiteSceneReader:
    """Reads scenes of one task; every id is looked up once. It only reads, and can't change an episode.

    env: robosuite's environment. task: its name, of ``GOALS``.
    """

    def __init__(self, env: Any, task: str) -> None:
        goal, objects, fixtures, self._sites = GOALS[task](env)

        def parts(of: Mapping[str, Part]) -> dict[str, SimpleNamespace]:
            return {n: SimpleNamespace(root_body=body, category_name=kind) for n, (body, kind) in of.items()}

        problem = SimpleNamespace(  # what the reader looks at in LIBERO's problems
            sim=env.sim,
            robots=env.robots,
            parsed_problem={"goal_state": [goal]},
            objects_dict=parts(objects),
            fixtures_dict=parts(fixtures),
            object_sites_dict={},
        )
        self._reader = SceneReader(problem)

    def read(self) -> dict[str, Any]:
        """Return the present scene."""
        scene = self._reader.read()
        scene["sites"] |= self._sites
        return scene


Description = tuple[tuple[str, ...], dict[str, Part], dict[str, Part], dict[str, Any]]
"""Goal, movable objects, fixtures, sites."""

_TABLE = {"table": ("table", "table")}


def _lift(env: Any) -> Description:
    return ("lift", "cube"), {"cube": (env.cube.root_body, "cube")}, _TABLE, {}


def _stack(env: Any) -> Description:
    cubes = {name: (getattr(env, name).root_body, "cube") for name in ("cubeA", "cubeB")}
    return ("on", "cubeA", "cubeB"), cubes, _TABLE, {}


def _pick_place_can(env: Any) -> Description:
    (can,) = [obj for obj in env.objects if obj.name == env.obj_to_use]
    center = env.target_bin_placements[env.object_id] + [0, 0, 0.05]  # robosuite's check: 10 cm above the bin's frame
    compartment = {
        "position": center,
        "rotation": np.eye(3),
        "half_size": np.array([env.bin_size[0] / 4, env.bin_size[1] / 4, 0.05]),
        "parent": "bin2",
        "joints": (),
    }
    bins = {name: (name, "bin") for name in ("bin1", "bin2")}
    return ("in", "can", "compartment"), {"can": (can.root_body, "can")}, bins, {"compartment": compartment}


def _door(env: Any) -> Description:
    return ("unlatch", "door"), {}, {"door": (env.door.root_body, "door"), **_TABLE}, {}


GOALS: dict[str, Callable[[Any], Description]] = {
    "Lift": _lift,
    "Stack": _stack,
    "PickPlaceCan": _pick_place_can,
    "Door": _door,
}
"""The tasks that ``envs.experts`` solves -> what there is in them."""
