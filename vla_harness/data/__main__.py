"""``python -m vla_harness.data summary|check|plot|convert``: looks at datasets and converts them."""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys

    from vla_harness.launch import launch

    sys.exit(launch("vla_harness.data.__main__"))

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tqdm import tqdm
from tyro.conf import Positional, arg

from tformer.values import NonNegativeInt

from ..command import DONE, FAILED, parse_options, run_command
from ..errors import UserError
from ..printing import printable
from ..results.wording import plural
from .check import check_dataset
from .convert import Version, convert_dataset, left_out
from .dataset import Dataset
from .opening import ReadingOptions, open_dataset
from .summary import plot_episode, summarize


@dataclass(frozen=True, kw_only=True)
class _Reading(ReadingOptions):
    dataset: Annotated[Positional[Path], arg(metavar="DATASET")]
    """Folder of a LeRobot dataset, LIBERO's .hdf5 file or a folder of these, or one of these on the hub: ORG/NAME or
    ORG/NAME/FOLDER."""

    def open(self) -> Dataset:
        return open_dataset(self.dataset, self.convention, self.image_orientation, self.shift_observations)


@dataclass(frozen=True, kw_only=True)
class Summary(_Reading):
    """Print what a dataset holds: episodes, tasks, cameras, parts of state and action, statistics."""


@dataclass(frozen=True, kw_only=True)
class Check(_Reading):
    """Read a whole dataset and print what is damaged and what lerobot's readers would miss. Exit code 1 if anything."""


@dataclass(frozen=True, kw_only=True)
class Plot(_Reading):
    """Draw an episode: frames of each camera, and each part of state and action over time."""

    episode: NonNegativeInt = 0
    """Position of the episode in the dataset, from 0."""
    out: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="(default: NAME-episode-N.png)")] = None
    """Picture to write: .png, .svg or .pdf."""


@dataclass(frozen=True, kw_only=True)
class Convert(_Reading):
    """Write a dataset in another format. From LeRobot to LeRobot, videos are encoded anew only if frames are turned.

    LIBERO's files take the cameras agentview and wrist, the states eef_pos, eef_axis_angle, gripper_qpos and joint (or
    an observation.state of 8 numbers), and the action of 7; what is left out is printed.
    """

    out: Positional[Path]
    """New folder for the converted dataset."""
    version: Version
    """What to write: a version of LeRobot's format, or hdf5, LIBERO's files."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command named first in ``arguments`` (default: the command line's) and return its exit code."""
    return run_command(lambda: _dispatch(sys.argv[1:] if arguments is None else list(arguments)))


def _dispatch(arguments: Sequence[str]) -> int:
    name, rest = (arguments[0], arguments[1:]) if arguments else ("--help", ())
    if name in ("--help", "-h"):
        print(__doc__)
        return DONE
    if name not in COMMANDS:
        raise UserError(f"There is no command {name!r}: choose from {', '.join(COMMANDS)}.")
    return COMMANDS[name](rest)


def _summary(arguments: Sequence[str]) -> int:
    options = parse_options(Summary, arguments, "python -m vla_harness.data summary")
    print(summarize(options.open()))
    return DONE


def _check(arguments: Sequence[str]) -> int:
    options = parse_options(Check, arguments, "python -m vla_harness.data check")
    dataset = options.open()
    found = 0
    for found, complaint in enumerate(check_dataset(dataset), 1):  # noqa: B007 - the count is printed
        print(printable(complaint))
    print(f"{plural(len(dataset.episodes), 'episode')} read: {plural(found, 'complaint') if found else 'all is well'}.")
    return FAILED if found else DONE


def _plot(arguments: Sequence[str]) -> int:
    options = parse_options(Plot, arguments, "python -m vla_harness.data plot")
    dataset = options.open()
    if not 0 <= options.episode < len(dataset.episodes):
        raise UserError(f"--episode is {options.episode}: give a number from 0 to {len(dataset.episodes) - 1}.")
    out = options.out or Path(f"{Path(dataset.name).stem}-episode-{options.episode}.png")
    if out.suffix not in (".png", ".svg", ".pdf"):
        raise UserError(f"--out is {out}: give a name that ends in .png, .svg or .pdf.")
    plot_episode(dataset.episode(options.episode), out)
    print(out)
    return DONE


def _convert(arguments: Sequence[str]) -> int:
    options = parse_options(Convert, arguments, "python -m vla_harness.data convert")
    dataset = options.open()
    for line in left_out(dataset, options.version):
        print(printable(line))
    with tqdm(total=len(dataset.episodes), unit="episode", disable=None) as bar:
        written = convert_dataset(dataset, options.out, options.version, lambda done: bar.update(done - bar.n))
    print(f"{written.path}: {plural(len(written.episodes), 'episode')}, {written.kind}")
    return DONE


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "summary": _summary,
    "check": _check,
    "plot": _plot,
    "convert": _convert,
}
