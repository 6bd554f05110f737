"""robosuite's tasks as gymnasium environments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from vla_harness.errors import UserError

from ..gl import choose_gl_backend
from .benchmark import DEFAULT_ROBOT, INITIAL_STATES, cameras, chosen_robots, interface, state_parts, suite_tasks


class RobosuiteEnv(gymnasium.Env[dict[str, NDArray[Any]], NDArray[Any]]):
    """One robosuite task at 20 Hz.

    suite: "single-arm" or "two-arm". task: its number in the suite (see ``benchmark.SUITES``).
    robot: "Panda", "Sawyer", "UR5e" and others of ``benchmark.ROBOTS``; for two arms also two with a comma between.
    controller: "OSC_POSE" or "OSC_POSITION".
    observations: "always" puts the frames of all cameras into each observation; "on_request" renders none, and frames
    come from ``render_camera``. image_size: for "always": (height, width) in pixels.

    Action: float32 in [-1, 1], the controller's entries and the gripper's of each arm: (7,) for one arm under
    OSC_POSE, (14,) for two. Where an arm carries a tool in place of a gripper (Wipe, TwoArmPegInHole) that entry has
    no effect. Observation: the state parts of ``interface``, float64 (metres, radians), and the frames, (H, W, 3)
    uint8, upright. Reward 1.0 and termination on success, which is robosuite's own check; Wipe also terminates when
    the arm touches the table or a joint its limit. There is no time limit, which is the protocol's business.

    ``reset(options={"initial_state": i})`` starts from the i-th of the task's 50 initial states; without one it is
    drawn from the environment's own generator. The episode is a pure function of (suite, task, robot, controller, i).
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}
    initial_states = INITIAL_STATES

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
        self.interface = interface(chosen, robots, controller)
        self._state_parts = state_parts(chosen, robots)
        self.render_mode = render_mode
        self.task_name, self.instruction = chosen.name, chosen.instruction
        self._image_size = image_size
        self._cameras = cameras(chosen)
        self._frame_cameras = tuple(self._cameras) if observations == "always" else ()

        choose_gl_backend()  # before mujoco is imported
        from ..renderer import Renderer
        from .scene import GOALS, RobosuiteSceneReader
        from .simulation import RobosuiteEpisodes

        self._episodes = RobosuiteEpisodes(chosen, robots, controller)
        self.model, self.data = self._episodes.model, self._episodes.data  # mujoco's own, as gymnasium's MujocoEnv has
        self._make_renderer = lambda: Renderer(self._episodes.model)
        self._renderer: Renderer | None = None
        described = chosen.name in GOALS and robots == (DEFAULT_ROBOT,)
        self._scene_reader = RobosuiteSceneReader(self._episodes.env, chosen.name) if described else None

        self.action_space = spaces.Box(-1.0, 1.0, (self.interface.action.dim,), np.float32)
        self.observation_space: spaces.Dict = spaces.Dict(  # type: ignore[assignment]
            {name: spaces.Box(-np.inf, np.inf, (size,), np.float64) for name, size in self.interface.state.items()}
            | {name: spaces.Box(0, 255, (*image_size, 3), np.uint8) for name in self._frame_cameras}
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Start an episode; see the class. Raises UserError for an initial state that there is not."""
        super().reset(seed=seed)
        index = (options or {}).get("initial_state")
        if index is None:
            index = int(self.np_random.integers(INITIAL_STATES))
        if not 0 <= index < INITIAL_STATES:
            raise UserError(f"Task {self.task_name!r} has initial states 0 to {INITIAL_STATES - 1}, not {index}.")
        self._episodes.reset(index)
        return self._observation(), {"initial_state": index, "success": False}

    def step(self, action: NDArray[Any]) -> tuple[dict[str, NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """Advance by one action; see the class."""
        success, ended = self._episodes.step(np.asarray(action, np.float64))
        return self._observation(), float(success), success or ended, False, {"success": success}

    def _observation(self) -> dict[str, NDArray[Any]]:
        return dict(self.proprioception()) | {
            camera: self.render_camera(camera, *self._image_size) for camera in self._frame_cameras
        }

    def proprioception(self) -> Mapping[str, NDArray[np.float64]]:
        """Return the state parts of ``interface`` as robosuite's observables sampled them, copies."""
        return {name: self._episodes.sampled(observable) for name, (observable, _) in self._state_parts.items()}

    def render_camera(self, camera: str, height: int, width: int) -> NDArray[np.uint8]:
        """Return the frame of the moment the observation was sampled at, (height, width, 3) uint8, upright."""
        if self._renderer is None:
            self._renderer = self._make_renderer()
        camera_id = self.model.camera(self._cameras[camera]).id
        return self._renderer.render(self._episodes.frame_qpos, camera_id, height, width)

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """Return the agentview frame in render mode "rgb_array"."""
        return self.render_camera("agentview", *self._image_size) if self.render_mode == "rgb_array" else None

    def scene(self) -> Mapping[str, Any]:
        """Return the simulator's own view of the scene (``envs.robosuite.scene``).

        Raises UserError for a task that is not described.
        """
        if self._scene_reader is None:
            raise UserError(f"The scene of {self.task_name!r} with these robots is not described: choose another task.")
        return self._scene_reader.read()

    def simulator_state(self) -> NDArray[np.float64]:
        """Return [time, qpos, qvel], (1 + nq + nv,) float64."""
        return self._episodes.state

    def close(self) -> None:
        """Free the GL context."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
