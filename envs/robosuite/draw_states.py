"""Draws the stored initial states anew: ``python -m vla_harness.envs.robosuite.draw_states FILE``, a minute."""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys

    from vla_harness.launch import launch

    sys.exit(launch("vla_harness.envs.robosuite.draw_states"))

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm
from tyro.conf import Positional, arg

from vla_harness.command import DONE, parse_options, run_command
from vla_harness.errors import UserError
from vla_harness.results.files import explain_write_errors

from ..gl import choose_gl_backend
from .benchmark import DEFAULT_ROBOT, INITIAL_STATES, SUITES, RobosuiteTask


@dataclass(frozen=True, kw_only=True)
class DrawStates:
    """Draw the initial states of robosuite's tasks anew, as this package's initial_states.npz holds them. A minute.

    Exit codes: 0 done, 2 something to put right in the command.
    """

    out: Annotated[Positional[Path], arg(metavar="FILE.npz")]
    """File to write."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; ``arguments`` without the program's name. Returns the exit code."""
    return run_command(lambda: write(parse_options(DrawStates, arguments, "draw_states").out))


def write(path: Path) -> int:
    """Write the file and return the exit code. Raises UserError, before anything is drawn, where it cannot be written.

    A file of that name is replaced when all is drawn, not before.
    """
    if path.suffix != ".npz":
        raise UserError(f"{path} is where the states go: end its name in .npz.")
    part = path.with_name(path.name + ".part")
    with explain_write_errors(path), part.open("wb") as file:
        try:
            choose_gl_backend()
            drawn: dict[str, NDArray[np.generic]] = {}
            for task in tqdm([task for suite in SUITES.values() for task in suite], unit="task", disable=None):
                drawn |= draw(task)
            np.savez_compressed(file, **drawn)  # type: ignore[arg-type]
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    print(path)
    return DONE


def draw(task: RobosuiteTask) -> dict[str, NDArray[np.generic]]:
    """Return what ``benchmark.StoredStates`` holds of one task, by the file's names."""
    from .simulation import RobosuiteEpisodes  # imports mujoco, which must not come before the GL backend is chosen

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
