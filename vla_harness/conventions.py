"""Joins an environment's conventions to a policy's: once, before the first episode, or not at all.

``Adapter(environment, policy)`` checks every field of the two specs and raises ``ConventionError`` for what no known
conversion joins, because an unnoticed mismatch does not crash: it shows as a success rate of 0 %. What the two specs
state alike passes through unchanged, bit for bit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import fields

import numpy as np
from scipy.spatial.transform import Rotation as SciPyRotation

from .errors import ConventionError
from .types import ActionConvention, EnvironmentSpec, ImageOrientation, JointConvention, PolicySpec

_FLIPS: dict[ImageOrientation, tuple[bool, bool]] = {  # (top to bottom, left to right), relative to upright
    "upright": (False, False),
    "upside_down": (True, False),
    "rotated_180": (True, True),
    "mirrored": (False, True),
}


def orient(image: np.ndarray, source: ImageOrientation, target: ImageOrientation) -> np.ndarray:
    """Return (..., H, W, C) ``image``, which lies as ``source`` says, turned to lie as ``target`` says; contiguous.

    Example: the frames OpenVLA was trained on are ``orient(upright, "upright", "mirrored")``.
    """
    vertical, horizontal = (a != b for a, b in zip(_FLIPS[source], _FLIPS[target], strict=True))
    rows = slice(None, None, -1 if vertical else 1)
    columns = slice(None, None, -1 if horizontal else 1)
    return np.ascontiguousarray(image[..., rows, columns, :])


def axis_angle_from_quat(quat_xyzw: np.ndarray) -> np.ndarray:
    """Return (3,) float64: unit axis times angle in [0, 2 pi] radians of a (4,) unit quaternion.

    As ``robosuite.utils.transform_utils.quat2axisangle`` does it: q and -q, the same rotation, give different vectors.
    Policies were trained on this function's output, so the quaternion's sign is not normalised.
    """
    quat = np.asarray(quat_xyzw, np.float64)
    w = min(1.0, max(-1.0, float(quat[3])))
    norm = math.sqrt(1.0 - w * w)
    if math.isclose(norm, 0.0):
        return np.zeros(3)
    return (quat[:3] * 2.0 * math.acos(w)) / norm


def euler_xyz_from_quat(quat_xyzw: np.ndarray) -> np.ndarray:
    """Return (3,) float64 radians: rotations about the fixed x, then y, then z axis."""
    return SciPyRotation.from_quat(quat_xyzw).as_euler("xyz")


def rot6d_from_quat(quat_xyzw: np.ndarray) -> np.ndarray:
    """Return (6,) float64: the first two columns of the rotation matrix, one after the other (Zhou et al. 2019)."""
    return _to_rot6d(SciPyRotation.from_quat(quat_xyzw))


DERIVED_STATE: dict[str, tuple[str, int, Callable[[np.ndarray], np.ndarray]]] = {
    "eef_axis_angle": ("eef_quat_xyzw", 3, axis_angle_from_quat),
    "eef_euler_xyz": ("eef_quat_xyzw", 3, euler_xyz_from_quat),
    "eef_rot6d": ("eef_quat_xyzw", 6, rot6d_from_quat),
}
"""State parts that follow from another part: name -> (from, length, function of that part)."""

STATE_LENGTHS = {"eef_pos": 3, "eef_quat_xyzw": 4, "gripper_qpos": 2} | {
    name: length for name, (_, length, _) in DERIVED_STATE.items()
}
"""Lengths of the state parts that are the same for every robot."""


def state_lengths(policy: PolicySpec) -> tuple[int | None, ...]:
    """Return the length of each of ``policy.state_keys``; None where it depends on the robot and is not stated."""
    names = (re.sub(r"^robot\d_", "", key) for key in policy.state_keys)  # of one of two arms
    return policy.state_lengths or tuple(STATE_LENGTHS.get(name) for name in names)


_MODES = {
    "delta": "changes of a hand's pose",
    "absolute": "poses of a hand",
    "joint_delta": "changes of joint positions",
    "joint_velocity": "joint velocities",
    "joint_torque": "joint torques",
    "unknown": "numbers of unknown meaning",
}


class Adapter:
    """What stands between one environment and one policy: ``state`` on the way in, ``actions`` on the way back.

    Raises ConventionError, in one sentence that names both sides and the field, when the policy reads a camera or a
    state part that the environment does not offer, or when their actions cannot be converted.
    """

    def __init__(self, environment: EnvironmentSpec, policy: PolicySpec, environment_name: str) -> None:
        """Check every field of the two specs and settle the conversions; ``environment_name`` is for messages."""
        self.environment = environment
        self.policy = policy
        names = f"the policy {policy.name!r}", f"the environment {environment_name!r}"
        _check_cameras(environment, policy, names)
        _check_state(environment, policy, names)
        self._convert = _action_conversion(policy.action, environment.action, names)
        self.is_identity = self._convert is None

    def state(self, proprioception: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return (D,) float32: the parts the policy reads, concatenated in its order; (0,) when it reads none."""
        parts = [np.zeros(0)]
        for key in self.policy.state_keys:
            if key in self.environment.state:
                parts.append(np.asarray(proprioception[key], np.float64))
            else:
                source, _, derive = DERIVED_STATE[key]
                parts.append(derive(np.asarray(proprioception[source], np.float64)))
        return np.concatenate(parts).astype(np.float32)

    def actions(self, chunk: np.ndarray) -> np.ndarray:
        """Return the policy's (n, dim) actions as (n, environment dim) float32 actions of the environment.

        Raises ValueError in one sentence when an entry is not finite.
        """
        if not np.isfinite(chunk).all():
            row, entry = np.argwhere(~np.isfinite(chunk))[0]
            raise ValueError(
                f"The policy {self.policy.name!r} returned {chunk[row, entry]} as entry {entry} of action {row} of its"
                " chunk, and a robot takes finite numbers only."
            )
        if self._convert is None:
            return np.ascontiguousarray(chunk, np.float32)
        return self._convert(np.asarray(chunk, np.float64)).astype(np.float32)


