"""One episode, played in a worker: settle, then decide and step until success or the protocol's last step.

Nothing here knows of processes: ``ask`` returns a chunk of actions for an observation, ``alive`` says that the
simulator still moves. An episode depends on its key, the policy and the protocol alone.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from ..conventions import Adapter
from ..protocols import Protocol
from ..types import EpisodeResult, Observation
from .jobs import EpisodeJob, Simulator, sentence_of

FILMED_CAMERA = "agentview"


class Episode:
    """The play of one job. ``play`` returns its result; ``failed`` makes one of an exception that left ``play``."""

    def __init__(
        self,
        simulator: Simulator,
        adapter: Adapter,
        job: EpisodeJob,
        protocol: Protocol,
        ask: Callable[[Observation], np.ndarray],
        alive: Callable[[], None],
    ) -> None:
        self._simulator, self._adapter, self._job, self._protocol = simulator, adapter, job, protocol
        self._ask, self._alive = ask, alive
        self._actions: list[np.ndarray] = []
        self._policy_ms: list[float] = []
        self._env_s = self._render_s = 0.0
        self._frames = 0
        self._started = time.perf_counter()

    @property
    def steps(self) -> int:
        """How many of the policy's actions have been executed."""
        return len(self._actions)

    def play(self) -> EpisodeResult:
        """Play to the end. Whatever the simulator, the adapter or ``ask`` raises passes through."""
        begin(self._simulator, self._job, self._protocol, self._alive)
        waiting: deque[np.ndarray] = deque()
        outcome: Literal["success", "failure"] = "failure"
        for step in range(self._protocol.max_steps[self._job.key.suite]):
            if not waiting:
                waiting.extend(self._decide(step))
            action = waiting.popleft()
            before = time.perf_counter()
            _, _, terminated, truncated, info = self._simulator.step(action)
            self._env_s += time.perf_counter() - before
            self._actions.append(action)
            self._alive()
            if info["success"]:
                outcome = "success"
            if info["success"] or terminated or truncated:
                break
        return self._result(outcome, state_sha256=state_hash(self._simulator))

    def failed(self, error: BaseException) -> EpisodeResult:
        """Return the result of an episode that ``error`` ended."""
        where = f"after {len(self._actions)} steps" if self._actions else "before the first step"
        return self._result("error", error=f"The episode broke off {where}: {sentence_of(error)}")

    def _decide(self, step: int) -> np.ndarray:
        """Return the actions to execute from ``step`` on, (n, action_dim) in the environment's convention."""
        observation = self._observe(step)
        before = time.perf_counter()
        chunk = self._ask(observation)
        self._policy_ms.append(1000 * (time.perf_counter() - before))
        return self._adapter.actions(chunk[: self._protocol.actions_per_inference])

    def _observe(self, step: int) -> Observation:
        policy = self._adapter.policy
        height, width = policy.image_size or self._protocol.image_size
        before = time.perf_counter()
        images = {}
        for camera in policy.cameras:
            images[camera] = self._simulator.render_camera(camera, height, width)
            self._alive()
        self._render_s += time.perf_counter() - before
        self._frames += len(images)
        return Observation(
            images=images,
            state=self._adapter.state(self._simulator.proprioception()),
            instruction=self._simulator.instruction,
            episode=str(self._job.key),
            step=step,
            scene=self._simulator.scene() if policy.reads_scene else None,
        )

    def _result(
        self, outcome: Literal["success", "failure", "error"], state_sha256: str = "", error: str = ""
    ) -> EpisodeResult:
        actions = np.stack(self._actions) if self._actions else np.zeros((0, 0), np.float32)
        return EpisodeResult(
            key=self._job.key,
            task_name=self._job.task_name,
            instruction=self._job.instruction,
            outcome=outcome,
            steps=len(self._actions),
            actions=actions,
            state_sha256=state_sha256,
            policy_ms=tuple(self._policy_ms),
            env_s=self._env_s,
            render_s=self._render_s,
            wall_s=time.perf_counter() - self._started,
            frames=self._frames,
            error=error,
        )


def begin(simulator: Simulator, job: EpisodeJob, protocol: Protocol, alive: Callable[[], None]) -> None:
    """Bring the simulator to the moment at which the policy takes over."""
    number = job.key.initial_state
    seed = number if protocol.environment_seed is None else protocol.environment_seed
    simulator.reset(seed=seed, options={"initial_state": number})
    alive()
    settle = np.array(protocol.settle_action, np.float32)
    for _ in range(protocol.settle_steps):
        simulator.step(settle)  # success is not looked at here, as in the published evaluations
        alive()


def film(
    simulator: Simulator,
    job: EpisodeJob,
    protocol: Protocol,
    result: EpisodeResult,
    path: Path,
    alive: Callable[[], None],
) -> None:
    """Play ``result``'s actions again and write a frame of each moment to ``path``, at the speed of the robot.

    Episodes are filmed afterwards, so that failures alone can be filmed without rendering every success, and so that
    filming cannot touch what is measured. Raises RuntimeError, and leaves no file, if the second play ends in another
    state than the first.
    """
    from ..video import VideoWriter  # most runs film nothing, and its libraries take long to load

    camera = filmed_camera(simulator)
    height, width = protocol.image_size
    with VideoWriter(path, height, width, fps=round(simulator.interface.control_hz)) as video:
        for _ in moments(simulator, job, protocol, result, alive):
            video.add(simulator.render_camera(camera, height, width))


def filmed_camera(simulator: Simulator) -> str:
    """Return the camera that films: the one from in front, if there is one."""
    cameras = simulator.interface.cameras
    return FILMED_CAMERA if FILMED_CAMERA in cameras else cameras[0]


def moments(
    simulator: Simulator, job: EpisodeJob, protocol: Protocol, result: EpisodeResult, alive: Callable[[], None]
) -> Iterator[int]:
    """Play ``result``'s actions again and yield after each how many were played, first 0, with the simulator there.

    Raises RuntimeError after the last one if the second play ends in another state than the first.
    """
    begin(simulator, job, protocol, alive)
    yield 0
    for played, action in enumerate(result.actions, 1):
        simulator.step(action)
        yield played
        alive()
    if state_hash(simulator) != result.state_sha256:
        raise RuntimeError("The same actions did not lead to the same state.")


def state_hash(simulator: Simulator) -> str:
    """Return the SHA-256 of the simulator's state, float64."""
    return hashlib.sha256(np.ascontiguousarray(simulator.simulator_state(), np.float64).tobytes()).hexdigest()
