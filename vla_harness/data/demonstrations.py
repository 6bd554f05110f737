"""One demonstration: the scripted expert solves a task from a fresh placement, and every step becomes a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from ..conventions import Adapter
from ..protocols import Protocol
from ..registry import load_policy
from ..rollout.jobs import EnvironmentRecipe, Simulator
from ..types import Observation, random_generator
from .conventions import ACTION_NAMES, STATE, STATE_NAMES
from .features import Feature
from .jitter import Jitter

CAMERAS = ("agentview", "wrist")
STATE_KEYS = tuple(STATE)
JOINT = "observation.state.joint"
AIM_NAMES = ("subject_x", "subject_y", "subject_z", "goal_x", "goal_y", "goal_z")
FRAME_IS_NEW = "observation.frame_is_new"
PRIVILEGED = "observation.environment_state"
ATTEMPTS = 20
"""Placements tried for one demonstration before the task counts as too hard for the expert."""


@dataclass(frozen=True)
class DemonstrationJob:
    """One demonstration to make: a pure function of these fields.

    task: its number in ``suite``. number: of the demonstration within its task. assets: as the environment takes it.
    noise: most that is added to an entry of an executed action. frame_every: steps from one drawn frame to the next.
    jitter: of colours, light and camera; 0 leaves them.
    """

    suite: str
    task: int
    number: int
    assets: str
    protocol: Protocol
    image_size: int
    seed: int
    noise: float
    frame_every: int
    jitter: float

    @property
    def name(self) -> str:
        """What the draws of this demonstration are keyed by."""
        return f"{self.suite}/{self.task}/{self.number}"


@dataclass(frozen=True)
class Demonstration:
    """A successful episode. columns: feature -> (length, …), cameras (drawn frames, H, W, 3) uint8 among them.

    attempts: placements that were tried, this one included.
    """

    job: DemonstrationJob
    instruction: str
    columns: Mapping[str, np.ndarray]
    attempts: int

    def rows(self) -> list[dict[str, np.ndarray]]:
        """Return one dict for each step; a row between two drawn frames holds the earlier one again."""
        drawn = np.cumsum(self.columns[FRAME_IS_NEW]) - 1
        return [
            {
                name: column[drawn[row]] if name in camera_features() else column[row]
                for name, column in self.columns.items()
            }
            for row in range(len(drawn))
        ]


def camera_features() -> tuple[str, ...]:
    """Return the names of the image features."""
    return tuple(f"observation.images.{camera}" for camera in CAMERAS)


def features(image_size: int) -> dict[str, Feature]:
    """Return the columns of a dataset of demonstrations, as LeRobot names them.

    ``action`` is what the expert wanted; with noise something else was executed. ``observation.environment_state`` has
    where the thing that is handled is and where it is to go, metres in the world frame, for teaching vision alone.
    ``observation.frame_is_new`` says in which rows the images were drawn, with ``frame_every`` above 1.
    """
    return {
        **{name: Feature("video", (image_size, image_size, 3)) for name in camera_features()},
        "observation.state": Feature("float32", (len(STATE_NAMES),), names=list(STATE_NAMES)),
        JOINT: Feature("float32", (7,), names=[f"joint_{i}" for i in range(7)]),
        PRIVILEGED: Feature("float32", (len(AIM_NAMES),), names=list(AIM_NAMES)),
        FRAME_IS_NEW: Feature("bool", (1,)),
        "action": Feature("float32", (len(ACTION_NAMES),), names=list(ACTION_NAMES)),
    }


def demonstrate(job: DemonstrationJob) -> Demonstration:
    """Play ``job`` until the expert succeeds, from one placement after the other.

    Raises RuntimeError when no placement of ``ATTEMPTS`` succeeds.
    """
    simulator = _simulator(job.suite, job.task, job.assets)
    for attempt in range(ATTEMPTS):
        columns = _attempt(simulator, job, attempt)
        if columns is not None:
            return Demonstration(job, simulator.instruction, columns, attempt + 1)
    raise RuntimeError(
        f"The expert failed {ATTEMPTS} times at task {job.task} of {job.suite}: leave it out with --tasks."
    )


_open: dict[tuple[str, int, str], Simulator] = {}


def _simulator(suite: str, task: int, assets: str) -> Simulator:
    """Return the task's environment; the last one is kept, because building one takes seconds, and no other."""
    key = suite, task, assets
    if key not in _open:
        while _open:
            _open.popitem()[1].close()
        recipe = EnvironmentRecipe(
            f"vla_harness.envs:libero/{suite}-v0", {"task": task, "observations": "on_request", "assets": assets}
        )
        _open[key] = recipe.build()
    return _open[key]


def _attempt(simulator: Simulator, job: DemonstrationJob, attempt: int) -> dict[str, np.ndarray] | None:
    """Return the columns of one play, or None if it failed."""
    name = f"{job.name}/{attempt}"
    draw = random_generator(job.seed, name, 0)
    expert: Any = load_policy("scripted", noise=job.noise, seed=job.seed)
    adapter = Adapter(simulator.interface, replace(expert.spec, state_keys=STATE_KEYS), "LIBERO")
    simulator.reset(options={"placement_seed": int(draw.integers(2**31))})
    # Frames begin at any step, so that those of a task together show all of its moments.
    phase = int(draw.integers(job.frame_every))
    for _ in range(job.protocol.settle_steps):
        simulator.step(np.array(job.protocol.settle_action, np.float32))
    rows: dict[str, list[Any]] = {feature: [] for feature in features(job.image_size)}
    with Jitter(cast(Any, simulator).model, job.jitter, draw):
        for step in range(job.protocol.max_steps[job.suite]):
            is_new = step == 0 or step % job.frame_every == phase
            if is_new:
                for camera, feature in zip(CAMERAS, camera_features(), strict=True):
                    rows[feature].append(simulator.render_camera(camera, job.image_size, job.image_size))
            scene = simulator.scene()
            seen = Observation({}, np.zeros(0, np.float32), simulator.instruction, name, step, scene)
            executed = expert.act([seen])[0, 0]
            measured = simulator.proprioception()
            rows["observation.state"].append(adapter.state(measured))
            rows[JOINT].append(measured["joint_pos"])
            rows[PRIVILEGED].append(expert.aims(scene))
            rows[FRAME_IS_NEW].append([is_new])
            rows["action"].append(expert.wanted(name))
            if simulator.step(executed)[4]["success"]:
                return {feature: np.stack([np.asarray(v) for v in values]) for feature, values in rows.items()}
    return None
