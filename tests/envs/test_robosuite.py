"""robosuite's tasks as gymnasium environments: what they are, what an episode depends on, what a user can get wrong."""

from __future__ import annotations

import hashlib
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from numpy.typing import NDArray

from vla_harness.envs.robosuite.benchmark import CONTROLLERS, SUITES, suite_tasks
from vla_harness.envs.robosuite.environment import RobosuiteEnv
from vla_harness.errors import UserError
from vla_harness.types import JointConvention

TASKS = [(suite, task) for suite, tasks in SUITES.items() for task in tasks]


def make(suite: str, **options: Any) -> RobosuiteEnv:
    options = {"observations": "on_request"} | options
    environment = gymnasium.make(f"vla_harness.envs:robosuite/{suite}-v0", disable_env_checker=True, **options)
    assert isinstance(environment.unwrapped, RobosuiteEnv)
    return environment.unwrapped


def actions(environment: RobosuiteEnv, count: int = 4) -> NDArray[np.float32]:
    draw = np.random.default_rng(5).uniform(-1, 1, (count, environment.interface.action.dim))
    return draw.astype(np.float32)


def play(environment: RobosuiteEnv, initial_state: int) -> str:
    """Play a few random actions and return the hash of the state they lead to."""
    environment.reset(options={"initial_state": initial_state})
    for action in actions(environment):
        environment.step(action)
    return hashlib.sha256(environment.simulator_state().tobytes()).hexdigest()


def stock(name: str, **options: Any) -> Any:
    """robosuite's own environment, as its benchmark makes it."""
    import robosuite

    config = robosuite.load_controller_config(default_controller="OSC_POSE")
    options = {"use_camera_obs": False, "has_offscreen_renderer": False} | options
    np.random.seed(0)
    return robosuite.make(name, robots="Panda", controller_configs=config, hard_reset=False, control_freq=20, **options)


@pytest.mark.filterwarnings("ignore:.*A Box observation space (min|max)imum value:UserWarning")
@pytest.mark.parametrize("suite", SUITES)
def test_suites_pass_gymnasiums_checker(suite: str) -> None:
    frames = {"observations": "always", "render_mode": "rgb_array", "image_size": (48, 64)}
    environment = make(suite, **(frames if suite == "single-arm" else {}))
    check_env(environment, skip_render_check=suite != "single-arm")
    environment.close()


@pytest.mark.parametrize(("suite", "task"), TASKS, ids=[task.name for _, task in TASKS])
def test_every_task_is_what_it_says_and_starts_where_its_number_says(suite: str, task: Any) -> None:
    environment = make(suite, task=task.task_id)
    assert (environment.task_name, environment.instruction, environment.initial_states) == (
        task.name, task.instruction, 50
    )  # fmt: skip
    assert environment.interface.action.dim == 7 * task.arms == environment.action_space.shape[0]  # type: ignore[index]
    first = play(environment, 3)
    parts = {name: len(part) for name, part in environment.proprioception().items()}
    assert parts == environment.interface.state and ("gripper_qpos" in str(parts)) == task.gripper
    assert play(environment, 4) != first == play(environment, 3)
    # The stored states are what robosuite draws: without them the episode is the same.
    environment._episodes._stored = None
    assert play(environment, 3) == first


def test_an_episode_is_the_same_in_a_new_environment() -> None:
    first, second = make("single-arm", task=6), make("single-arm", task=6)
    play(first, 9)
    assert play(first, 2) == play(second, 2)


def test_states_and_steps_are_the_stock_environments() -> None:
    ours, theirs = make("single-arm", task=0), stock("Lift")
    ours.reset(options={"initial_state": 7})
    np.random.seed(7)
    theirs.reset()
    np.testing.assert_array_equal(ours.simulator_state(), theirs.sim.get_state().flatten())
    for action in actions(ours, 10):
        ours.step(action)
        observed, *_ = theirs.step(action)
    # The stock controller's very first reading of the arm is a pass of the solver older than ours.
    np.testing.assert_allclose(ours.simulator_state(), theirs.sim.get_state().flatten(), atol=1e-6)
    np.testing.assert_allclose(ours.proprioception()["eef_pos"], observed["robot0_eef_pos"], atol=1e-6)
    np.testing.assert_allclose(ours.proprioception()["gripper_qpos"], observed["robot0_gripper_qpos"], atol=1e-6)
    theirs.close()


def test_frames_show_the_moment_that_the_stock_observation_shows() -> None:
    ours = make("single-arm", task=1)
    size = {"camera_heights": 64, "camera_widths": 64, "camera_names": "agentview"}
    theirs = stock("Stack", use_camera_obs=True, has_offscreen_renderer=True, **size)
    ours.reset(options={"initial_state": 0})
    np.random.seed(0)
    theirs.reset()
    for action in np.full((4, 7), 1.0, np.float32):  # fast, so that another moment shows another frame
        before = ours.render_camera("agentview", 64, 64)
        ours.step(action)
        observed, *_ = theirs.step(action)
    frame, wanted = ours.render_camera("agentview", 64, 64), observed["agentview_image"][::-1]
    assert np.abs(frame.astype(int) - wanted).mean() < 0.01 < np.abs(frame.astype(int) - before).mean()
    theirs.close()
    ours.close()


def test_other_robots_report_their_own_joints_and_close_their_own_grippers() -> None:
    for robot, joints, fingers in (("Sawyer", 7, "gripper_qpos"), ("UR5e", 6, "gripper_joint_pos")):
        environment = make("single-arm", task=0, robot=robot)
        environment.reset(options={"initial_state": 1})
        still = environment.proprioception()
        for _ in range(6):
            environment.step(np.array([0, 0, 0, 0, 0, 0, 1], np.float32))
        after = environment.proprioception()
        assert after["joint_pos"].shape == (joints,) and np.abs(after[fingers] - still[fingers]).max() > 0.003
        np.testing.assert_allclose(after["eef_pos"], still["eef_pos"], atol=0.02)
    both = make("two-arm", task=0, robot="Panda,UR5e")
    assert both.interface.state["robot0_gripper_qpos"] == 2 and both.interface.state["robot1_gripper_joint_pos"] == 6
    assert play(both, 0) == play(both, 0)


