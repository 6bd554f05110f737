"""A small environment without MuJoCo that keeps the contract of SimulatedTask, and that can be told to misbehave.

A point must come within 5 cm of a target. Its motion is chaotic on purpose: two plays that differ anywhere, also
through something left over from an earlier episode, soon differ everywhere.

Trouble is asked for by ``trouble={"kind": …, "moment": …, "initial_state": …, "step": …, "marker": path}``: it happens
when the environment is built, is reset to that initial state or is in it before that step (settle steps count); with a
marker, only while that file does not exist, and it is made then.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from vla_harness.errors import AssetError
from vla_harness.types import DELTA_EEF_POSE, EnvironmentSpec

TARGET_M = 0.05


class ToyEnvironment(gymnasium.Env):
    """Eight stored initial states; a state part ``eef_pos`` and the cameras ``agentview`` and ``wrist``."""

    initial_states = 8

    def __init__(
        self,
        task: int,
        observations: str = "on_request",
        step_s: float = 0.0,
        trouble: Mapping[str, Any] | None = None,
    ) -> None:
        assert observations == "on_request"
        self.task_name, self.instruction = f"toy_{task}", f"reach target {task}"
        self.interface = EnvironmentSpec(
            cameras=("agentview", "wrist"),
            state={"eef_pos": 3, "eef_quat_xyzw": 4},
            action=DELTA_EEF_POSE,
            control_hz=20.0,
        )
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (7,), np.float32)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float64)
        self._task, self._step_s, self._trouble = task, step_s, dict(trouble or {})
        self._resets = 0
        self._initial_state = -1
        self._misbehave("build")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        assert seed is not None and options is not None
        self._initial_state = options["initial_state"]
        assert 0 <= self._initial_state < self.initial_states
        draw = np.random.default_rng([seed, self._task, self._initial_state])
        self._position = draw.uniform(-1.0, 1.0, 3)
        self._target = draw.uniform(-0.3, 0.3, 3)
        self._chaos = draw.uniform(0.1, 0.9)
        if self._trouble.get("kind") == "impure":  # the fault that the film's check is for
            self._chaos += 1e-3 * self._resets
        self._resets += 1
        self._time = 0
        self._misbehave("reset")
        return self._position.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert action.shape == (7,) and action.dtype == np.float32
        self._misbehave("step")
        time.sleep(self._step_s)
        self._time += 1
        self._chaos = 3.99 * self._chaos * (1.0 - self._chaos)
        self._position = self._position + 0.1 * action[:3].astype(np.float64) + 0.001 * self._chaos
        success = bool(np.linalg.norm(self._position - self._target) < TARGET_M)
        return self._position.copy(), float(success), success, False, {"success": success}

    def render_camera(self, camera: str, height: int, width: int) -> np.ndarray:
        level = 255 * (0.5 + 0.5 * np.tanh(self._position))
        frame = np.zeros((height, width, 3), np.uint8)
        frame[:] = level.astype(np.uint8) if camera == "agentview" else 255 - level.astype(np.uint8)
        return frame

    def proprioception(self) -> dict[str, np.ndarray]:
        return {"eef_pos": self._position.copy(), "eef_quat_xyzw": np.array([0.0, 0.0, 0.0, 1.0])}

    def scene(self) -> dict[str, Any]:
        return {"target": self._target.copy()}

    def simulator_state(self) -> np.ndarray:
        return np.concatenate([[self._time], self._position, [self._chaos]])

    def _misbehave(self, moment: str) -> None:
        trouble = self._trouble
        if trouble.get("moment", "step") != moment or trouble.get("initial_state", -1) != self._initial_state:
            return
        if moment == "step" and trouble.get("step", 0) != self._time:
            return
        if "marker" in trouble:
            if Path(trouble["marker"]).exists():
                return
            Path(trouble["marker"]).touch()
        match trouble["kind"]:
            case "raise":
                raise RuntimeError("the toy broke\nand this line is not for the sentence")
            case "assets":
                raise AssetError("The toy's mesh is missing: fetch it.")
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "leave":
                os._exit(3)
            case "hang":
                time.sleep(3600)


gymnasium.register("toy/reach-v0", entry_point=f"{__name__}:ToyEnvironment")
