"""Draws the stored initial states anew: ``python -m vla_harness.envs.robosuite.draw_states FILE``, a minute."""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from .benchmark import DEFAULT_ROBOT, INITIAL_STATES, SUITES, RobosuiteTask
from .simulation import RobosuiteEpisodes


def draw(task: RobosuiteTask) -> dict[str, NDArray[np.generic]]:
    """Return what ``benchmark.StoredStates`` holds of one task, by the file's names."""
    episodes = RobosuiteEpisodes(task, (DEFAULT_ROBOT,) * task.arms, "OSC_POSE", stored=False)
    states, poses = [], []
    for number in range(INITIAL_STATES):
        episodes.reset(number)
        states.append(episodes.state)
        poses.append(np.concatenate([episodes.model.body_pos, episodes.model.body_quat], axis=1))
    every = np.array(poses)
    moved = np.flatnonzero((every != every[0]).any(axis=(0, 2)))
    return {
        f"{task.name}.states": np.array(states),
        f"{task.name}.bodies": np.array([episodes.model.body(body).name for body in moved], np.str_),
        f"{task.name}.poses": every[:, moved],
    }


def main(path: str) -> None:
    """Write the file."""
    drawn: dict[str, NDArray[np.generic]] = {}
    for suite in SUITES.values():
        for task in suite:
            drawn |= draw(task)
    np.savez_compressed(path, **drawn)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(sys.argv[1])
