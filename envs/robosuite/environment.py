"""robosuite's tasks as gymnasium environments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from vla_harness.errors import UserError

from ..environment import SimulatedEnv
from ..gl import choose_gl_backend
from .benchmark import DEFAULT_ROBOT, INITIAL_STATES, cameras, chosen_robots, interface, state_parts, suite_tasks

if TYPE_CHECKING:
    from .simulation import RobosuiteEpisodes


class RobosuiteEnv(SimulatedEnv):
    """One robosuite task at 20 Hz.

    suite: "single-arm" or "two-arm". task: its number in the suite (see ``benchmark.SUITES``).
    robot: "Panda", "Sawyer", "UR5e" and others of ``benchmark.ROBOTS``; for two arms also two with a comma between.
    controller: "OSC_POSE" and others of ``benchmark.CONTROLLERS``.
    observations: "always" puts the frames of all cameras into each observation; "on_request" renders none, and frames
    come from ``render_camera``. image_size: for "always": (height, width) in pixels.

    Action: float32 in [-1, 1], the controller's entries and the gripper's of each arm, as ``interface.action`` says:
    (7,) for one arm under OSC_POSE, (14,) for two, (8,) for the seven joints of a Panda. Where an arm carries a tool in
    place of a gripper (Wipe, TwoArmPegInHole) that entry has no effect. Observation: the state parts of ``interface``,
    float64 (metres, radians), and the frames, (H, W, 3) uint8, upright. Reward 1.0 and termination on success, which is
    robosuite's own check; Wipe also terminates when the arm touches the table or a joint its limit. The
    registered ids have the suite's step limit as ``spec.max_episode_steps``, which ``gymnasium.make`` truncates at.

    ``reset(options={"initial_state": i})`` starts from the i-th of the task's 50 initial states; without one it is
    drawn from the environment's own generator. The episode is a pure function of (suite, task, robot, controller, i).
    """

    initial_states = INITIAL_STATES
    _episodes: RobosuiteEpisodes

    def __init__(
        self,
        suite: str,
        task: int = 0,
        robot: str = DEFAULT_ROBOT,
        controller: str = "OSC_POSE",
        observations: Literal["always", "on_request"] = "always",
        image_size: tuple[int, int] = (256, 256),
        render_mode: str | None = None,
    ) -> None:
        tasks = suite_tasks(suite)
        if not 0 <= task < len(tasks):
            raise UserError(f"robosuite suite {suite!r} has tasks 0 to {len(tasks) - 1}, not {task}.")
        chosen = tasks[task]
        robots = chosen_robots(robot, chosen.arms)
        offered = interface(chosen, robots, controller)
        self._state_parts = state_parts(chosen, robots)
        self.task_name, self.instruction = chosen.name, chosen.instruction

        choose_gl_backend()  # before mujoco is imported
        from .scene import GOALS, RobosuiteSceneReader
        from .simulation import RobosuiteEpisodes

        self._episodes = RobosuiteEpisodes(chosen, robots, controller)
        described = chosen.name in GOALS and robots == (DEFAULT_ROBOT,)
        self._scene_reader = RobosuiteSceneReader(self._episodes.env, chosen.name) if described else None
        every = cameras(chosen)
        super().__init__(offered, every, tuple(every) if observations == "always" else (), image_size, render_mode)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Start an episode; see the class. Raises UserError for an option or an initial state that there is not."""
        super().reset(seed=seed)
        (index,) = self._options(options, "initial_state")
        if index is None:
            index = int(self.np_random.integers(INITIAL_STATES))
        if not 0 <= index < INITIAL_STATES:
            raise UserError(f"Task {self.task_name!r} has initial states 0 to {INITIAL_STATES - 1}, not {index}.")
        self._episodes.reset(index)
        return self._observation(), {"initial_state": index, "success": False}

    def step(self, action: NDArray[Any]) -> tuple[dict[str, NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """Advance by one action; see the class. Raises UserError for anything else than its finite numbers."""
        success, ended = self._episodes.step(self._action(action))
        return self._observation(), float(success), success or ended, False, {"success": success}

    def proprioception(self) -> Mapping[str, NDArray[np.float64]]:
        """Return the state parts of ``interface`` as robosuite's observables sampled them, copies."""
        return {name: self._episodes.sampled(observable) for name, (observable, _) in self._state_parts.items()}

    def scene(self) -> Mapping[str, Any]:
        """Return the simulator's own view of the scene (``envs.robosuite.scene``).

        Raises UserError for a task that is not described.
        """
        if self._scene_reader is None:
            raise UserError(f"The scene of {self.task_name!r} with these robots is not described: choose another task.")
        return self._scene_reader.read()
