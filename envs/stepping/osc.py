"""One control step of robosuite's OSC_POSE controller as a single compiled loop over MuJoCo's substeps.

robosuite 1.4.0 runs, for each of 25 substeps: ``mj_forward``; the controller, which runs ``mj_forward`` again before
it reads the arm (not in the first substep after a reset, where its reading counts as fresh); ``mj_step``. All passes of
a substep see the same positions, velocities and forces, so one pass over them serves all. Their constraint solves
cannot be dropped as well: each moves the solver's warm start, and with it the last bits of the next. So the loop is

    mj_step1, actuation and acceleration, one constraint solve per pass that robosuite makes,
    controller, actuation and acceleration under the new torques, constraint solve, mj_Euler

which is ``mj_step`` taken apart; only force and torque sensors, which nothing reads, are left out.

The equations are robosuite's (Khatib 1987, "A unified approach for motion and force control"), in the order and memory
layout robosuite computes them in, so that every float comes out equal. The linear algebra (inverse, pseudo-inverses,
null space) is robosuite's own compiled code.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray
from robosuite.utils.control_utils import nullspace_torques, opspace_matrices, orientation_error

from .native import MujocoFunctions, call, mujoco_functions

Vector = NDArray[np.float64]


class Indices(NamedTuple):
    """Where the arm lies in MuJoCo's arrays."""

    site: int  # grip site
    eef_body: int  # body whose orientation robosuite reports as robot0_eef_quat
    arm_qpos: NDArray[np.int64]
    arm_qvel: NDArray[np.int64]
    arm_ctrl: NDArray[np.int64]
    gripper_qpos: NDArray[np.int64]
    gripper_ctrl: NDArray[np.int64]


class Views(NamedTuple):
    """MuJoCo's own arrays (views, not copies)."""

    qpos: Vector
    qvel: Vector
    ctrl: Vector
    bias: Vector  # qfrc_bias
    inertia: Vector  # qM
    site_xpos: NDArray[np.float64]
    site_xmat: NDArray[np.float64]
    body_xquat: NDArray[np.float64]


class Arm(NamedTuple):
    """The controller's last reading of the arm, updated in place. Matrices are in Fortran order, as robosuite's are."""

    eef_pos: Vector  # (3,)
    eef_mat: NDArray[np.float64]  # (3, 3), C order
    eef_pos_vel: Vector  # (3,)
    eef_ori_vel: Vector  # (3,)
    qpos: Vector  # (7,)
    qvel: Vector  # (7,)
    jac_pos: NDArray[np.float64]  # (3, 7)
    jac_ori: NDArray[np.float64]  # (3, 7)
    jac: NDArray[np.float64]  # (6, 7)
    mass: NDArray[np.float64]  # (7, 7)


class Gains(NamedTuple):
    """Constants of one episode."""

    kp: Vector  # (6,)
    kd: Vector  # (6,)
    rest_qpos: Vector  # (7,), where the null space pulls the arm
    torque_low: Vector  # (7,)
    torque_high: Vector  # (7,)
    gripper_bias: Vector  # (2,)
    gripper_weight: Vector  # (2,)
    gripper_step: Vector  # (2,), change of the gripper's command per substep


class Buffers(NamedTuple):
    """Scratch space, and what the loop hands back."""

    jacp: NDArray[np.float64]  # (3, nv)
    jacr: NDArray[np.float64]  # (3, nv)
    inertia: NDArray[np.float64]  # (nv, nv)
    gripper: Vector  # (2,), the gripper's command in [-1, 1]
    clock: Vector  # (2,): seconds since the last sample; 1.0 once this period's sample was taken
    sample_eef_pos: Vector  # (3,)
    sample_eef_quat: Vector  # (4,), wxyz
    sample_gripper: Vector  # (2,)
    sample_joints: Vector  # (7,)
    sample_qpos: Vector  # (nq,), the positions that the sampled frame shows


@njit(cache=True, nogil=True)
def _read_arm(f, model, data, index, view, arm, buffer):  # type: ignore[no-untyped-def]
    call(f.jac_site, (model, data, buffer.jacp.ctypes.data, buffer.jacr.ctypes.data, index.site))
    call(f.full_m, (model, buffer.inertia.ctypes.data, view.inertia.ctypes.data))
    arm.eef_pos[:] = view.site_xpos[index.site]
    for i in range(3):
        for j in range(3):
            arm.eef_mat[i, j] = view.site_xmat[index.site, 3 * i + j]
    arm.eef_pos_vel[:] = np.dot(buffer.jacp, view.qvel)
    arm.eef_ori_vel[:] = np.dot(buffer.jacr, view.qvel)
    for j in range(len(index.arm_qvel)):
        dof = index.arm_qvel[j]
        arm.qpos[j] = view.qpos[index.arm_qpos[j]]
        arm.qvel[j] = view.qvel[dof]
        for i in range(3):
            arm.jac_pos[i, j] = arm.jac[i, j] = buffer.jacp[i, dof]
            arm.jac_ori[i, j] = arm.jac[i + 3, j] = buffer.jacr[i, dof]
        for i in range(len(index.arm_qvel)):
            arm.mass[i, j] = buffer.inertia[index.arm_qvel[i], dof]


