"""LIBERO tasks as gymnasium environments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from vla_harness.errors import UserError
from vla_harness.types import DELTA_EEF_POSE, EnvironmentSpec

from ..assets import resolve_assets
from ..environment import SimulatedEnv
from ..gl import choose_gl_backend
from .benchmark import initial_states, suite_tasks
from .stock import import_libero

if TYPE_CHECKING:
    from .episode import LiberoEpisodes

CAMERAS = {"agentview": "agentview", "wrist": "robot0_eye_in_hand"}
"""Our camera names and MuJoCo's."""

INTERFACE = EnvironmentSpec(
    cameras=tuple(CAMERAS),
    state={"eef_pos": 3, "eef_quat_xyzw": 4, "gripper_qpos": 2, "joint_pos": 7},
    action=DELTA_EEF_POSE,
    control_hz=20.0,
)


class LiberoEnv(SimulatedEnv):
    """One LIBERO task: a Panda arm under 20 Hz operational-space control.

    suite: "spatial", "object", "goal", "10" or "90". task: its number in the benchmark's order.
    observations: "always" puts the frames of ``cameras`` into each observation; "on_request" renders none, and frames
    come from ``render_camera``.
    cameras, image_size: for "always": camera names, and (height, width) in pixels.
    assets: "auto", "hub", "primitive" or a folder (see ``envs.assets``).

    Action: (7,) float32 in [-1, 1], ``DELTA_EEF_POSE``. Observation: the state parts of ``INTERFACE``, float64 (metres,
    radians), and the frames, (H, W, 3) uint8, upright. Reward 1.0 and termination on success. The
    registered ids have the suite's step limit as ``spec.max_episode_steps``, which ``gymnasium.make`` truncates at.

    ``reset(seed=s, options={"initial_state": i})`` starts from the i-th of the task's stored states with the fixtures'
    poses drawn from s; what is left out is drawn from the environment's own generator. The episode is a pure function
    of (suite, task, i, s), and equals the stock environment's first one after ``seed(s)``.
    ``reset(options={"placement_seed": p})`` draws objects and fixtures anew from the task's own regions instead, for
    demonstrations: a pure function of (suite, task, p), and never one of the stored states.
    """

    _episodes: LiberoEpisodes

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
        self.task_name, self.instruction = tasks[task].name, tasks[task].instruction
        self._initial_states = initial_states(tasks[task])
        self.initial_states = len(self._initial_states)

        choose_gl_backend()  # before mujoco is imported
        source = resolve_assets(assets)
        stock_envs = import_libero(source.path)
        from ..standins.light import draw_lightly
        from .episode import LiberoEpisodes
        from .scene import SceneReader

        edit_xml = draw_lightly(source.path) if source.kind == "primitive" else None
        self._episodes = LiberoEpisodes(stock_envs, tasks[task].bddl_file, edit_xml)
        self._scene_reader = SceneReader(self._episodes.problem)
        super().__init__(INTERFACE, CAMERAS, cameras if observations == "always" else (), image_size, render_mode)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Start an episode; see the class.

        Raises UserError for an option that there is not, an initial state that the task does not have, and for one
        beside a placement seed.
        """
        super().reset(seed=seed)
        index, placement = self._options(options, "initial_state", "placement_seed")
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
        """Advance by one action; see the class. Raises UserError for anything else than 7 finite numbers."""
        success = self._episodes.step(self._action(action))
        return self._observation(), float(success), success, False, {"success": success}

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
        """See SimulatedEnv."""
        site_rgba = self.model.site_rgba
        present = site_rgba.copy()
        site_rgba[:] = self._episodes.frame_site_rgba
        try:
            return super().render_camera(camera, height, width)
        finally:
            site_rgba[:] = present

    def scene(self) -> Mapping[str, Any]:
        """Return the simulator's own view of the scene (``envs.libero.scene``)."""
        return self._scene_reader.read()
