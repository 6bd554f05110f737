"""``python -m vla_harness.data.record --suite spatial --out DIR``: demonstrations of the scripted expert."""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys

    from vla_harness.launch import launch

    sys.exit(launch("vla_harness.data.record"))

import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, Literal

from tqdm import tqdm
from tyro.conf import arg

from tformer.values import Fraction, PositiveInt, Range, Seed

from ..command import DONE, check_options, parse_options, run_command
from ..errors import RunFailed, UserError
from ..protocols import PROTOCOLS
from ..results.files import check_new_folder, explain_write_errors, new_folder, write_text
from ..results.wording import plural
from .convert import Version, convert_dataset
from .demonstrations import CAMERAS, Demonstration, DemonstrationJob, demonstrate, features
from .files import read_json
from .opening import open_dataset
from .writer import DatasetWriter

FPS = 20
RECORDING = "meta/recording.json"
"""What was recorded, beside the data; it also marks a folder that a recording may go on in."""
V3_BYTES = 7e4
"""Of v3.0's table of episodes, which has a column for each statistic."""
SPARE_BYTES = 1e9
"""Disk that is left to others."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """Record demonstrations of the scripted expert as a dataset; a folder that was cut short is continued.

    Placements are drawn from the tasks' own regions, never the benchmark's stored states. Only successes are kept.
    The rows are the same for any number of workers, the encoded frames nearly. Exit codes: 0 done, 1 failed, 2
    something to put right.
    """

    suite: Literal["spatial", "object", "goal", "10"]
    """Suite of tasks."""
    out: Annotated[Path, arg(metavar="DIR")]
    """Folder of the dataset."""
    episodes: PositiveInt = 50
    """Demonstrations of each task."""
    tasks: Annotated[tuple[str, ...] | None, arg(metavar="N,N", help_behavior_hint="(default: all)")] = None
    """Numbers of the tasks, with commas or spaces between."""
    format: Version = "v3.0"
    """Format of the dataset: LeRobot's, or LIBERO's own."""
    assets: Annotated[str, arg(metavar="auto|hub|primitive|PATH")] = "auto"
    """Meshes and textures, as of eval/run_libero.py."""
    image_size: Annotated[int, Range(16, multiple=2)] = 128
    """Height and width of the frames, pixels."""
    frame_every: PositiveInt = 1
    """Steps from one drawn frame to the next. Rows between show the earlier frame again, and say so; drawing is nine
    tenths of the work."""
    jitter: Fraction = 0.0
    """How much colours, light and cameras vary between demonstrations: 0 not at all, 1 much."""
    noise: Fraction = 0.5
    """Most that is added to an entry of an executed action, so that recoveries are shown."""
    seed: Seed = 0
    """Of placements and noise."""
    workers: PositiveInt = os.cpu_count() or 1
    """Processes."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(lambda: record(parse_options(Record, arguments, "python -m vla_harness.data.record")))


def record(options: Record) -> int:
    """Record, print what is done, and return the exit code.

    Raises UserError for options that cannot be, a folder with something else, and a disk that is too small.
    """
    check_options(options)
    check_new_folder(options.out)
    part = options.out.with_name(options.out.name + ".recording")
    begun = os.path.lexists(part)
    if begun:
        _check_same(part, options)
    jobs = _jobs(options)
    if not begun:
        with new_folder(part) as folder:
            DatasetWriter(folder, FPS, features(options.image_size), robot_type="panda")
            write_text(folder / RECORDING, json.dumps(_identity(options), indent=4))
    with DatasetWriter(part, FPS, features(options.image_size), robot_type="panda") as writer:
        if writer.episodes:
            print(f"{part} holds {plural(writer.episodes, 'episode')} already: going on there")
        _play(jobs, writer, options)
    written = open_dataset(part)
    if options.format == "v2.1":
        check_new_folder(options.out)
        with explain_write_errors(options.out):
            part.rename(options.out)
    else:
        convert_dataset(written, options.out, options.format)
        shutil.rmtree(part)
    done = open_dataset(options.out)
    print(
        f"{options.out}: {plural(len(done.episodes), 'episode')}, {done.frames} rows, {_megabytes(_size(options.out))}"
    )
    return DONE


