"""Conversions between conventions, each against an independent way of computing it, and the refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vla_harness.conventions import Adapter, axis_angle_from_quat, orient
from vla_harness.errors import ConventionError
from vla_harness.types import DELTA_EEF_POSE, ActionConvention, EnvironmentSpec, ImageOrientation, PolicySpec

ABSOLUTE = ActionConvention("absolute", 1.0, "quat_xyzw", 1.0, gripper_open=0.0, gripper_closed=1.0)
ROBOT = EnvironmentSpec(
    cameras=("agentview", "wrist"),
    state={"eef_pos": 3, "eef_quat_xyzw": 4, "gripper_qpos": 2},
    action=DELTA_EEF_POSE,
    control_hz=20.0,
)


def adapter(
    policy: ActionConvention = DELTA_EEF_POSE, environment: ActionConvention = DELTA_EEF_POSE, **spec: Any
) -> Adapter:
    return Adapter(replace(ROBOT, action=environment), PolicySpec("tested", policy, **spec), "bench/suite")


def random_rotations(count: int) -> Rotation:
    return Rotation.random(count, rng=np.random.default_rng(3))


# Images.


@pytest.mark.parametrize(
    ("target", "rows", "columns"),
    [("upright", 1, 1), ("upside_down", -1, 1), ("rotated_180", -1, -1), ("mirrored", 1, -1)],
)
def test_orient_turns_an_upright_frame(target: ImageOrientation, rows: int, columns: int) -> None:
    upright = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    turned = orient(upright, "upright", target)
    np.testing.assert_array_equal(turned, upright[::rows, ::columns])
    np.testing.assert_array_equal(orient(turned, target, "upright"), upright)
    assert turned.flags.c_contiguous


def test_the_rotated_raw_frames_of_libero_are_mirrored_upright_ones() -> None:
    upright = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), np.uint8)
    raw = orient(upright, "upright", "upside_down")
    np.testing.assert_array_equal(raw[:, ::-1, ::-1], orient(upright, "upright", "mirrored"))
    np.testing.assert_array_equal(orient(raw, "upside_down", "mirrored"), orient(upright, "upright", "mirrored"))


# State.


def robosuite_quat2axisangle(quat: np.ndarray) -> np.ndarray:
    """``robosuite.utils.transform_utils.quat2axisangle`` of robosuite 1.4.0, word for word."""
    if quat[3] > 1.0:
        quat[3] = 1.0
    elif quat[3] < -1.0:
        quat[3] = -1.0
    den = np.sqrt(1.0 - quat[3] * quat[3])
    if math.isclose(den, 0.0):
        return np.zeros(3)
    return (quat[:3] * 2.0 * math.acos(quat[3])) / den


def test_axis_angle_is_robosuites_to_the_last_bit() -> None:
    quats = [*random_rotations(200).as_quat(), np.array([0, 0, 0, 1.0000001]), np.array([0, 0, 0, -1.0])]
    for quat in [*quats, *(-quat for quat in quats)]:
        np.testing.assert_array_equal(axis_angle_from_quat(quat), robosuite_quat2axisangle(quat.copy()))


def test_axis_angle_keeps_the_sign_of_the_quaternion() -> None:
    quat = np.array([1.0, 0.0, 0.0, -0.5]) / math.sqrt(1.25)
    assert np.linalg.norm(axis_angle_from_quat(quat)) > math.pi > np.linalg.norm(axis_angle_from_quat(-quat))


def test_state_parts_are_derived_and_concatenated_in_the_policys_order() -> None:
    rotation = random_rotations(1)[0]
    reported = {"eef_pos": np.array([0.1, 0.2, 0.3]), "eef_quat_xyzw": rotation.as_quat(), "gripper_qpos": np.ones(2)}
    keys = ("gripper_qpos", "eef_rot6d", "eef_euler_xyz", "eef_axis_angle", "eef_pos")
    state = adapter(state_keys=keys).state(reported)
    assert state.dtype == np.float32 and state.shape == (2 + 6 + 3 + 3 + 3,)
    np.testing.assert_array_equal(state[:2], 1)
    np.testing.assert_allclose(state[2:8], rotation.as_matrix()[:, :2].T.ravel(), atol=1e-6)
    x, y, z = state[8:11]
    one_by_one = Rotation.from_rotvec([0, 0, z]) * Rotation.from_rotvec([0, y, 0]) * Rotation.from_rotvec([x, 0, 0])
    np.testing.assert_allclose(one_by_one.as_matrix(), rotation.as_matrix(), atol=1e-6)
    np.testing.assert_allclose(Rotation.from_rotvec(state[11:14]).as_matrix(), rotation.as_matrix(), atol=1e-6)
    np.testing.assert_array_equal(state[14:], np.array([0.1, 0.2, 0.3], np.float32))


def test_a_policy_that_reads_no_state_gets_an_empty_one() -> None:
    state = adapter().state({"eef_pos": np.zeros(3)})
    assert state.shape == (0,) and state.dtype == np.float32


# Actions.


def test_equal_conventions_pass_actions_through_bit_for_bit() -> None:
    chunk = np.random.default_rng(1).uniform(-3, 3, (16, 7)).astype(np.float32)
    same = adapter()
    assert same.is_identity
    np.testing.assert_array_equal(same.actions(chunk).view(np.uint32), chunk.view(np.uint32))


def test_units_are_scaled() -> None:
    metric = replace(DELTA_EEF_POSE, translation_unit=1.0, rotation_unit=1.0)  # metres and radians
    (action,) = adapter(policy=metric).actions(np.array([[0.05, 0, -0.025, 0.5, 0, -0.25, 1]], np.float32))
    np.testing.assert_allclose(action, [1, 0, -0.5, 1, 0, -0.5, 1], atol=1e-6)


def test_only_the_gripper_differs_and_the_rest_stays_bit_for_bit() -> None:
    chunk = np.random.default_rng(1).uniform(-1, 1, (16, 7)).astype(np.float32)
    other = adapter(policy=replace(DELTA_EEF_POSE, gripper_open=1.0, gripper_closed=0.0)).actions(chunk)
    np.testing.assert_array_equal(other[:, :6].view(np.uint32), chunk[:, :6].view(np.uint32))
    np.testing.assert_allclose(other[:, 6], 1 - 2 * chunk[:, 6], rtol=1e-6)


@pytest.mark.parametrize("source", ["axis_angle", "euler_xyz", "quat_xyzw", "rot6d"])
@pytest.mark.parametrize("target", ["axis_angle", "euler_xyz", "quat_xyzw", "rot6d"])
@pytest.mark.parametrize("mode", ["delta", "absolute"])
def test_rotations_are_the_same_ones_in_every_representation(source: str, target: str, mode: str) -> None:
    rotations = random_rotations(50)
    matrices = rotations.as_matrix()
    written = {
        "axis_angle": rotations.as_rotvec(),
        "euler_xyz": rotations.as_euler("xyz"),
        "quat_xyzw": rotations.as_quat(canonical=True),
        "rot6d": np.concatenate([matrices[:, :, 0], matrices[:, :, 1]], axis=1),
    }
    policy = ActionConvention(mode, 1.0, source, 1.0, 0.0, 1.0)  # type: ignore[arg-type]
    environment = ActionConvention(mode, 1.0, target, 1.0, 0.0, 1.0)  # type: ignore[arg-type]
    chunk = np.concatenate([np.zeros((50, 3)), written[source], np.zeros((50, 1))], axis=1).astype(np.float32)
    actions = adapter(policy, environment).actions(chunk)
    assert actions.shape == (50, environment.dim)
    np.testing.assert_allclose(actions[:, 3:-1], written[target], atol=1e-5)


def test_rotation_units_hold_on_both_sides_of_a_change_of_representation() -> None:
    euler = replace(DELTA_EEF_POSE, rotation="euler_xyz", rotation_unit=0.1)
    (action,) = adapter(policy=euler).actions(np.array([[0, 0, 0, 0, 0, 2, 0]], np.float32))  # 0.2 rad about z
    np.testing.assert_allclose(action[3:6], [0, 0, 0.2 / 0.5], atol=1e-6)


def test_columns_that_are_not_orthonormal_are_made_so() -> None:
    policy = replace(ABSOLUTE, rotation="rot6d")
    (action,) = adapter(policy, ABSOLUTE).actions(np.array([[0, 0, 0, 2, 0, 0, 5, 3, 0, 0]], np.float32))
    np.testing.assert_allclose(action[3:7], [0, 0, 0, 1], atol=1e-6)


@pytest.mark.parametrize(
    ("entry", "sent"), [(0.0, -1.0), (0.49, -1.0), (0.5, -1.0), (0.51, 1.0), (1.0, 1.0), (7.0, 1.0)]
)
def test_a_binary_gripper_is_thresholded_at_the_middle(entry: float, sent: float) -> None:
    binary = replace(DELTA_EEF_POSE, gripper_open=0.0, gripper_closed=1.0, gripper_binary=True)
    assert adapter(policy=binary).actions(np.array([[0, 0, 0, 0, 0, 0, entry]], np.float32))[0, -1] == sent


def test_a_binary_gripper_with_equal_ends_is_still_thresholded() -> None:
    binary = replace(DELTA_EEF_POSE, gripper_binary=True)
    chunk = np.zeros((2, 7), np.float32)
    chunk[:, -1] = [-0.2, 0.2]
    np.testing.assert_array_equal(adapter(policy=binary).actions(chunk)[:, -1], [-1, 1])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_action_that_is_not_finite_is_refused(value: float) -> None:
    chunk = np.zeros((3, 7), np.float32)
    chunk[1, 4] = value
    with pytest.raises(ValueError, match=r"'tested' returned .* as entry 4 of action 1"):
        adapter().actions(chunk)


def test_a_rotation_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="rotation"):
        adapter(replace(ABSOLUTE, rotation="rot6d"), ABSOLUTE).actions(np.zeros((1, 10), np.float32))
    with pytest.raises(ValueError, match="norm"):
        adapter(ABSOLUTE, replace(ABSOLUTE, rotation="axis_angle")).actions(np.zeros((1, 8), np.float32))


# Refusals.


@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("cameras", lambda: adapter(cameras=("agentview", "front"))),
        ("state_keys", lambda: adapter(state_keys=("joint_pos",))),
        ("action.mode", lambda: adapter(policy=ABSOLUTE)),
        ("action.mode", lambda: adapter(environment=ABSOLUTE)),
        ("action.translation_unit", lambda: adapter(policy=replace(DELTA_EEF_POSE, translation_unit=0.0))),
        ("action.rotation_unit", lambda: adapter(environment=replace(DELTA_EEF_POSE, rotation_unit=math.nan))),
        ("action.rotation_unit", lambda: adapter(policy=replace(ABSOLUTE, rotation_unit=0.5), environment=ABSOLUTE)),
        ("action.gripper_open", lambda: adapter(policy=replace(DELTA_EEF_POSE, gripper_open=1.0))),
    ],
)
def test_what_cannot_be_joined_is_refused_in_one_sentence(field: str, make: Callable[[], Adapter]) -> None:
    with pytest.raises(ConventionError) as refusal:
        make()
    sentence = str(refusal.value)
    assert field in sentence and "policy 'tested'" in sentence and "environment 'bench/suite'" in sentence
    assert sentence.endswith(".") and "\n" not in sentence
    assert sentence[0].isupper()


def test_a_derived_part_needs_its_source() -> None:
    environment = replace(ROBOT, state={"eef_pos": 3})
    with pytest.raises(ConventionError, match="eef_axis_angle"):
        Adapter(environment, PolicySpec("tested", DELTA_EEF_POSE, state_keys=("eef_axis_angle",)), "bench/suite")