def test_a_position_controller_takes_no_rotation_and_points_the_hand_down() -> None:
    environment = make("single-arm", task=0, controller="OSC_POSITION")
    assert environment.interface.action.dim == 4
    before, _ = environment.reset(options={"initial_state": 0})
    for _ in range(10):
        after, *_ = environment.step(np.array([0, 1, 0, -1], np.float32))
    assert after["eef_pos"][1] - before["eef_pos"][1] > 0.05
    assert abs(after["eef_quat_xyzw"][0]) > 0.999 > abs(before["eef_quat_xyzw"][0])


def test_units_are_those_of_robosuites_own_settings() -> None:
    import robosuite

    for controller, convention in CONTROLLERS.items():
        config = robosuite.load_controller_config(default_controller=controller)
        if isinstance(convention, JointConvention):
            wide: Any = convention.unit
        else:
            wide = [convention.translation_unit] * 3 + [convention.rotation_unit] * (convention.arm_dim - 4)
        assert (config["output_max"], config["input_max"], config["input_min"]) == (wide, 1, -1)
        np.testing.assert_array_equal(config["output_min"], -np.array(wide))


@pytest.mark.parametrize(
    ("controller", "least", "most"),  # radians in half a second at 1.0; 0.1 Nm are as much as the joint's friction
    [("JOINT_POSITION", 0.05, 0.1), ("JOINT_VELOCITY", 0.2, 0.25), ("JOINT_TORQUE", 1e-5, 1e-3)],
)
def test_a_joint_controller_moves_the_joint_that_is_asked(controller: str, least: float, most: float) -> None:
    environment = make("single-arm", task=0, controller=controller)
    assert environment.interface.action.dim == 8 == environment.action_space.shape[0]  # type: ignore[index]
    before, _ = environment.reset(options={"initial_state": 0})
    for _ in range(10):
        after, *_ = environment.step(np.array([0, 0, 0, 0, 0, 0, 1, 1], np.float32))
    moved = after["joint_pos"] - before["joint_pos"]
    assert least < moved[6] < most and np.abs(moved[:6]).max() < 0.1 * moved[6]
    assert np.abs(after["gripper_qpos"]).max() < np.abs(before["gripper_qpos"]).max() - 0.01
    # Episodes do not know of each other, though these controllers remember errors and goals.
    assert play(environment, 4) != play(environment, 3) == play(environment, 3)


def test_each_arm_has_an_entry_for_each_of_its_joints() -> None:
    both = make("two-arm", task=0, robot="Panda,UR5e", controller="JOINT_VELOCITY")
    convention = both.interface.action
    assert isinstance(convention, JointConvention) and convention.joints == (7, 6) and convention.dim == 8 + 7
    before, _ = both.reset(options={"initial_state": 0})
    for _ in range(8):
        after, *_ = both.step(np.eye(15, dtype=np.float32)[8])  # the UR5e's first joint
    assert after["robot1_joint_pos"][0] - before["robot1_joint_pos"][0] > 0.1
    np.testing.assert_allclose(after["robot0_joint_pos"], before["robot0_joint_pos"], atol=0.01)


def test_arms_move_apart_from_each_other() -> None:
    environment = make("two-arm", task=1)  # its second arm's entries begin after a gripper's that has no effect
    before, _ = environment.reset(options={"initial_state": 0})
    for _ in range(8):
        after, *_ = environment.step(np.array([0] * 7 + [0, 0, 1, 0, 0, 0, 1], np.float32))
    np.testing.assert_allclose(after["robot0_eef_pos"], before["robot0_eef_pos"], atol=0.005)
    assert after["robot1_eef_pos"][2] - before["robot1_eef_pos"][2] > 0.05


def test_wipe_ends_when_the_arm_hits_the_table() -> None:
    environment = make("single-arm", task=6)
    environment.reset(options={"initial_state": 0})
    for _ in range(200):
        _, reward, terminated, _, info = environment.step(np.array([0, 0, -1, 0, 1, 0, 0], np.float32))
        if terminated:
            break
    assert terminated and not info["success"] and reward == 0.0


def test_what_a_user_gets_wrong_is_said_in_one_sentence() -> None:
    for suite, options, words in (
        ("single-arm", {"task": 7}, "has tasks 0 to 6, not 7"),
        ("single-arm", {"robot": "Baxter"}, "no robot 'Baxter'.*choose one of Panda, Sawyer"),
        ("single-arm", {"robot": "Panda,Panda"}, "have 1 arm: name one for each"),
        ("two-arm", {"robot": "Panda,Panda,Panda"}, "have 2 arms: name one for each"),
        ("single-arm", {"controller": "IK_POSE"}, "needs pybullet, .*: choose one of OSC_POSE, OSC_POSITION"),
        ("single-arm", {"controller": "OSC_YAW"}, "no controller 'OSC_YAW': choose one of OSC_POSE, OSC_POSITION"),
    ):
        with pytest.raises(UserError, match=words):
            make(suite, **options)
    with pytest.raises(UserError, match="no robosuite suite 'three-arm'"):
        suite_tasks("three-arm")
    environment = make("single-arm", task=3)
    with pytest.raises(UserError, match="has initial states 0 to 49, not 50"):
        environment.reset(options={"initial_state": 50})
    with pytest.raises(UserError, match="is not described"):
        environment.scene()
