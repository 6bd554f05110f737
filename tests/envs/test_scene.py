"""The scene that policies are given, against the simulator it is read from."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator

import gymnasium
import mujoco
import numpy as np
import pytest

from vla_harness.envs.libero.environment import LiberoEnv
from vla_harness.envs.libero.scene import describe

BOWL_IN_DRAWER = 4
BOWL, CABINET = "akita_black_bowl_1", "wooden_cabinet_1"


@pytest.fixture(scope="module")
def task() -> Iterator[LiberoEnv]:
    made = gymnasium.make("vla_harness.envs:libero/spatial-v0", task=BOWL_IN_DRAWER, observations="on_request")
    environment = made.unwrapped
    assert isinstance(environment, LiberoEnv)
    environment.reset(seed=0, options={"initial_state": 0})
    for _ in range(10):
        environment.step(np.array([0, 0, 0, 0, 0, 0, -1], np.float32))
    yield environment
    environment.close()


def test_names_the_goal_and_every_object_with_its_category(task: LiberoEnv) -> None:
    scene = task.scene()
    assert scene["goal"] == (("on", BOWL, "plate_1"),)
    assert {name: (obj["category"], obj["fixture"]) for name, obj in scene["objects"].items()} == {
        BOWL: ("akita_black_bowl", False),
        "akita_black_bowl_2": ("akita_black_bowl", False),
        "cookies_1": ("cookies", False),
        "glazed_rim_porcelain_ramekin_1": ("glazed_rim_porcelain_ramekin", False),
        "plate_1": ("plate", False),
        CABINET: ("wooden_cabinet", True),
        "flat_stove_1": ("flat_stove", True),
    }


def test_poses_are_the_simulators(task: LiberoEnv) -> None:
    scene, data = task.scene(), task.data
    for name, obj in scene["objects"].items():
        np.testing.assert_array_equal(obj["position"], data.body(f"{name}_main").xpos)
        np.testing.assert_array_equal(obj["rotation"].ravel(), data.body(f"{name}_main").xmat)
    for name, site in scene["sites"].items():
        np.testing.assert_array_equal(site["position"], data.site(name).xpos)
        np.testing.assert_array_equal(site["rotation"].ravel(), data.site(name).xmat)
    hand = scene["end_effector"]
    np.testing.assert_array_equal(hand["position"], data.site("gripper0_grip_site").xpos)
    np.testing.assert_array_equal(hand["rotation"].ravel(), data.site("gripper0_grip_site").xmat)
    np.testing.assert_array_equal(scene["robot_base"], data.body("robot0_base").xpos)


def test_end_effector_agrees_with_the_observables_up_to_their_sampling(task: LiberoEnv) -> None:
    """Observables are sampled a substep or two before the end of the step."""
    scene, sampled = task.scene(), task.proprioception()
    np.testing.assert_allclose(scene["end_effector"]["position"], sampled["eef_pos"], atol=1e-4)
    np.testing.assert_allclose(scene["end_effector"]["quaternion_xyzw"], sampled["eef_quat_xyzw"], atol=1e-3)
    np.testing.assert_allclose(scene["gripper_qpos"], sampled["gripper_qpos"], atol=1e-4)


def test_boxes_enclose_the_collision_shapes(task: LiberoEnv) -> None:
    """Every corner of a geom of type box is a corner of its box; the bounds of a bowl are those of its boxes."""
    scene, model, data = task.scene(), task.model, task.data
    shapes = scene["objects"][CABINET]["boxes"]
    geoms = [
        geom
        for geom in range(model.ngeom)
        if model.body(int(model.geom_bodyid[geom])).name.startswith(CABINET)
        and (model.geom_contype[geom] or model.geom_conaffinity[geom])
    ]
    assert all(model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_BOX for geom in geoms)
    np.testing.assert_allclose(shapes["center"], data.geom_xpos[geoms])
    np.testing.assert_allclose(shapes["axes"].reshape(-1, 9), data.geom_xmat[geoms])
    np.testing.assert_allclose(shapes["half_size"], model.geom_size[geoms])

    bowl = scene["objects"][BOWL]
    reach = (np.abs(bowl["rotation"].T @ bowl["boxes"]["axes"]) @ bowl["boxes"]["half_size"][:, :, None])[:, :, 0]
    center = (bowl["boxes"]["center"] - bowl["position"]) @ bowl["rotation"]
    np.testing.assert_allclose(bowl["bounds"], [(center - reach).min(axis=0), (center + reach).max(axis=0)], atol=1e-9)


def test_bounds_of_a_cabinet_leave_out_its_drawers(task: LiberoEnv) -> None:
    cabinet = task.scene()["objects"][CABINET]
    handles = (cabinet["boxes"]["center"] - cabinet["position"]) @ cabinet["rotation"]
    assert handles.min() < cabinet["bounds"].min() - 0.05  # the open drawer reaches out of the housing


def test_joints_have_position_range_axis_and_anchor(task: LiberoEnv) -> None:
    scene, data = task.scene(), task.data
    drawer = scene["objects"][CABINET]["joints"]["wooden_cabinet_1_top_level"]
    assert drawer["kind"] == "slide"
    assert drawer["position"] == data.joint("wooden_cabinet_1_top_level").qpos[0] < -0.1
    np.testing.assert_array_equal(drawer["range"], [-0.16, 0.01])
    np.testing.assert_allclose(np.linalg.norm(drawer["axis"]), 1.0)
    knob = scene["objects"]["flat_stove_1"]["joints"]["flat_stove_1_button"]
    assert knob["kind"] == "hinge"
    np.testing.assert_array_equal(knob["anchor"], data.joint("flat_stove_1_button").xanchor)
    assert scene["objects"][BOWL]["joints"] == {}
    region = scene["sites"]["wooden_cabinet_1_top_region"]
    assert (region["parent"], region["joints"]) == (CABINET, ("wooden_cabinet_1_top_level",))
    assert scene["sites"]["main_table_plate_region"]["parent"] == ""


def test_reading_changes_nothing_and_a_scene_stays_as_it_was(task: LiberoEnv) -> None:
    before = task.simulator_state()
    scene = task.scene()
    kept = pickle.dumps(scene)
    np.testing.assert_array_equal(task.simulator_state(), before)
    task.step(np.array([1, 0, 0, 0, 0, 0, -1], np.float32))
    assert pickle.dumps(scene) == kept
    assert (task.scene()["end_effector"]["position"] != scene["end_effector"]["position"]).any()


def test_describe_is_one_read(task: LiberoEnv) -> None:
    once, again = describe(task._episodes.problem), task.scene()
    assert pickle.dumps(once) == pickle.dumps(again)


def test_reading_takes_less_than_a_millisecond(task: LiberoEnv) -> None:
    seconds = []
    for _ in range(50):
        start = time.perf_counter()
        task.scene()
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1e-3
