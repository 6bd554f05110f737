"""A robosuite task whose episodes are functions of the number of their initial state."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from ..libero.stock import check_version, quiet_robosuite
from .benchmark import CONTROL_HZ, DEFAULT_ROBOT, RobosuiteTask, stored_states

_SHELLS = ("head_1", "head_4")
"""Meshes of the Sawyer without a volume, which MuJoCo refuses since 3.3. They are only to be seen; as shells it takes
them, and the robot's masses and inertias are stated beside them."""

_FRAME = "frame_qpos"
"""Our observable: the joint positions that the frame of an observation shows."""


class RobosuiteEpisodes:
    """Holds one task's simulation; ``reset`` starts an episode, ``step`` advances it.

    The model is compiled once: what robosuite draws while it loads one (the cube's size) is drawn from seed 0, what it
    draws at a reset from the initial state's number. numpy keeps the numbers of its old generator, which robosuite
    draws from, so the states are the same everywhere; those of the usual robots are stored all the same.

    task: of ``benchmark.SUITES``. robots: one for each arm. controller: of ``benchmark.CONTROLLERS``.
    """

    def __init__(self, task: RobosuiteTask, robots: tuple[str, ...], controller: str, stored: bool = True) -> None:
        self._task = task
        with _seeded(0):
            self.env = _make(task.name, robots, controller)
        self.model: mujoco.MjModel = self.env.sim.model._model
        self.data: mujoco.MjData = self.env.sim.data._data
        self._entries = [robot.controller.control_dim for robot in self.env.robots]
        self._stored = stored_states(task.name) if stored and set(robots) == {DEFAULT_ROBOT} else None
        self._observe_frames()
        self.reset(0)
        self.step(np.zeros(sum(self._entries) + task.arms))  # compiles robosuite's loops, once per machine

    def _observe_frames(self) -> None:
        """Have the positions sampled together with robosuite's own observables.

        They are sampled when a physics step has integrated positions but not yet placed bodies anew; a camera would
        show the bodies where they were before.
        """
        observables = import_module("robosuite.utils.observables")

        @observables.sensor(modality="frame")
        def frame_qpos(_: Any) -> NDArray[np.float64]:
            positions = self.data.qpos.copy()
            if self.data.time > 0:
                mujoco.mj_integratePos(self.model, positions, self.data.qvel, -self.model.opt.timestep)
            return positions

        self.env.add_observable(observables.Observable(_FRAME, frame_qpos, sampling_rate=CONTROL_HZ))
        for arm in range(self._task.arms):
            self.env.modify_observable(f"robot{arm}_joint_pos", "active", True)

    def reset(self, initial_state: int) -> None:
        """Start the episode of this initial state."""
        for robot in self.env.robots:
            robot.gripper.current_action = np.zeros(robot.gripper.dof)
        with _seeded(initial_state):
            self.env.reset()
        if self._stored is not None:
            self.env.sim.set_state_from_flattened(self._stored.states[initial_state])
            for name, pose in zip(self._stored.bodies, self._stored.poses[initial_state], strict=True):
                body = self.model.body(name)
                body.pos[:], body.quat[:] = pose[:3], pose[3:]
        self.env.sim.forward()
        for robot in self.env.robots:
            robot.controller.update_initial_joints(self.data.qpos[robot._ref_joint_pos_indexes])
        for observable in self.env._observables.values():
            observable.reset()  # each reading advances its clock, and a reset's is one
        self.env._get_observations(force_update=True)

    def step(self, action: NDArray[np.float64]) -> tuple[bool, bool]:
        """Advance by one action, [controller's entries | gripper] of each arm; return (success, ended otherwise).

        Only Wipe ends otherwise: when the arm touches the table or a joint is at its limit.
        """
        parts, start = [], 0
        for entries in self._entries:
            parts.append(action[start : start + entries + self._task.gripper])
            start += entries + 1
        _, _, done, _ = self.env.step(np.concatenate(parts))
        success = bool(self.env._check_success())
        return success, bool(done) and not success

    def sampled(self, name: str) -> NDArray[np.float64]:
        """Return one of robosuite's observables as it was last sampled, a copy."""
        return np.array(self.env._observables[name].obs, np.float64)

    @property
    def frame_qpos(self) -> NDArray[np.float64]:
        """(nq,) float64: the joint positions that a frame of the last observation shows."""
        return self.sampled(_FRAME)

    @property
    def state(self) -> NDArray[np.float64]:
        """[time, qpos, qvel] float64, a copy."""
        return np.concatenate([[self.data.time], self.data.qpos, self.data.qvel])


def _make(name: str, robots: tuple[str, ...], controller: str) -> Any:
    """Return robosuite's environment; raises UserError if its version or MuJoCo's is another."""
    for distribution in ("mujoco", "robosuite"):
        check_version(distribution)
    with quiet_robosuite():
        base = import_module("robosuite.environments.base")
        controllers = import_module("robosuite.controllers")
        import_module("robosuite")

    stock: Any = base.REGISTERED_ENVS[name]

    class Mended(stock):
        def _initialize_sim(self, xml_string: str | None = None) -> None:
            xml = xml_string or self.model.get_xml()
            for arm in range(len(robots)):
                for mesh in _SHELLS:
                    xml = xml.replace(f'name="robot{arm}_{mesh}"', f'name="robot{arm}_{mesh}" inertia="shell"')
            super()._initialize_sim(xml)

    return Mended(
        robots=list(robots),
        controller_configs=[controllers.load_controller_config(default_controller=controller) for _ in robots],
        has_renderer=False,
        has_offscreen_renderer=False,  # frames come from ``envs.renderer``, when somebody asks
        use_camera_obs=False,
        use_object_obs=False,
        control_freq=CONTROL_HZ,
        ignore_done=True,  # the steps are the protocol's business
        hard_reset=False,
    )


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed numpy's global generator, from which robosuite draws, and leave the caller's state of it as it was."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)