def _check_cameras(environment: EnvironmentSpec, policy: PolicySpec, names: tuple[str, str]) -> None:
    for camera in policy.cameras:
        if camera not in environment.cameras:
            offered = ", ".join(environment.cameras) or "none"
            raise ConventionError(
                f"{_capital(names[0])} reads the camera {camera!r} (cameras), which {names[1]} does not have"
                f" (it has: {offered}): use a policy or an environment whose cameras agree."
            )


def _check_state(environment: EnvironmentSpec, policy: PolicySpec, names: tuple[str, str]) -> None:
    for key, length in zip(policy.state_keys, state_lengths(policy), strict=True):
        if key not in environment.state and not (key in DERIVED_STATE and DERIVED_STATE[key][0] in environment.state):
            derived = [name for name, (source, _, _) in DERIVED_STATE.items() if source in environment.state]
            offered = ", ".join([*environment.state, *derived]) or "none"
            raise ConventionError(
                f"{_capital(names[0])} reads the state part {key!r} (state_keys), which {names[1]} does not report"
                f" (it reports: {offered}): use a policy or an environment whose state parts agree."
            )
        offered_length = environment.state.get(key) or DERIVED_STATE[key][1]
        if length is not None and length != offered_length:
            raise ConventionError(
                f"{_capital(names[0])} reads {length} numbers as the state part {key!r} (state_lengths), of which"
                f" {names[1]} reports {offered_length}: use a policy or a robot whose state parts agree."
            )


def _action_conversion(
    policy: ActionConvention | JointConvention, environment: ActionConvention | JointConvention, names: tuple[str, str]
) -> Callable[[np.ndarray], np.ndarray] | None:
    """Return the function of (n, dim) float64 actions, or None when there is nothing to convert."""
    if policy.mode == "unknown":
        raise ConventionError(
            f"{_capital(names[0])} does not know what its actions mean (action.mode is unknown), so they cannot drive"
            f" {names[1]}: use a checkpoint or unnorm key that states it, or state it by the policy's own option."
        )
    if isinstance(policy, JointConvention) or isinstance(environment, JointConvention):
        _check_joints(policy, environment, names)
        return None
    _check_poses(policy, environment, names)
    scale = policy.translation_unit / environment.translation_unit
    convert_rotation = _rotation_conversion(policy, environment)
    convert_gripper = _gripper_conversion(policy, environment)
    if scale == 1.0 and convert_rotation is None and convert_gripper is None:
        return None
    arm_dim, dim = policy.arm_dim, environment.dim

    def convert(chunk: np.ndarray) -> np.ndarray:
        arms = chunk.reshape(-1, arm_dim)  # a row for each arm
        translation, rotation, gripper = arms[:, :3] * scale, arms[:, 3:-1], arms[:, -1:]
        if convert_rotation is not None:
            rotation = convert_rotation(rotation)
        if convert_gripper is not None:
            gripper = convert_gripper(gripper)
        return np.concatenate([translation, rotation, gripper], axis=1).reshape(len(chunk), dim)

    return convert


def _check_joints(
    policy: ActionConvention | JointConvention, environment: ActionConvention | JointConvention, names: tuple[str, str]
) -> None:
    """Refuse all but equal conventions: nothing is converted to joints, from joints or between them."""
    _check_modes(policy, environment, names)
    for field in fields(policy):
        ours, theirs = getattr(policy, field.name), getattr(environment, field.name)
        if ours != theirs:
            raise ConventionError(
                f"{_capital(names[0])} states {ours} as its action.{field.name}, {names[1]} states {theirs}: use a"
                " policy or an environment whose joints agree."
            )


def _check_modes(
    policy: ActionConvention | JointConvention, environment: ActionConvention | JointConvention, names: tuple[str, str]
) -> None:
    if policy.mode != environment.mode:
        raise ConventionError(
            f"{_capital(names[0])} writes {_MODES[policy.mode]}, {names[1]} takes {_MODES[environment.mode]}"
            " (action.mode), and no conversion between the two is known: use a policy or an environment whose modes"
            " agree."
        )


