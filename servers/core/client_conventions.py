"""Conventions of each dialect's LIBERO client as data, and their conversion to and from the served policy's own.

Sources: openvla/openvla and moojink/openvla-oft ``experiments/robot/libero``, Physical-Intelligence/openpi
``examples/libero/main.py``, vla-eval 0.8.0 ``benchmarks/libero``, NVIDIA/Isaac-GR00T ``examples/Libero/eval``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vla_harness.conventions import Adapter, euler_xyz_from_quat, rot6d_from_quat
from vla_harness.errors import ConventionError
from vla_harness.types import DELTA_EEF_POSE, ActionConvention, EnvironmentSpec, ImageOrientation, PolicySpec

from .questions import state_length

LIBERO_STATE = ("eef_pos", "eef_axis_angle", "gripper_qpos")
"""The (8,) state of every LIBERO client; the rotation's quaternion keeps its sign, so angles reach 2 pi."""

_ZERO_CLOSES = replace(DELTA_EEF_POSE, gripper_open=1.0, gripper_closed=0.0)


@dataclass(frozen=True)
class ClientConvention:
    """What one project's LIBERO client sends, and how it reads the actions it gets.

    cameras: its names -> ours. image_size: (height, width) of its frames, which lie as ``images`` says.
    action: meaning of the actions that it expects, before its own post-processing.
    gripper_holds: it passes a gripper entry midway between open and closed on, which leaves the fingers where they
        are; False: it makes every entry open or closed.
    """

    name: str
    cameras: Mapping[str, str]
    image_size: tuple[int, int]
    action: ActionConvention = DELTA_EEF_POSE
    gripper_holds: bool = True
    images: ImageOrientation = "mirrored"


OPENVLA = ClientConvention("OpenVLA", {"image": "agentview"}, (224, 224), _ZERO_CLOSES)
OPENVLA_OFT = ClientConvention(
    "OpenVLA-OFT", {"full_image": "agentview", "wrist_image": "wrist"}, (224, 224), _ZERO_CLOSES
)
OPENPI = ClientConvention("openpi", {"image": "agentview", "wrist_image": "wrist"}, (224, 224))
VLA_EVAL = ClientConvention("vla-eval", {"agentview": "agentview", "wrist": "wrist"}, (256, 256), gripper_holds=False)
GROOT = ClientConvention("GR00T", {"image": "agentview", "wrist_image": "wrist"}, (256, 256), _ZERO_CLOSES)


def fits_libero(spec: PolicySpec) -> bool:
    """Return whether LIBERO's clients can execute the policy's actions: changes of one hand's pose, units stated."""
    try:
        _adapter(OPENPI, spec)
    except ConventionError:
        return False
    return True


def action_conversion(client: ClientConvention, spec: PolicySpec) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function that makes the policy's (n, dim) actions those that ``client`` expects, float32.

    Actions that no LIBERO client executes stay as they are: their client is a robot's of its own.
    """
    return _adapter(client, spec).actions if fits_libero(spec) else lambda chunk: chunk


def _adapter(client: ClientConvention, spec: PolicySpec) -> Adapter:
    environment = EnvironmentSpec(spec.cameras, {}, client.action, 20.0)
    return Adapter(environment, replace(spec, state_keys=(), state_lengths=()), f"{client.name}'s LIBERO client")


def camera_keys(client: ClientConvention, spec: PolicySpec, sent: Sequence[str]) -> dict[str, str]:
    """Return camera -> ``client``'s name of its image, for the policy's cameras, as far as the client has them.

    A camera that LIBERO has goes by its name; those of another robot take the ``sent`` names in their order.
    """
    names = {camera: key for key, camera in client.cameras.items()}
    if set(spec.cameras) <= names.keys():
        return {camera: names[camera] for camera in spec.cameras}
    return dict(zip(spec.cameras, sent, strict=False))


def sent_state(spec: PolicySpec) -> tuple[tuple[str, ...], int | None]:
    """Return the parts of the state that foreign clients send to the policy, and their length, None if not known.

    LIBERO's, when the policy's own parts follow from them; else the policy's own.
    """
    if fits_libero(spec) and spec.state_keys and set(spec.state_keys) <= _FROM_LIBERO.keys():
        return LIBERO_STATE, 8
    return spec.state_keys, state_length(spec)


def convert_state(state: np.ndarray, sent: tuple[str, ...], spec: PolicySpec) -> np.ndarray:
    """Return the policy's state, float32, of the parts that ``sent_state`` names."""
    if sent == spec.state_keys:
        return state
    return np.concatenate([_FROM_LIBERO[key](state) for key in spec.state_keys]).astype(np.float32)


def canonical_axis_angle(axis_angle: np.ndarray) -> np.ndarray:
    """Return (3,) float64: the same rotation by at most pi radians, as from the quaternion with w >= 0."""
    vector = np.asarray(axis_angle, np.float64)
    angle = float(np.linalg.norm(vector))
    return vector if angle <= math.pi else vector * (1.0 - 2.0 * math.pi / angle)


class BinaryGripper:
    """Replaces gripper entries that hold the fingers by the last one that moved them, for one episode's actions.

    For clients that only open and close. Until a first entry moves them the fingers are open, as episodes begin.
    """

    def __init__(self, action: ActionConvention) -> None:
        self._middle = (action.gripper_open + action.gripper_closed) / 2
        self._last = action.gripper_open

    def __call__(self, action: np.ndarray) -> np.ndarray:
        """Return (7,) ``action`` with a gripper entry that moves."""
        moved = action.copy()
        if moved[-1] == self._middle:
            moved[-1] = self._last
        self._last = moved[-1]
        return moved


def _quat_xyzw(state: np.ndarray) -> np.ndarray:
    """Return the quaternion whose ``axis_angle_from_quat`` the state holds, its sign included."""
    vector = state[3:6].astype(np.float64)
    angle = float(np.linalg.norm(vector))
    axis = vector / angle if angle else vector
    return np.append(axis * math.sin(angle / 2), math.cos(angle / 2))


_FROM_LIBERO: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # (8,) of LIBERO_STATE -> the part
    "eef_pos": lambda state: state[:3],
    "eef_axis_angle": lambda state: state[3:6],
    "eef_quat_xyzw": _quat_xyzw,
    "eef_euler_xyz": lambda state: euler_xyz_from_quat(_quat_xyzw(state)),
    "eef_rot6d": lambda state: rot6d_from_quat(_quat_xyzw(state)),
    "gripper_qpos": lambda state: state[6:],
}
