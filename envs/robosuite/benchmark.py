"""The suites as data: robosuite's tasks with instructions, robots, controllers, and what each offers and takes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vla_harness.errors import UserError
from vla_harness.types import DELTA_EEF_POSE, ActionConvention, EnvironmentSpec, JointConvention

INITIAL_STATES = 50
CONTROL_HZ = 20.0
DEFAULT_ROBOT = "Panda"
_STATES_FILE = Path(__file__).with_name("initial_states.npz")


@dataclass(frozen=True)
class RobosuiteTask:
    """One task.

    task_id: position in the suite. name: robosuite's. arms: 1 or 2. gripper: whether the arms end in grippers; the
    others carry a tool, and take no notice of a gripper's command. expert: whether ``envs.experts`` solves it.
    """

    task_id: int
    name: str
    instruction: str
    arms: int = 1
    gripper: bool = True
    expert: bool = False


SUITES: dict[str, tuple[RobosuiteTask, ...]] = {
    "single-arm": (
        RobosuiteTask(0, "Lift", "lift the red cube", expert=True),
        RobosuiteTask(1, "Stack", "stack the red cube on the green cube", expert=True),
        RobosuiteTask(2, "PickPlaceCan", "pick up the can and put it in its compartment of the bin", expert=True),
        RobosuiteTask(3, "PickPlaceBread", "pick up the bread and put it in its compartment of the bin"),
        RobosuiteTask(4, "NutAssemblySquare", "put the square nut on the square peg"),
        RobosuiteTask(5, "Door", "turn the handle and open the door", expert=True),
        RobosuiteTask(6, "Wipe", "wipe the dirt off the table", gripper=False),
    ),
    "two-arm": (
        RobosuiteTask(0, "TwoArmLift", "lift the pot by its two handles", arms=2),
        RobosuiteTask(1, "TwoArmPegInHole", "put the peg into the hole of the board", arms=2, gripper=False),
        RobosuiteTask(2, "TwoArmHandover", "pick up the hammer with one arm and hand it to the other", arms=2),
    ),
}


@dataclass(frozen=True)
class Robot:
    """joints: of the arm. gripper_joints: of its usual gripper."""

    joints: int
    gripper_joints: int


ROBOTS = {
    "Panda": Robot(7, 2),
    "Sawyer": Robot(7, 2),
    "IIWA": Robot(7, 6),
    "Jaco": Robot(7, 6),
    "Kinova3": Robot(7, 6),
    "UR5e": Robot(6, 6),
}

CONTROLLERS: dict[str, ActionConvention | JointConvention] = {
    "OSC_POSE": DELTA_EEF_POSE,
    "OSC_POSITION": ActionConvention(
        mode="delta", translation_unit=0.05, rotation="none", rotation_unit=1.0, gripper_open=-1.0, gripper_closed=1.0
    ),
    "JOINT_POSITION": JointConvention("joint_delta", 0.05, gripper_open=-1.0, gripper_closed=1.0, joints=()),
    "JOINT_VELOCITY": JointConvention("joint_velocity", 0.5, gripper_open=-1.0, gripper_closed=1.0, joints=()),
    "JOINT_TORQUE": JointConvention("joint_torque", 0.1, gripper_open=-1.0, gripper_closed=1.0, joints=()),
}
"""robosuite's name for a controller -> the meaning of its actions at its usual scale, before the arms are known."""


def suite_tasks(suite: str) -> tuple[RobosuiteTask, ...]:
    """Return the tasks of "single-arm" or "two-arm"; raises UserError for another name."""
    if suite not in SUITES:
        raise UserError(f"There is no robosuite suite {suite!r}: choose one of {', '.join(SUITES)}.")
    return SUITES[suite]


def chosen_robots(choice: str, arms: int) -> tuple[str, ...]:
    """Return one robot for each arm of a task: "Panda" stands for any number of them, "Panda,Sawyer" for two.

    Raises UserError for an unknown robot and for a wrong number of them.
    """
    names = tuple(choice.split(","))
    for name in names:
        if name not in ROBOTS:
            raise UserError(f"There is no robot {name!r} for these tasks: choose one of {', '.join(ROBOTS)}.")
    if len(names) not in (1, arms):
        raise UserError(f"--robot is {choice!r}, and the tasks have {arms} arm{'s' * (arms > 1)}: name one for each.")
    return names * (arms // len(names))


def cameras(task: RobosuiteTask) -> dict[str, str]:
    """Return our camera names and MuJoCo's."""
    if task.arms == 1:
        return {"agentview": "agentview", "wrist": "robot0_eye_in_hand"}
    return {"agentview": "agentview"} | {f"robot{arm}_wrist": f"robot{arm}_eye_in_hand" for arm in range(task.arms)}


def state_parts(task: RobosuiteTask, robots: tuple[str, ...]) -> dict[str, tuple[str, int]]:
    """Return name -> (robosuite's observable, length) of what the task reports of these robots.

    One arm's parts have LIBERO's names; those of two begin with "robot0_" and "robot1_". Grippers with other joints
    than two fingers report them as "gripper_joint_pos", because a policy that reads "gripper_qpos" expects two.
    """
    parts = {}
    for arm, name in enumerate(robots):
        prefix, robot = f"robot{arm}_" if task.arms > 1 else "", ROBOTS[name]
        parts[f"{prefix}eef_pos"] = f"robot{arm}_eef_pos", 3
        parts[f"{prefix}eef_quat_xyzw"] = f"robot{arm}_eef_quat", 4
        parts[f"{prefix}joint_pos"] = f"robot{arm}_joint_pos", robot.joints
        if task.gripper:
            fingers = "gripper_qpos" if robot.gripper_joints == 2 else "gripper_joint_pos"
            parts[prefix + fingers] = f"robot{arm}_gripper_qpos", robot.gripper_joints
    return parts


def interface(task: RobosuiteTask, robots: tuple[str, ...], controller: str) -> EnvironmentSpec:
    """Return what the task offers and takes with these robots; raises UserError for an unknown controller."""
    if controller not in CONTROLLERS:
        why = f"There is no controller {controller!r}"
        if controller == "IK_POSE":
            why = "The controller IK_POSE needs pybullet, which does not come with the harness"
        raise UserError(f"{why}: choose one of {', '.join(CONTROLLERS)}.")
    action = CONTROLLERS[controller]
    if isinstance(action, JointConvention):
        action = replace(action, joints=tuple(ROBOTS[name].joints for name in robots))
    else:
        action = replace(action, arms=task.arms)
    return EnvironmentSpec(
        cameras=tuple(cameras(task)),
        state={name: length for name, (_, length) in state_parts(task, robots).items()},
        action=action,
        control_hz=CONTROL_HZ,
    )


@dataclass(frozen=True)
class StoredStates:
    """A task's initial states for its usual robots.

    states: (50, 1 + nq + nv) float64, [time, qpos, qvel] each. bodies: the bodies that a reset moves and that have no
    joint (a door, dirt). poses: (50, bodies, 7) float64, where they are: position, quaternion wxyz.
    """

    states: NDArray[np.float64]
    bodies: tuple[str, ...]
    poses: NDArray[np.float64]


@cache
def stored_states(task: str) -> StoredStates:
    """Return the stored initial states of the task with robosuite's name ``task``."""
    with np.load(_STATES_FILE) as file:
        return StoredStates(file[f"{task}.states"], tuple(map(str, file[f"{task}.bodies"])), file[f"{task}.poses"])
