"""The contract between environments, policies and rollouts: observations, specs, the Policy interface.

A policy never sees the environment and an environment never sees the policy. What each expects is data in its spec;
``vla_harness.conventions`` joins the two before the first episode, or refuses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from types import MappingProxyType
from typing import Any, Literal, Protocol

import numpy as np

ImageOrientation = Literal["upright", "upside_down", "rotated_180", "mirrored"]
"""How a frame lies relative to what a person would see.

``rotated_180`` turns the upright frame by 180 degrees. ``mirrored`` is the upright frame flipped left to right: this is
what LIBERO's "rotated by 180 degrees" training data (``raw[::-1, ::-1]``) are, because the raw frame is
``upside_down``.
"""

Rotation = Literal["axis_angle", "euler_xyz", "quat_xyzw", "rot6d", "none", "unknown"]
"""How a rotation is written; "none": not at all, the controller itself sees to the hand's orientation; "unknown": by
three numbers of unknown meaning (see ``UNKNOWN_ACTION``)."""


@dataclass(frozen=True)
class Observation:
    """What a policy sees of one episode at one moment.

    images: camera name -> (H, W, 3) uint8, upright.
    state: (D,) float32, the parts named by ``PolicySpec.state_keys``, concatenated in that order.
    instruction: the task in words.
    episode: an identifier that is unique in a run; per-episode memory and random draws are keyed by it.
    step: environment steps since the end of the settle phase; 0 on the first call of an episode.
    scene: the simulator's own state, for policies whose spec says ``reads_scene``; None for all others.
    """

    images: Mapping[str, np.ndarray]
    state: np.ndarray
    instruction: str
    episode: str
    step: int
    scene: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class ActionConvention:
    """The meaning of an action vector that moves hands: [translation 3 | rotation | gripper 1], arm after arm.

    mode: "delta" (relative to the current end-effector pose, world axes), "absolute" (world pose, metres), or
        "unknown": nobody has said what the numbers mean, and no environment is driven by them.
    translation_unit: metres per 1.0 of a translation entry.
    rotation: representation of the rotation entries; a delta rotation left-multiplies the current one.
    rotation_unit: radians per 1.0 of a rotation entry (1.0 for absolute poses).
    gripper_open, gripper_closed: values of the last entry that open and close the gripper.
    gripper_binary: the entry is thresholded at the middle of the two values before it is converted.
    arms: how many arms the vector moves.
    """

    mode: Literal["delta", "absolute", "unknown"]
    translation_unit: float
    rotation: Rotation
    rotation_unit: float
    gripper_open: float
    gripper_closed: float
    gripper_binary: bool = False
    arms: int = 1

    @property
    def arm_dim(self) -> int:
        """Number of entries of one arm."""
        lengths = {"axis_angle": 3, "euler_xyz": 3, "quat_xyzw": 4, "rot6d": 6, "none": 0, "unknown": 3}
        return 3 + lengths[self.rotation] + 1

    @property
    def dim(self) -> int:
        """Length of the action vector."""
        return self.arms * self.arm_dim

    @property
    def gripper_entries(self) -> tuple[int, ...]:
        """Where in the action vector the grippers' entries are."""
        return tuple(range(self.arm_dim - 1, self.dim, self.arm_dim))


@dataclass(frozen=True)
class JointConvention:
    """The meaning of an action vector that commands joints: [an entry per joint | gripper 1], arm after arm.

    mode: "joint_delta" (radians from the joint's present position), "joint_velocity" (radians per second) or
    "joint_torque" (newton metres, beside those that hold the arm against gravity).
    unit: of that, per 1.0 of a joint's entry.
    gripper_open, gripper_closed: values of an arm's last entry that open and close its gripper.
    joints: how many each arm has.
    """

    mode: Literal["joint_delta", "joint_velocity", "joint_torque"]
    unit: float
    gripper_open: float
    gripper_closed: float
    joints: tuple[int, ...]

    @property
    def dim(self) -> int:
        """Length of the action vector."""
        return sum(self.joints) + len(self.joints)

    @property
    def gripper_entries(self) -> tuple[int, ...]:
        """Where in the action vector the grippers' entries are."""
        return tuple(end - 1 for end in accumulate(count + 1 for count in self.joints))


DELTA_EEF_POSE = ActionConvention(
    mode="delta",
    translation_unit=0.05,
    rotation="axis_angle",
    rotation_unit=0.5,
    gripper_open=-1.0,
    gripper_closed=1.0,
)
"""robosuite's OSC_POSE at its default scale, which LIBERO uses: (7,), every entry in [-1, 1]."""

_NAN = float("nan")
UNKNOWN_ACTION = ActionConvention("unknown", _NAN, "unknown", _NAN, _NAN, _NAN)
"""Seven numbers of unknown meaning: a policy may serve them, and is refused when it is joined to an environment."""


