"""LIBERO tasks as gymnasium environments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from vla_harness.errors import UserError
from vla_harness.types import DELTA_EEF_POSE, EnvironmentSpec

from ..assets import resolve_assets
from ..gl import choose_gl_backend
from .benchmark import initial_states, suite_tasks
from .stock import import_libero

CAMERAS = {"agentview": "agentview", "wrist": "robot0_eye_in_hand"}
"""Our camera names and MuJoCo's."""

INTERFACE = EnvironmentSpec(
    cameras=tuple(CAMERAS),
    state={"eef_pos": 3, "eef_quat_xyzw": 4, "gripper_qpos": 2, "joint_pos": 7},
    action=DELTA_EEF_POSE,
    control_hz=20.0,
)


class LiberoEnv(gymnasium.Env[dict[str, NDArray[Any]], NDArray[Any]]):
    """One LIBERO task: a Panda arm under 20 Hz operational-space control.

    suite: "spatial", "object", "goal", "10" or "90". task: its number in the benchmark's order.
    observations: "always" puts the frames of ``cameras`` into each observation; "on_request" renders none, and frames
    come from ``render_camera``.
    cameras, image_size: for "always": camera names, and (height, width) in pixels.
    assets: "auto", "hub", "primitive" or a folder (see ``envs.assets``).

    Action: (7,) float32 in [-1, 1], ``DELTA_EEF_POSE``. Observation: the state parts of ``INTERFACE``, float64 (metres,
    radians), and the frames, (H, W, 3) uint8, upright. Reward 1.0 and termination on success; there is no time limit,
    which is the protocol's business.

    ``reset(seed=s, options={"initial_state": i})`` starts from the i-th of the task's stored states with the fixtures'
    poses drawn from s; what is left out is drawn from the environment's own generator. The episode is a pure function
    of (suite, task, i, s), and equals the stock environment's first one after ``seed(s)``.
    ``reset(options={"placement_seed": p})`` draws objects and fixtures anew from the task's own regions instead, for
    demonstrations: a pure function of (suite, task, p), and never one of the stored states.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(
        self,
        suite: str,
        task: int = 0,
        observations: Literal["always", "on_request"] = "always",
        cameras: tuple[str, ...] = tuple(CAMERAS),
        image_size: tuple[int, int] = (256, 256),
        assets: str = "auto",
        render_mode: str | None = None,
    ) -> None:
        tasks = suite_tasks(suite)
        if not 0 <= task < len(tasks):
            raise UserError(f"LIBERO suite {suite!r} has tasks 0 to {len(tasks) - 1}, not {task}.")
        for camera in cameras:
            if camera not in CAMERAS:
                raise UserError(f"LIBERO has no camera {camera!r}: choose from {', '.join(CAMERAS)}.")
        self.interface = INTERFACE
        self.render_mode = render_mode
        self.task_name, self.instruction = tasks[task].name, tasks[task].instruction
        self._initial_states = initial_states(tasks[task])
        self.initial_states = len(self._initial_states)
        self._image_size = image_size
        self._frame_cameras = cameras if observations == "always" else ()

        choose_gl_backend()  # before mujoco is imported
        source = resolve_assets(assets)
        stock_envs = import_libero(source.path)
        from ..renderer import Renderer
        from ..standins.light import draw_lightly
        from .episode import LiberoEpisodes
        from .scene import SceneReader

        edit_xml = draw_lightly(source.path) if source.kind == "primitive" else None
        self._episodes = LiberoEpisodes(stock_envs, tasks[task].bddl_file, edit_xml)
        self.model, self.data = self._episodes.model, self._episodes.data  # mujoco's own, as gymnasium's MujocoEnv has
        self._make_renderer = lambda: Renderer(self._episodes.model)
        self._renderer: Renderer | None = None
        self._scene_reader = SceneReader(self._episodes.problem)

        self.action_space = spaces.Box(-1.0, 1.0, (7,), np.float32)
        self.observation_space: spaces.Dict = spaces.Dict(  # type: ignore[assignment]
            {name: spaces.Box(-np.inf, np.inf, (size,), np.float64) for name, size in INTERFACE.state.items()}
            | {name: spaces.Box(0, 255, (*image_size, 3), np.uint8) for name in self._frame_cameras}
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Start an episode; see the class.

        Raises UserError for an initial state that the task does not have, and for one beside a placement seed.
        """
        super().reset(seed=seed)
        index, placement = ((options or {}).get(key) for key in ("initial_state", "placement_seed"))
        if placement is not None:
            if index is not None:
                raise UserError("An episode starts from an initial state or from a placement seed: give one of them.")
            self._place_anew(placement)
            return self._observation(), {"placement_seed": placement, "success": False}
        if index is None:
            index = int(self.np_random.integers(self.initial_states))
        if not 0 <= index < self.initial_states:
            raise UserError(
                f"Task {self.task_name!r} has initial states 0 to {self.initial_states - 1}, not {index}: "
                "ask for fewer trials."
            )
        fixture_seed = seed if seed is not None else int(self.np_random.integers(2**31))
        self._episodes.reset(fixture_seed, self._initial_states[index])
        return self._observation(), {"initial_state": index, "success": False}

    def _place_anew(self, placement_seed: int) -> None:
        """Draw placements until they are not one of the stored ones: some object is 1 mm away from where it is there.

        The stored states were drawn from the same regions, by seeds that nobody wrote down.
        """
        seeds = np.random.default_rng(placement_seed)
        movable = [self.model.joint(obj.joints[-1]).qposadr[0] for obj in self._episodes.problem.objects_dict.values()]
        columns = 1 + np.concatenate([[first, first + 1] for first in movable])  # x and y; a state begins with the time
        while True:
            self._episodes.reset(int(seeds.integers(2**31)))
            away = self._initial_states[:, columns] - self._episodes.state[columns]
            if np.abs(away).max(axis=1).min() > 0.001:
                return

    def step(self, action: NDArray[Any]) -> tuple[dict[str, NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """Advance by one action; see the class."""
        success = self._episodes.step(np.asarray(action, np.float64))
        return self._observation(), float(success), success, False, {"success": success}

    def _observation(self) -> dict[str, NDArray[Any]]:
        return dict(self.proprioception()) | {
            camera: self.render_camera(camera, *self._image_size) for camera in self._frame_cameras
        }

    def proprioception(self) -> Mapping[str, NDArray[np.float64]]:
        """Return the state parts of ``INTERFACE`` as robosuite's observables sampled them, copies."""
        sampled = self._episodes.stepper.buffers
        return {
            "eef_pos": sampled.sample_eef_pos.copy(),
            "eef_quat_xyzw": np.roll(sampled.sample_eef_quat, -1),
            "gripper_qpos": sampled.sample_gripper.copy(),
            "joint_pos": sampled.sample_joints.copy(),
        }

    def render_camera(self, camera: str, height: int, width: int) -> NDArray[np.uint8]:
        """Return the frame of the moment the observation was sampled at, (height, width, 3) uint8, upright."""
        if self._renderer is None:
            self._renderer = self._make_renderer()
        episodes = self._episodes
        camera_id = episodes.model.camera(CAMERAS[camera]).id
        present = episodes.model.site_rgba.copy()
        episodes.model.site_rgba[:] = episodes.frame_site_rgba
        try:
            return self._renderer.render(episodes.stepper.buffers.sample_qpos, camera_id, height, width)
        finally:
            episodes.model.site_rgba[:] = present

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """Return the agentview frame in render mode "rgb_array"."""
        return self.render_camera("agentview", *self._image_size) if self.render_mode == "rgb_array" else None

    def scene(self) -> Mapping[str, Any]:
        """Return the simulator's own view of the scene (``envs.libero.scene``)."""
        return self._scene_reader.read()

    def simulator_state(self) -> NDArray[np.float64]:
        """Return [time, qpos, qvel], (1 + nq + nv,) float64."""
        return self._episodes.state

    def close(self) -> None:
        """Free the GL context."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
