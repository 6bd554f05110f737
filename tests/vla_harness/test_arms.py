"""Conventions of several arms, of hands that keep no orientation of their own, and of joints."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vla_harness.conventions import Adapter
from vla_harness.errors import ConventionError
from vla_harness.registry import load_policy
from vla_harness.types import (
    DELTA_EEF_POSE,
    ActionConvention,
    EnvironmentSpec,
    JointConvention,
    Observation,
    PolicySpec,
)

ONE = replace(DELTA_EEF_POSE, gripper_open=0.0, gripper_closed=1.0, translation_unit=0.1)
TWO = replace(DELTA_EEF_POSE, arms=2)
NO_ROTATION = replace(DELTA_EEF_POSE, rotation="none", rotation_unit=1.0)
JOINTS = JointConvention("joint_velocity", 0.5, gripper_open=-1.0, gripper_closed=1.0, joints=(7, 6))
SEEN = Observation({}, np.zeros(0, np.float32), "", "two-arm/0/0/7", 0)


def adapter(policy: ActionConvention | JointConvention, environment: ActionConvention | JointConvention) -> Adapter:
    offered = EnvironmentSpec((), {}, environment, 20.0)
    return Adapter(offered, PolicySpec("toy", policy), "robosuite/two-arm")


def test_each_arms_entries_are_converted_like_those_of_one() -> None:
    chunk = np.random.default_rng(0).uniform(-1, 1, (5, 14)).astype(np.float32)
    together = adapter(replace(ONE, arms=2), TWO).actions(chunk)
    apart = [adapter(ONE, DELTA_EEF_POSE).actions(chunk[:, arm]) for arm in (slice(0, 7), slice(7, 14))]
    np.testing.assert_array_equal(together, np.concatenate(apart, axis=1))
    np.testing.assert_allclose(together[:, [6, 13]], 2 * chunk[:, [6, 13]] - 1, atol=1e-6)


def test_hands_without_a_rotation_are_converted_too() -> None:
    chunk = np.array([[0.5, 0.0, -0.5, 1.0]], np.float32)
    wide = replace(NO_ROTATION, translation_unit=0.1, gripper_open=1.0, gripper_closed=-1.0)
    np.testing.assert_allclose(adapter(wide, NO_ROTATION).actions(chunk), [[1.0, 0.0, -1.0, -1.0]])


@pytest.mark.parametrize(
    ("policy", "environment", "words"),
    [
        (DELTA_EEF_POSE, TWO, "'toy' moves 1 arm, the environment 'robosuite/two-arm' has 2 arms .action.arms."),
        (TWO, DELTA_EEF_POSE, "'toy' moves 2 arms, the environment 'robosuite/two-arm' has 1 arm .action.arms."),
        (DELTA_EEF_POSE, NO_ROTATION, "writes rotations as axis_angle, the .* takes them as none .action.rotation."),
        (NO_ROTATION, DELTA_EEF_POSE, "writes rotations as none, the .* takes them as axis_angle .action.rotation."),
        (replace(NO_ROTATION, rotation_unit=0.5), NO_ROTATION, "none entries have no unit"),
        (TWO, JOINTS, "'toy' writes changes of a hand's pose, the .* takes joint velocities .action.mode., and no"),
        (JOINTS, TWO, "'toy' writes joint velocities, the .* takes changes of a hand's pose .action.mode., and no"),
        (replace(JOINTS, mode="joint_delta"), JOINTS, "writes changes of joint positions, the .* takes joint velocit"),
        (replace(JOINTS, unit=1.0), JOINTS, "states 1.0 as its action.unit, the .* states 0.5: use"),
        (replace(JOINTS, joints=(7, 7)), JOINTS, r"states \(7, 7\) as its action.joints, the .* states \(7, 6\): use"),
    ],
)
def test_what_does_not_fit_is_named(
    policy: ActionConvention | JointConvention, environment: ActionConvention | JointConvention, words: str
) -> None:
    with pytest.raises(ConventionError, match=words):
        adapter(policy, environment)


@pytest.mark.parametrize(
    ("convention", "grippers", "dim"), [(TWO, (6, 13), 14), (NO_ROTATION, (3,), 4), (JOINTS, (7, 14), 15)]
)
def test_policies_without_a_model_write_what_the_environment_takes(
    convention: ActionConvention | JointConvention, grippers: tuple[int, ...], dim: int
) -> None:
    for name in ("noop", "random"):
        policy = load_policy(name, action=convention)
        assert adapter(policy.spec.action, convention).is_identity
        actions = policy.act([SEEN, SEEN])
        assert actions.shape == (2, 1, dim)
    (still,) = load_policy("noop", action=convention).act([SEEN])[0]
    np.testing.assert_array_equal(still, [-1.0 if entry in grippers else 0.0 for entry in range(dim)])