@dataclass(frozen=True)
class PolicySpec:
    """What a policy reads and writes.

    cameras: names of the cameras whose frames it reads; frames of other cameras are never rendered.
    image_size: (height, width) in pixels it wants the frames rendered at; None leaves that to the protocol.
    image_orientation: what its network was trained on. Observations are always upright; the policy turns them with
        ``vla_harness.conventions.orient``.
    state_keys: parts of ``Observation.state``, e.g. ("eef_pos", "eef_axis_angle", "gripper_qpos").
    state_lengths: how many numbers each of them is; () where their names say it. "joint_pos" does not: a Panda has
        seven joints, a UR5e six.
    action: meaning of its actions.
    horizon: actions per call of ``act``.
    max_batch: most observations per call of ``act``.
    reads_scene: it reads the simulator's own state; every table marks its results.
    protocol: name of the evaluation protocol that it is meant for, a key of ``vla_harness.protocols.PROTOCOLS``; None
        leaves the choice to ``vla_harness.protocols.default_protocol``.
    image_path: what it does to a rendered frame before its network, in words; None where it does not say.
    trained_on: the tasks it learned: instructions, or BENCHMARK_SUITE ("libero_spatial") for all of a suite; results on
        others are marked. None: its checkpoint does not say. Empty for policies that learned nothing.
    """

    name: str
    action: ActionConvention | JointConvention
    cameras: tuple[str, ...] = ()
    image_size: tuple[int, int] | None = None
    image_orientation: ImageOrientation = "upright"
    state_keys: tuple[str, ...] = ()
    horizon: int = 1
    max_batch: int = 64
    reads_scene: bool = False
    state_lengths: tuple[int, ...] = ()
    protocol: str | None = None
    image_path: str | None = None
    trained_on: tuple[str, ...] | None = ()

    def __post_init__(self) -> None:
        if self.state_lengths and len(self.state_lengths) != len(self.state_keys):
            raise ValueError(f"{len(self.state_lengths)} lengths of state for {', '.join(self.state_keys)}")


@dataclass(frozen=True)
class EnvironmentSpec:
    """What an environment offers and takes; ``env.unwrapped.interface`` of every environment here.

    cameras: camera names it can render, at any size, upright.
    state: name -> length of each state part it can report, e.g. {"eef_pos": 3, "eef_quat_xyzw": 4, "gripper_qpos": 2}.
    action: meaning of the actions it takes.
    control_hz: actions per simulated second.
    """

    cameras: tuple[str, ...]
    state: Mapping[str, int]
    action: ActionConvention | JointConvention
    control_hz: float


class SimulatedTask(Protocol):
    """What ``gymnasium.make(id, task=…, observations="on_request").unwrapped`` of every environment here offers.

    Beside gymnasium's ``reset(seed=…, options={"initial_state": i})`` and ``step(action) -> (observation, reward,
    terminated, truncated, info)``, where ``info["success"]`` is the task's own success check. With
    ``observations="on_request"`` neither renders; frames come from ``render_camera``, when somebody wants one.
    """

    interface: EnvironmentSpec
    task_name: str
    instruction: str
    initial_states: int

    def render_camera(self, camera: str, height: int, width: int) -> np.ndarray:
        """Return the present frame, (height, width, 3) uint8, upright."""
        ...

    def proprioception(self) -> Mapping[str, np.ndarray]:
        """Return the state parts named in ``interface.state``, as sampled by the last step, float64."""
        ...

    def scene(self) -> Mapping[str, Any]:
        """Return the simulator's own view (objects, sites, joints, goal) for policies that read it."""
        ...

    def simulator_state(self) -> np.ndarray:
        """Return [time, qpos, qvel] float64; equal states continue equally under equal actions."""
        ...


class Policy(ABC):
    """Maps observations to chunks of actions. The whole interface is ``spec``, ``act`` and ``forget``."""

    spec: PolicySpec
    options: Mapping[str, Any] = MappingProxyType({})
    """What ``load_policy`` built it with, defaults included; see ``provenance``."""

    @abstractmethod
    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        """Return (batch, horizon, action_dim) float32 actions in the convention that ``spec`` states.

        Row i depends on ``observations[i]`` and the memory of its episode alone, never on the rest of the batch.
        Random draws come from ``random_generator(seed, episode, step)``.
        """

    def forget(self, episode: str) -> None:  # noqa: B027 - policies without memory have nothing to drop
        """Drop the memory kept for ``episode``; called when it ends, also when it fails or is started again."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What made the numbers: at least precision, device, checkpoint and checkpoint_sha256 where they apply.

        Here all ``options``, so that none is forgotten; a policy adds its own facts, and puts what it settled on in the
        place of an option such as "auto".
        """
        return dict(self.options)


def random_generator(seed: int, episode: str, step: int) -> np.random.Generator:
    """Return the generator of one decision: a function of (seed, episode, step), whatever the batch around it."""
    return np.random.default_rng([seed, step, *episode.encode()])


@dataclass(frozen=True)
class EpisodeKey:
    """One episode of a run: what is asked for, before it is rolled out."""

    suite: str
    task_id: int
    initial_state: int
    seed: int

    def __str__(self) -> str:
        return f"{self.suite}/{self.task_id}/{self.initial_state}/{self.seed}"


@dataclass(frozen=True)
class EpisodeResult:
    """One ended episode, a row of ``episodes.sqlite``.

    outcome: "success", "failure", or "error" (which is never counted as a failure).
    steps: environment steps after the settle phase.
    actions: (steps, action_dim) float32, as sent to the environment.
    state_sha256: of the simulator's state after the last step (float64 bytes); empty on error.
    policy_ms: milliseconds of each decision this episode asked for: from request to answer, queueing included.
    env_s: seconds spent stepping the simulator; render_s: seconds spent rendering; wall_s: from reset to end.
    frames: frames rendered. decisions: policy calls.
    error: one sentence; empty unless outcome is "error".
    """

    key: EpisodeKey
    task_name: str
    instruction: str
    outcome: Literal["success", "failure", "error"]
    steps: int = 0
    actions: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    state_sha256: str = ""
    policy_ms: tuple[float, ...] = ()
    env_s: float = 0.0
    render_s: float = 0.0
    wall_s: float = 0.0
    frames: int = 0
    error: str = ""
    video: str = ""
    attempts: int = 1

    @property
    def action_sha256(self) -> str:
        """Hash of the executed actions' bytes; equal hashes mean the same episode was played."""
        import hashlib

        return hashlib.sha256(np.ascontiguousarray(self.actions, np.float32).tobytes()).hexdigest()