@njit(cache=True, nogil=True)
def _begin_substep(f, model, data, passes, read, index, view, arm, buffer):  # type: ignore[no-untyped-def]
    call(f.step1, (model, data))
    call(f.actuation, (model, data))
    call(f.acceleration, (model, data))
    for _ in range(passes):
        call(f.constraint, (model, data))
    if read:
        _read_arm(f, model, data, index, view, arm, buffer)


@njit(cache=True, nogil=True)
def _control(goal_pos, goal_mat, gripper_sign, index, view, arm, gains, buffer):  # type: ignore[no-untyped-def]
    force = (goal_pos - arm.eef_pos) * gains.kp[0:3] + -arm.eef_pos_vel * gains.kd[0:3]
    ori_error = orientation_error(goal_mat, arm.eef_mat)
    torque = ori_error * gains.kp[3:6] + -arm.eef_ori_vel * gains.kd[3:6]
    _, lambda_pos, lambda_ori, nullspace = opspace_matrices(arm.mass, arm.jac, arm.jac_pos, arm.jac_ori)
    wrench = np.concatenate((np.dot(lambda_pos, force), np.dot(lambda_ori, torque)))
    torques = np.dot(arm.jac.T, wrench) + view.bias[index.arm_qvel]
    torques += nullspace_torques(arm.mass, nullspace, gains.rest_qpos, arm.qpos, arm.qvel)
    for j in range(len(torques)):
        view.ctrl[index.arm_ctrl[j]] = min(max(torques[j], gains.torque_low[j]), gains.torque_high[j])
    for j in range(len(buffer.gripper)):
        moved = buffer.gripper[j] + gains.gripper_step[j] * gripper_sign
        buffer.gripper[j] = min(max(moved, -1.0), 1.0)
        view.ctrl[index.gripper_ctrl[j]] = gains.gripper_bias[j] + gains.gripper_weight[j] * buffer.gripper[j]


@njit(cache=True, nogil=True)
def _substeps(  # type: ignore[no-untyped-def]
    f, model, data, count, timestep, period, goal_pos, goal_mat, gripper_sign, index, view, arm, gains, buffer
):
    """Run ``count`` substeps; the caller has begun the first one."""
    for i in range(count):
        if i > 0:
            _begin_substep(f, model, data, 2, True, index, view, arm, buffer)
        _control(goal_pos, goal_mat, gripper_sign, index, view, arm, gains, buffer)
        # robosuite's observables: sampled at the first update of a period that started at their last wrap, a clock of
        # accumulated floats, so its rounding is part of which substep is seen.
        buffer.clock[0] += timestep
        sample = buffer.clock[1] == 0.0 and period >= buffer.clock[0]
        if sample:
            buffer.sample_qpos[:] = view.qpos
        call(f.actuation, (model, data))
        call(f.acceleration, (model, data))
        call(f.constraint, (model, data))
        call(f.check, (model, data))
        call(f.euler, (model, data))
        if sample:
            buffer.clock[1] = 1.0
            buffer.sample_eef_pos[:] = view.site_xpos[index.site]
            buffer.sample_eef_quat[:] = view.body_xquat[index.eef_body]
            buffer.sample_gripper[:] = view.qpos[index.gripper_qpos]
            buffer.sample_joints[:] = view.qpos[index.arm_qpos]
        if buffer.clock[0] >= period:
            buffer.clock[0] %= period
            buffer.clock[1] = 0.0


