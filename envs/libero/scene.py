"""The simulator's own view of a LIBERO scene as plain data: what a policy that reads the state is given.

A scene is a dict of strings, floats, booleans and float64 numpy arrays (metres, radians, world frame), so it can be
pickled and sent to another process:

    goal: tuple of predicates, e.g. (("on", "akita_black_bowl_1", "plate_1"),)
    objects: name -> movable object or fixture
        category: str, e.g. "akita_black_bowl"
        fixture: bool
        position (3,), rotation (3, 3): pose of the object's body
        bounds (2, 3): lower and upper corner, in the body's frame, around the collision shapes fixed to that body
            (a cabinet's housing without its drawers); zeros where there are none
        boxes: {center (n, 3), axes (n, 3, 3), half_size (n, 3)}: one box around each collision shape, its axes in
            columns
        joints: name -> joint, for the joints inside the object (drawers, doors, knobs)
            kind: "slide" or "hinge"; position: float; range (2,); axis (3,); anchor (3,)
    sites: name -> region of the task description
        parent: name of the object it belongs to, or "" for a part of the table or floor
        position (3,), rotation (3, 3), half_size (3,); joints: names of the joints that move it
    end_effector: position (3,), rotation (3, 3): the site between the fingers that the controller moves;
        quaternion_xyzw (4,): robosuite's robot0_eef_quat, which is the hand's orientation
    gripper_qpos (2,), gripper_qvel (2,): the two finger joints
    robot_base (3,): where the arm stands
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

_JOINT_KINDS = {int(mujoco.mjtJoint.mjJNT_SLIDE): "slide", int(mujoco.mjtJoint.mjJNT_HINGE): "hinge"}


class SceneReader:
    """Reads scenes from one ``BDDLBaseDomain`` problem; every id is looked up once, here.

    Build a new reader when the problem loads a new model (a hard reset). ``read`` only reads: it neither steps the
    simulator nor refreshes derived quantities, so it can't change an episode.
    """

    def __init__(self, problem: Any) -> None:
        self._model: mujoco.MjModel = problem.sim.model._model
        self._data: mujoco.MjData = problem.sim.data._data
        self._goal = tuple(tuple(predicate) for predicate in problem.parsed_problem["goal_state"])
        robot = problem.robots[0]
        self._grip_site = int(robot.eef_site_id)
        self._hand = self._model.body(robot.robot_model.eef_name).id
        self._base = self._model.body(robot.robot_model.root_body).id
        self._fingers = np.array(robot._ref_gripper_joint_pos_indexes)
        self._finger_velocities = np.array(robot._ref_gripper_joint_vel_indexes)
        self._objects = {
            **{name: self._index(obj, fixture=False) for name, obj in problem.objects_dict.items()},
            **{name: self._index(obj, fixture=True) for name, obj in problem.fixtures_dict.items()},
        }
        self._sites = {
            name: (
                self._model.site(name).id,
                {
                    "parent": site.parent_name or "" if hasattr(site, "parent_name") else "",
                    "half_size": np.array(site.size, np.float64),
                    "joints": tuple(getattr(site, "joints", None) or ()),
                },
            )
            for name, site in problem.object_sites_dict.items()
        }

    def _index(self, obj: Any, fixture: bool) -> dict[str, Any]:
        """Look up the bodies, collision shapes and inner joints of one object."""
        model = self._model
        body = model.body(obj.root_body).id
        inside = _subtree(model, body)
        collides = (model.geom_contype | model.geom_conaffinity) != 0
        geoms = np.flatnonzero(np.isin(model.geom_bodyid, inside) & collides)
        joints = [j for j in range(model.njnt) if model.jnt_bodyid[j] in inside]
        return {
            "body": body,
            "geoms": geoms,
            "offset": model.geom_aabb[geoms, :3].copy(),
            "half_size": model.geom_aabb[geoms, 3:].copy(),
            "joints": [(model.joint(j).name, j) for j in joints if int(model.jnt_type[j]) in _JOINT_KINDS],
            "constant": {
                "category": obj.category_name,
                "fixture": fixture,
                "bounds": _rigid_bounds(model, body, geoms),
            },
        }

    def read(self) -> dict[str, Any]:
        """Return the present scene; well under a millisecond."""
        data = self._data
        return {
            "goal": self._goal,
            "objects": {name: self._read_object(index) for name, index in self._objects.items()},
            "sites": {
                name: {
                    "position": data.site_xpos[site].copy(),
                    "rotation": data.site_xmat[site].reshape(3, 3).copy(),
                    **constant,
                }
                for name, (site, constant) in self._sites.items()
            },
            "end_effector": {
                "position": data.site_xpos[self._grip_site].copy(),
                "rotation": data.site_xmat[self._grip_site].reshape(3, 3).copy(),
                "quaternion_xyzw": data.xquat[self._hand][[1, 2, 3, 0]],
            },
            "gripper_qpos": data.qpos[self._fingers],
            "gripper_qvel": data.qvel[self._finger_velocities],
            "robot_base": data.xpos[self._base].copy(),
        }

    def _read_object(self, index: dict[str, Any]) -> dict[str, Any]:
        model, data, body, geoms = self._model, self._data, index["body"], index["geoms"]
        axes = data.geom_xmat[geoms].reshape(-1, 3, 3)
        return {
            **index["constant"],
            "position": data.xpos[body].copy(),
            "rotation": data.xmat[body].reshape(3, 3).copy(),
            "boxes": {
                "center": data.geom_xpos[geoms] + (axes @ index["offset"][:, :, None])[:, :, 0],
                "axes": axes,
                "half_size": index["half_size"],
            },
            "joints": {
                name: {
                    "kind": _JOINT_KINDS[int(model.jnt_type[joint])],
                    "position": float(data.qpos[model.jnt_qposadr[joint]]),
                    "range": model.jnt_range[joint].copy(),
                    "axis": data.xaxis[joint].copy(),
                    "anchor": data.xanchor[joint].copy(),
                }
                for name, joint in index["joints"]
            },
        }


def describe(problem: Any) -> dict[str, Any]:
    """Return the present scene of ``problem``, a ``BDDLBaseDomain``; for many reads keep a ``SceneReader``."""
    return SceneReader(problem).read()


def _subtree(model: mujoco.MjModel, root: int) -> list[int]:
    """Return ``root`` and every body below it; a body's number is above its parent's."""
    inside = [root]
    for body in range(root + 1, model.nbody):
        if model.body_parentid[body] in inside:
            inside.append(body)
    return inside


def _rigid_bounds(model: mujoco.MjModel, body: int, geoms: np.ndarray) -> np.ndarray:
    """Return (2, 3) corners around the ``geoms`` that no joint separates from ``body``, in its frame."""
    corners = []
    for geom in geoms:
        position, rotation = np.array(model.geom_pos[geom]), _matrix(model.geom_quat[geom])
        parent = int(model.geom_bodyid[geom])
        while parent != body and model.body_jntnum[parent] == 0:
            turn = _matrix(model.body_quat[parent])
            position, rotation = model.body_pos[parent] + turn @ position, turn @ rotation
            parent = int(model.body_parentid[parent])
        if parent == body:
            center = position + rotation @ model.geom_aabb[geom, :3]
            reach = np.abs(rotation) @ model.geom_aabb[geom, 3:]
            corners += [center - reach, center + reach]
    return np.array([np.min(corners, axis=0), np.max(corners, axis=0)]) if corners else np.zeros((2, 3))


def _matrix(quaternion_wxyz: np.ndarray) -> np.ndarray:
    """Return the (3, 3) rotation of a unit quaternion."""
    matrix = np.empty(9)
    mujoco.mju_quat2Mat(matrix, quaternion_wxyz)
    return matrix.reshape(3, 3)
