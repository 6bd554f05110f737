"""What gymnasium's users can get wrong at a registered environment, and what its state is to a server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest

import vla_harness.envs  # noqa: F401 - registers
from vla_harness.conventions import Adapter, state_lengths
from vla_harness.envs.environment import SimulatedEnv
from vla_harness.envs.robosuite.benchmark import ROBOTS, interface, suite_tasks
from vla_harness.errors import ConventionError, UserError
from vla_harness.servers.core.questions import blank_observation, state_length
from vla_harness.types import DELTA_EEF_POSE, EnvironmentSpec, PolicySpec


class Still(SimulatedEnv):
    """The checks of the base class, without a simulator."""

    def __init__(self) -> None:
        self.interface = EnvironmentSpec((), {"eef_pos": 3}, DELTA_EEF_POSE, 20.0)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (7,), np.float32)


@pytest.fixture
def still() -> Iterator[Still]:
    yield Still()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"initial_stat": 3},
            r"^There is no reset option 'initial_stat': choose from initial_state, placement_seed\.$",
        ),
        ({"initial_state": 1.5}, r"^The reset option 'initial_state' is 1\.5: give a whole number of at least 0\.$"),
        ({"initial_state": -1}, "is -1: give a whole number"),
        ({"placement_seed": True}, "is True: give a whole number"),
        ({"placement_seed": "7"}, "is '7': give a whole number"),
    ],
)
def test_reset_options_that_cannot_be_are_refused(still: Still, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        still._options(options, "initial_state", "placement_seed")


def test_reset_options_are_read(still: Still) -> None:
    assert still._options(None, "initial_state") == (None,)
    assert still._options({"initial_state": np.int64(4)}, "initial_state", "placement_seed") == (4, None)
    assert still._options({"initial_state": None}, "initial_state") == (None,)


@pytest.mark.parametrize(
    ("action", "got"),
    [
        (np.zeros(6), r"float64 of shape \(6,\)"),
        (np.zeros((1, 7)), r"float64 of shape \(1, 7\)"),
        (0.5, r"float64 of shape \(\)"),
        ([np.nan] + [0.0] * 6, r"float64 of shape \(7,\), not all finite"),
        ([np.inf] + [0.0] * 6, "not all finite"),
        (["0"] * 7, "U1 of shape"),
        (None, "object of shape"),
        ([[0.0], [0.0, 1.0]], "object of shape"),
        (np.zeros(7, complex), "complex128 of shape"),
        ([True] * 7, "bool of shape"),
    ],
)
def test_a_wrong_action_is_one_sentence(still: Still, action: Any, got: str) -> None:
    with pytest.raises(UserError, match=rf"^An action here is 7 finite numbers, and this one is .*{got}"):
        still._action(action)


def test_an_action_of_any_number_format_is_taken(still: Still) -> None:
    for action in ([0] * 7, [0.5] * 7, np.full(7, 0.5, np.float16), np.zeros(7, np.uint8)):
        assert np.array_equal(still._action(action), np.asarray(action, np.float64))


def test_registered_ids_have_their_suites_step_limit() -> None:
    limits = {f"libero/{suite}-v0": steps for suite, steps in _LIBERO_STEPS.items()}
    limits |= {"robosuite/single-arm-v0": 500, "robosuite/two-arm-v0": 500}
    assert {name: gymnasium.spec(name).max_episode_steps for name in limits} == limits


_LIBERO_STEPS = {"spatial": 220, "object": 280, "goal": 300, "10": 520, "90": 400}  # openvla's


@pytest.mark.parametrize("robot", ROBOTS)
def test_the_joints_of_each_robot_are_its_own(robot: str) -> None:
    offered = interface(suite_tasks("single-arm")[0], (robot,), "OSC_POSE")
    joints = {"UR5e": 6}.get(robot, 7)
    assert offered.state["joint_pos"] == joints
    keys = ("joint_pos", "eef_axis_angle")
    stated = PolicySpec("fits", DELTA_EEF_POSE, state_keys=keys, state_lengths=(joints, 3))
    assert state_length(stated) == joints + 3
    blank = blank_observation(stated)
    assert blank is not None and blank.state.shape == (joints + 3,)
    reported = {name: np.zeros(length) for name, length in offered.state.items()}
    reported["eef_quat_xyzw"][3] = 1.0
    assert Adapter(offered, stated, robot).state(reported).shape == (joints + 3,)
    silent = PolicySpec("silent", DELTA_EEF_POSE, state_keys=keys)
    assert state_lengths(silent) == (None, 3) and state_length(silent) is None
    Adapter(offered, silent, robot)
    other = PolicySpec("other", DELTA_EEF_POSE, state_keys=keys, state_lengths=(13 - joints, 3))
    with pytest.raises(
        ConventionError, match=rf"reads {13 - joints} numbers as the state part 'joint_pos'.* reports {joints}"
    ):
        Adapter(offered, other, robot)


def test_lengths_are_of_the_state_parts_that_are_named() -> None:
    spec = PolicySpec("two arms", DELTA_EEF_POSE, state_keys=("robot0_eef_pos", "robot1_gripper_qpos"))
    assert state_lengths(spec) == (3, 2)
    with pytest.raises(ValueError, match="1 lengths of state for eef_pos, gripper_qpos"):
        PolicySpec("wrong", DELTA_EEF_POSE, state_keys=("eef_pos", "gripper_qpos"), state_lengths=(3,))
