"""``python -m vla_harness export RUN --out FILE|DIR``: a run's episodes as a table or a dataset for other programs."""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys

    from vla_harness.launch import launch

    sys.exit(launch("vla_harness.__main__", ["export", *sys.argv[1:]]))

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from tyro.conf import Positional, arg

from tformer.launch import missing_package

from ..command import DONE, parse_options
from ..errors import UserError
from ..results import RecordedRun, read_run
from ..results.csv_text import csv_text
from ..results.files import explain_write_errors, new_file, write_text
from ..results.wording import plural
from ..types import EpisodeResult
from .playback import frame_size
from .rollout_dataset import write_lerobot


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write a run's episodes: as a table, with outcome, times and hashes, or as a LeRobot dataset with every frame.

    Exit codes: 0 done, 1 an episode could not be played again, 2 something to put right in the command.
    """

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """Folder of the run."""

    out: Annotated[Path, arg(metavar="FILE|DIR")]
    """File to write: .csv, or .parquet, which holds the actions and the policy's latencies as well. A name without an
    ending is a new folder for a LeRobot dataset (v2.1); every episode is played again for it."""

    size: Annotated[str | None, arg(metavar="N|HxW", help_behavior_hint="(default: 256)")] = None
    """Height and width of a dataset's videos in pixels, even numbers, such as 256 or 240x320."""

    successes: bool = False
    """Write only the successful episodes."""

    assets: Annotated[
        str | None, arg(metavar="auto|hub|primitive|PATH", help_behavior_hint="(default: where the run found them)")
    ] = None
    """The run's assets, where they lie now; for a dataset."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; ``arguments`` without the program's name. Returns the exit code."""
    options = parse_options(Export, arguments, "vla-harness export")
    if options.out.suffix not in (*FORMATS, ""):
        raise UserError(f"--out is {options.out}: end its name in {', '.join(FORMATS)}, or give a folder's name.")
    if options.out.suffix and (options.size or options.assets):
        raise UserError("--size and --assets are for a dataset: give a folder's name, without an ending, as --out.")
    run = read_run(options.run)
    if options.successes:
        run = replace(run, results=tuple(result for result in run.results if result.outcome == "success"))
    if not options.out.suffix:
        count = write_lerobot(run, options.out, frame_size(options.size or "256"), options.assets)
        print(f"Written: {options.out} ({plural(count, 'episode')})")
        return DONE
    if not run.results:
        raise UserError(f"{run.path} has no episode to write.")
    with explain_write_errors(options.out):
        options.out.parent.mkdir(parents=True, exist_ok=True)
    FORMATS[options.out.suffix](run, options.out)
    print(f"Written: {options.out} ({plural(len(run.results), 'episode')})")
    return DONE


def episode_row(run: RecordedRun, result: EpisodeResult) -> dict[str, Any]:
    """Return one episode's columns, without its actions and latencies."""
    return {
        "suite": result.key.suite,
        "task_id": result.key.task_id,
        "initial_state": result.key.initial_state,
        "seed": result.key.seed,
        "policy": run.config["policy"],
        "protocol": run.config["protocol"]["name"],
        "task": result.task_name,
        "instruction": result.instruction,
        "outcome": result.outcome,
        "steps": result.steps,
        "decisions": len(result.policy_ms),
        "policy_ms_mean": float(np.mean(result.policy_ms)) if result.policy_ms else None,
        "env_s": result.env_s,
        "render_s": result.render_s,
        "wall_s": result.wall_s,
        "frames": result.frames,
        "attempts": result.attempts,
        "action_sha256": result.action_sha256,
        "state_sha256": result.state_sha256,
        "video": result.video,
        "error": result.error,
    }


def write_csv(run: RecordedRun, path: Path) -> None:
    """Write the rows, at least one, as CSV. Raises UserError if the file cannot be written."""
    rows = [episode_row(run, result) for result in run.results]
    write_text(path, csv_text(list(rows[0]), rows))


def write_parquet(run: RecordedRun, path: Path) -> None:
    """Write the rows, at least one, as Parquet, with ``actions`` (steps x dim float32) and ``policy_ms`` as lists.

    Raises UserError if pyarrow is not installed or the file cannot be written.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise UserError(missing_package(error, "data", "Parquet")) from None
    rows = [
        episode_row(run, result) | {"policy_ms": list(result.policy_ms), "actions": result.actions.tolist()}
        for result in run.results
    ]
    table = pyarrow.Table.from_pylist(rows)
    column = table.schema.get_field_index("actions")
    kind = pyarrow.list_(pyarrow.list_(pyarrow.float32()))
    table = table.set_column(column, "actions", table.column("actions").cast(kind))
    with new_file(path) as unfinished:
        parquet.write_table(table, unfinished, compression="zstd")


FORMATS: dict[str, Callable[[RecordedRun, Path], None]] = {".csv": write_csv, ".parquet": write_parquet}