def _jobs(options: Record) -> list[DemonstrationJob]:
    from vla_harness.envs.assets import resolve_assets
    from vla_harness.envs.compiling import choose_numba_cache
    from vla_harness.envs.gl import choose_gl_backend, gl_renderer
    from vla_harness.envs.libero.benchmark import suite_tasks

    known = len(suite_tasks(options.suite))
    tasks = range(known) if options.tasks is None else _numbers(options.tasks)
    for task in tasks:
        if not 0 <= task < known:
            raise UserError(f"--tasks has {task}: LIBERO's suite {options.suite} has tasks 0 to {known - 1}.")
    source = resolve_assets(options.assets)
    print(f"assets: {source}\nrendering: {choose_gl_backend()}, {gl_renderer()}")
    if told := choose_numba_cache():  # before the workers start, so that they share it
        print(f"numba: {told}")
    return [
        DemonstrationJob(
            options.suite,
            task,
            number,
            str(source.path),
            PROTOCOLS["openvla"],
            options.image_size,
            options.seed,
            options.noise,
            options.frame_every,
            options.jitter,
        )
        for task in tasks
        for number in range(options.episodes)
    ]


def _numbers(tasks: Sequence[str]) -> list[int]:
    words = [word for one in tasks for word in str(one).split(",")]
    try:
        return list(dict.fromkeys(int(word) for word in words))
    except ValueError:
        raise UserError(f"--tasks is {' '.join(tasks)!r}: give numbers with commas between, such as 0,3.") from None


def _identity(options: Record) -> dict[str, Any]:
    """Return what the recorded rows depend on."""
    names = ("suite", "episodes", "image_size", "frame_every", "jitter", "noise", "seed", "assets")
    tasks = None if options.tasks is None else _numbers(options.tasks)
    return {name: getattr(options, name) for name in names} | {"tasks": tasks}


def _check_same(part: Path, options: Record) -> None:
    """Raise UserError unless ``part`` is a recording that was begun with these options."""
    path = part / RECORDING
    if part.is_symlink() or not path.is_file():
        raise UserError(f"{part} is in the way and no recording that was cut short: move it, or give another --out.")
    there = read_json(path)
    for name, value in _identity(options).items():
        if there.get(name) != value:
            raise UserError(
                f"{part} was begun with --{name.replace('_', '-')} {there.get(name)}, and this is {value}: give the"
                " same again, or another --out."
            )


def _play(jobs: list[DemonstrationJob], writer: DatasetWriter, options: Record) -> None:
    """Play what is missing, in order, and write each demonstration when it and all before it are there."""
    left = jobs[writer.episodes :]
    if not left:
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers are the parallelism
    started, tried = time.monotonic(), 0
    with (
        ProcessPoolExecutor(min(options.workers, len(left)), get_context("spawn")) as pool,
        tqdm(total=len(jobs), initial=writer.episodes, unit="episode", disable=None, smoothing=0) as bar,
    ):
        try:
            for done, demonstration in enumerate(pool.map(demonstrate, left), 1):
                _write(demonstration, writer)
                tried += demonstration.attempts
                bar.update()
                if done == 1:
                    _estimate(writer, len(left), time.monotonic() - started, options)
        except RuntimeError as error:
            pool.shutdown(wait=False, cancel_futures=True)
            raise RunFailed(str(error)) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    spent = timedelta(seconds=round(time.monotonic() - started))
    print(f"{plural(len(left), 'demonstration')} in {spent}, {tried} attempts")


def _write(demonstration: Demonstration, writer: DatasetWriter) -> None:
    with writer.episode(demonstration.instruction) as episode:
        for row in demonstration.rows():
            episode.add(row)


def _estimate(writer: DatasetWriter, left: int, seconds: float, options: Record) -> None:
    """Say from the first demonstration what all will take; raise UserError if the disk has no room for them."""
    recorded = _size(writer.path) / writer.episodes * left
    rows = sum(writer.lengths) / writer.episodes * left
    if options.format == "hdf5":
        from .libero_hdf5_writer import row_bytes  # h5py is needed for these files alone

        size = rows * row_bytes([(options.image_size, options.image_size)] * len(CAMERAS))
    else:
        size = recorded + (V3_BYTES if options.format == "v3.0" else 0)
    free = shutil.disk_usage(writer.path).free
    # The first has built an environment and compiled, so the time is an upper bound.
    duration = timedelta(seconds=round(seconds * -(-left // options.workers)))
    tqdm.write(f"estimate: {_megabytes(size)} and at most {duration} for {plural(left, 'demonstration')}", sys.stderr)
    needed = size if options.format == "v2.1" else recorded + size
    if needed + SPARE_BYTES > free:
        raise UserError(
            f"{plural(left, 'demonstration')} need about {_megabytes(needed)}, and {_megabytes(free)} are free"
            f" at {writer.path}: give another --out or fewer --episodes."
        )


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.3g} MB"