class OscStepper:
    """Steps one robosuite environment with a single arm, a two-finger gripper and OSC_POSE.

    problem: a robosuite environment (``SingleArmEnv``) whose robot 0 uses OSC_POSE with fixed gains.
    """

    def __init__(self, problem: Any) -> None:
        robot = problem.robots[0]
        sim = problem.sim
        self._problem = problem
        self._functions: MujocoFunctions = mujoco_functions()
        self._model = sim.model._model._address
        self._data = sim.data._data._address
        data = sim.data._data
        self._views = Views(
            data.qpos, data.qvel, data.ctrl, data.qfrc_bias, data.qM, data.site_xpos, data.site_xmat, data.xquat
        )
        self._index = Indices(
            site=int(robot.eef_site_id),
            eef_body=int(sim.model.body_name2id(robot.robot_model.eef_name)),
            arm_qpos=np.array(robot._ref_joint_pos_indexes, np.int64),
            arm_qvel=np.array(robot._ref_joint_vel_indexes, np.int64),
            arm_ctrl=np.array(robot._ref_joint_actuator_indexes, np.int64),
            gripper_qpos=np.array(robot._ref_gripper_joint_pos_indexes, np.int64),
            gripper_ctrl=np.array(robot._ref_joint_gripper_actuator_indexes, np.int64),
        )
        nv, nq, dof = sim.model.nv, sim.model.nq, len(self._index.arm_qpos)
        self._substeps = int(problem.control_timestep / problem.model_timestep)
        self._timestep = float(problem.model_timestep)
        self._period = 1.0 / problem.control_freq
        self.arm = Arm(
            np.zeros(3),
            np.zeros((3, 3)),
            np.zeros(3),
            np.zeros(3),
            np.zeros(dof),
            np.zeros(dof),
            np.zeros((3, dof), order="F"),
            np.zeros((3, dof), order="F"),
            np.zeros((6, dof), order="F"),
            np.zeros((dof, dof), order="F"),
        )
        self.buffers = Buffers(
            np.zeros((3, nv)),
            np.zeros((3, nv)),
            np.zeros((nv, nv)),
            np.zeros(2),
            np.zeros(2),
            np.zeros(3),
            np.zeros(4),
            np.zeros(2),
            np.zeros(dof),
            np.zeros(nq),
        )

    def begin_episode(self) -> None:
        """Take over after robosuite's own ``_reset_internal``: its fresh controller and its stale reading of the arm.

        The reading is stale because the initial state is set after the controller was built; robosuite's first substep
        uses it all the same.
        """
        robot = self._problem.robots[0]
        controller = robot.controller
        for mine, theirs in zip(
            self.arm,
            (
                controller.ee_pos,
                controller.ee_ori_mat,
                controller.ee_pos_vel,
                controller.ee_ori_vel,
                controller.joint_pos,
                controller.joint_vel,
                controller.J_pos,
                controller.J_ori,
                controller.J_full,
                controller.mass_matrix,
            ),
            strict=True,
        ):
            mine[:] = theirs
        # set_goal reads these two; they now follow the loop's readings.
        controller.ee_pos, controller.ee_ori_mat = self.arm.eef_pos, self.arm.eef_mat
        controller.new_update = False
        self._controller = controller
        self._reading_is_stale = True
        low, high = robot.torque_limits
        ranges = self._problem.sim.model.actuator_ctrlrange[self._index.gripper_ctrl]
        self._gains = Gains(
            kp=np.array(controller.kp, np.float64),
            kd=np.array(controller.kd, np.float64),
            rest_qpos=np.array(controller.initial_joint),
            torque_low=np.array(low),
            torque_high=np.array(high),
            gripper_bias=0.5 * (ranges[:, 1] + ranges[:, 0]),
            gripper_weight=0.5 * (ranges[:, 1] - ranges[:, 0]),
            gripper_step=np.array([-1.0, 1.0]) * robot.gripper.speed,
        )
        self.buffers.gripper[:] = 0.0
        self.buffers.clock[:] = 0.0

    def sample_now(self) -> None:
        """Sample the observables outside the loop, as robosuite's forced update does; it advances their clock too."""
        view, index, buffer = self._views, self._index, self.buffers
        buffer.clock[0] += self._timestep
        buffer.clock[1] = 1.0
        buffer.sample_eef_pos[:] = view.site_xpos[index.site]
        buffer.sample_eef_quat[:] = view.body_xquat[index.eef_body]
        buffer.sample_gripper[:] = view.qpos[index.gripper_qpos]
        buffer.sample_joints[:] = view.qpos[index.arm_qpos]
        buffer.sample_qpos[:] = view.qpos

    def step(self, action: Vector) -> None:
        """Run one control step (25 substeps of 2 ms). action: (7,) float64, [delta pose 6 | gripper], in [-1, 1]."""
        f, model, data = self._functions, self._model, self._data
        stale = self._reading_is_stale
        _begin_substep(f, model, data, 1 if stale else 2, not stale, self._index, self._views, self.arm, self.buffers)
        self._reading_is_stale = False
        controller = self._controller
        controller.set_goal(action[:6])
        _substeps(
            f,
            model,
            data,
            self._substeps,
            self._timestep,
            self._period,
            controller.goal_pos,
            controller.goal_ori,
            np.sign(action[6]),
            self._index,
            self._views,
            self.arm,
            self._gains,
            self.buffers,
        )