def _check_poses(policy: ActionConvention, environment: ActionConvention, names: tuple[str, str]) -> None:
    for convention, name in ((policy, names[0]), (environment, names[1])):
        for field in ("translation_unit", "rotation_unit"):
            value = getattr(convention, field)
            if not (math.isfinite(value) and value > 0):
                raise ConventionError(
                    f"{_capital(name)} states {value} as its action.{field}, so the actions of {names[0]} and"
                    f" {names[1]} cannot be joined: state a positive number."
                )
        if convention.rotation in ("quat_xyzw", "rot6d", "none") and convention.rotation_unit != 1.0:
            raise ConventionError(
                f"{_capital(name)} states {convention.rotation_unit} as its action.rotation_unit, but"
                f" {convention.rotation} entries have no unit, so the actions of {names[0]} and {names[1]} cannot be"
                " joined: state 1.0."
            )
        ends = convention.gripper_open, convention.gripper_closed
        if not all(map(math.isfinite, ends)) or ends[0] == ends[1]:
            raise ConventionError(
                f"{_capital(name)} states {ends[0]} as its action.gripper_open and {ends[1]} as its"
                f" action.gripper_closed, so the grippers of {names[0]} and {names[1]} cannot be joined:"
                " state two different numbers."
            )
    _check_modes(policy, environment, names)
    if policy.arms != environment.arms:
        raise ConventionError(
            f"{_capital(names[0])} moves {_arms(policy)}, {names[1]} has {_arms(environment)} (action.arms): use a"
            " policy or an environment whose arms agree."
        )
    if policy.rotation != environment.rotation and "none" in (policy.rotation, environment.rotation):
        raise ConventionError(
            f"{_capital(names[0])} writes rotations as {policy.rotation}, {names[1]} takes them as"
            f" {environment.rotation} (action.rotation), and what one of the two leaves out is not made up: use a"
            " policy or an environment whose rotations agree."
        )


def _arms(convention: ActionConvention) -> str:
    return f"{convention.arms} arm{'' if convention.arms == 1 else 's'}"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _to_rot6d(rotation: SciPyRotation) -> np.ndarray:
    matrix = rotation.as_matrix()
    return np.concatenate([matrix[..., :, 0], matrix[..., :, 1]], axis=-1)


def _from_rot6d(entries: np.ndarray) -> SciPyRotation:
    """Return rotations of (n, 6) entries by Gram-Schmidt: networks do not write orthonormal columns."""
    first = _unit(entries[:, :3])
    second = entries[:, 3:]
    second = _unit(second - (first * second).sum(1, keepdims=True) * first)
    return SciPyRotation.from_matrix(np.stack([first, second, np.cross(first, second)], axis=2))


def _unit(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if (norms < 1e-6).any():
        raise ValueError("The policy wrote rot6d entries that span no plane, so they are no rotation.")
    return vectors / norms


_READ: dict[str, Callable[[np.ndarray], SciPyRotation]] = {  # (n, k) entries in radians -> n rotations
    "axis_angle": SciPyRotation.from_rotvec,
    "euler_xyz": lambda entries: SciPyRotation.from_euler("xyz", entries),
    "quat_xyzw": SciPyRotation.from_quat,
    "rot6d": _from_rot6d,
}
_WRITE: dict[str, Callable[[SciPyRotation], np.ndarray]] = {
    "axis_angle": lambda rotation: rotation.as_rotvec(),
    "euler_xyz": lambda rotation: rotation.as_euler("xyz"),
    "quat_xyzw": lambda rotation: rotation.as_quat(canonical=True),  # of q and -q, the one with w >= 0
    "rot6d": _to_rot6d,
}


def _rotation_conversion(
    source: ActionConvention, target: ActionConvention
) -> Callable[[np.ndarray], np.ndarray] | None:
    """Return the function of (n, k) rotation entries, or None when there is nothing to convert.

    It serves deltas and absolute poses alike: both left-multiply in world axes, whatever their representation.
    """
    if source.rotation == target.rotation:
        ratio = source.rotation_unit / target.rotation_unit
        return None if ratio == 1.0 else lambda entries: entries * ratio
    read, write = _READ[source.rotation], _WRITE[target.rotation]
    return lambda entries: write(read(entries * source.rotation_unit)) / target.rotation_unit


def _gripper_conversion(
    source: ActionConvention, target: ActionConvention
) -> Callable[[np.ndarray], np.ndarray] | None:
    """Return the linear map that takes open to open and closed to closed, or None when there is nothing to convert."""
    same_ends = (source.gripper_open, source.gripper_closed) == (target.gripper_open, target.gripper_closed)
    if same_ends and not source.gripper_binary:
        return None
    span = source.gripper_closed - source.gripper_open

    def convert(entries: np.ndarray) -> np.ndarray:
        closed = (entries - source.gripper_open) / span  # 0 is open, 1 is closed
        if source.gripper_binary:
            closed = (closed > 0.5).astype(np.float64)  # at the very middle the gripper stays open
        return target.gripper_open + closed * (target.gripper_closed - target.gripper_open)

    return convert
