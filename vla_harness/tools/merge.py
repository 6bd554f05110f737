"""``python -m vla_harness merge RUN RUN … --out DIR``: parts of one evaluation, played apart, as one run."""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys

    from vla_harness.launch import launch

    sys.exit(launch("vla_harness.__main__", ["merge", *sys.argv[1:]]))

import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from ..command import DONE, FAILED, parse_options
from ..errors import UserError
from ..results import RecordedRun, RunFolder, read_run, write_reports
from ..results.configuration import config_differences
from ..results.database import connect, explain_database_errors, store_sitting
from ..results.episode_rows import store_episode
from ..results.files import explain_write_errors
from ..results.marks import shared_provenance
from ..results.run_folder import MUST_AGREE, provenance_part
from ..success_table import success_table
from ..types import EpisodeKey, EpisodeResult

MAY_DIFFER = ("tasks", "trials")
"""Fields in which parts of one evaluation differ, beside those that never matter."""


@dataclass(frozen=True, kw_only=True)
class Merge:
    """Merge runs that are parts of one evaluation, such as its tasks played on several machines, into a new run.

    The parts must agree in all that decides a result. Exit codes: 0 done, 1 episodes of a part had ended in errors, 2
    something to put right in the command.
    """

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN …")]
    """Folders of the runs."""

    out: Annotated[Path, arg(metavar="DIR")]
    """Folder for the merged run."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; ``arguments`` without the program's name. Returns the exit code."""
    options = parse_options(Merge, arguments, "vla-harness merge")
    summary = merge_runs([read_run(path) for path in options.runs], options.out)
    print(f"{success_table(summary)}\n\nReport: {options.out / 'report.html'}")
    return FAILED if summary["errors"] else DONE


def merge_runs(runs: Sequence[RecordedRun], out: Path) -> dict[str, Any]:
    """Write a run that holds the episodes, videos and sittings of ``runs`` into ``out``, and return its summary.

    An episode that several parts hold is taken once: a finished one before one that ended in an error. Raises UserError
    for fewer than two parts, one given twice or one without a finished episode, and when they do not belong together:
    another configuration, checkpoint, simulator or assets, or two finished episodes of one name that ended differently.
    """
    if len(runs) < 2:
        raise UserError("Give at least two runs to merge.")
    places = [run.path.resolve() for run in runs]
    for run, place in zip(runs, places, strict=True):
        if places.count(place) > 1:
            raise UserError(f"{run.path} is given twice: name each part once.")
    for run in runs:
        if all(result.outcome == "error" for result in run.results):
            raise UserError(f"{run.path} holds no finished episode: go on with it by --resume, or leave it out.")
    for run in runs[1:]:
        _require_same_evaluation(runs[0], run)
    chosen: dict[EpisodeKey, tuple[int, EpisodeResult]] = {}
    for number, run in enumerate(runs):
        for result in run.results:
            before = chosen.get(result.key)
            if before is None or before[1].outcome == "error":
                chosen[result.key] = number, result
            elif result.outcome != "error" and _ending(result) != _ending(before[1]):
                raise UserError(
                    f"{runs[before[0]].path} and {run.path} both hold {result.key}, and it ended differently: they are"
                    " not parts of one evaluation."
                )
    config = dict(runs[0].config) | {
        "tasks": sorted(set().union(*(run.config["tasks"] for run in runs))),
        "trials": max(run.config["trials"] for run in runs),
        "out": str(out),
    }
    RunFolder.create(out, config).close()
    results = [(number, _with_its_video(result, runs[number].path, out)) for number, result in chosen.values()]
    with closing(connect(out)) as database, explain_database_errors(out), database:
        database.execute("DELETE FROM sittings")  # the merging is no sitting: the parts' own are
        numbers = {}
        for number, run in enumerate(runs):
            for sitting in run.sittings:
                numbers[number] = store_sitting(database, sitting)
        for number, result in results:
            store_episode(database, result, numbers[number])
    return write_reports(out)


def _with_its_video(result: EpisodeResult, part: Path, out: Path) -> EpisodeResult:
    """Copy the episode's video into the merged run; a result whose video is not there any more loses its link."""
    if not result.video or not (part / result.video).is_file():
        return replace(result, video="")
    copy = out / result.video
    with explain_write_errors(copy):
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(part / result.video, copy)
    return result


def _ending(result: EpisodeResult) -> tuple[str, str]:
    return result.outcome, result.state_sha256


def _require_same_evaluation(first: RecordedRun, other: RecordedRun) -> None:
    one, two = ({k: v for k, v in run.config.items() if k not in MAY_DIFFER} for run in (first, other))
    differing = config_differences(one, two)
    made, also_made = shared_provenance(first), shared_provenance(other)
    for keys in MUST_AGREE:
        if provenance_part(made, keys) != provenance_part(also_made, keys):
            differing.append(" ".join(keys))
    if differing:
        raise UserError(
            f"{first.path} and {other.path} are not parts of one evaluation: they differ in {', '.join(differing)}."
        )
