"""A run's rollouts as a LeRobot dataset: each episode is played again, and seen by every camera at every step."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tformer.launch import missing_package

from ..errors import UserError
from ..results import RecordedRun
from ..rollout.jobs import Simulator
from .playback import playback


def write_lerobot(run: RecordedRun, path: Path, size: tuple[int, int], assets: str | None = None) -> int:
    """Write a LeRobot v2.1 dataset into ``path``, a new folder, and return its number of episodes.

    size: (height, width) of the videos in pixels, even numbers. A frame holds what a policy could have seen before an
    action: every camera, upright; ``observation.state``, all parts that the environment reports; ``action``, as the
    environment took it; and ``next.success``, whether the task was solved after it.
    Raises UserError if the folder is not new, nothing is to be written or the packages for data sets are missing, and
    RunFailed if an episode ends in another state than it did; whole episodes before it stay.
    """
    try:
        from ..data.features import Feature
        from ..data.modality import Modality, Part
        from ..data.writer import DatasetWriter
    except ModuleNotFoundError as error:
        raise UserError(missing_package(error, "data", "A LeRobot dataset")) from None
    chosen = [result for result in run.results if result.outcome != "error"]
    if not chosen:
        raise UserError(f"{run.path} has no episode to write.")
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(f"{path} is there and no empty folder: give --out a new one.")
    with playback(run, assets) as player:
        interface = player.simulator(chosen[0].key.task_id).interface
        cameras = {camera: f"observation.images.{camera}" for camera in interface.cameras}
        state_names = [f"{name}_{i}" for name, length in interface.state.items() for i in range(length)]
        action_size = chosen[0].actions.shape[1]
        ends = np.cumsum([0, *interface.state.values()]).tolist()
        modality = Modality(
            {
                name: Part("observation.state", start, end)
                for name, start, end in zip(interface.state, ends[:-1], ends[1:], strict=True)
            },
            {"action": Part("action", 0, action_size, absolute=interface.action.mode == "absolute")},
            cameras,
            {"human.task_description": "task_index"},
        )
        features = {
            **{column: Feature("video", (*size, 3)) for column in cameras.values()},
            "observation.state": Feature("float32", (len(state_names),), state_names),
            "action": Feature("float32", (action_size,)),
            "next.success": Feature("bool", (1,)),
        }
        with DatasetWriter(path, round(interface.control_hz), features, modality=modality) as dataset:
            for result in chosen:
                simulator = player.simulator(result.key.task_id)
                with dataset.episode(result.instruction) as episode:
                    for played in player.moments(result):
                        if played < result.steps:
                            won = result.outcome == "success" and played == result.steps - 1
                            seen = _seen(simulator, cameras, size)
                            episode.add(seen | {"action": result.actions[played], "next.success": np.array([won])})
    return len(chosen)


def _seen(simulator: Simulator, cameras: dict[str, str], size: tuple[int, int]) -> dict[str, np.ndarray]:
    parts = simulator.proprioception()
    state = np.concatenate([np.asarray(parts[name], np.float64) for name in simulator.interface.state])
    images = {column: simulator.render_camera(camera, *size) for camera, column in cameras.items()}
    return {**images, "observation.state": state.astype(np.float32)}
