"""``python -m vla_harness plan RUN --episodes N --hours H``: the workers and copies of the policy that a run takes."""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys

    from vla_harness.launch import launch

    sys.exit(launch("vla_harness.__main__", ["plan", *sys.argv[1:]]))

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

from tyro.conf import Positional, arg

from tformer.values import PositiveDuration, PositiveInt

from ..command import DONE, parse_options
from ..errors import UserError
from ..results import RecordedRun, Sitting, read_run
from ..results.marks import shared_provenance
from ..results.measured import BATCH_TIMES
from ..results.wording import duration, number, plural
from ..statistics.throughput import Throughput, fit_latency, joined

MORE_COPIES = 3
"""Rows of the table: the fewest copies that suffice, and a few more."""

MOST_COPIES = 100_000


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Say how many simulators and copies of the policy play so many episodes in a wanted time, from a measured run.

    docs/scale.md describes the model. Exit codes: 0 done, 2 something to put right in the command.
    """

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """Folder of a run of the same policy and suite, played on the same kind of machine."""

    episodes: Annotated[PositiveInt, arg(metavar="N")]
    """Episodes that are to be played."""

    hours: Annotated[PositiveDuration, arg(metavar="H")] = 1.0
    """Time for them, without the minutes that the first simulators and the policy take to start."""

    max_batch: Annotated[PositiveInt | None, arg(metavar="N", help_behavior_hint="(default: the policy's own)")] = None
    """Most questions that a copy of the policy answers at once."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; ``arguments`` without the program's name. Returns the exit code."""
    options = parse_options(Plan, arguments, "vla-harness plan")
    print(plan_text(read_run(options.run), options.episodes, options.hours, options.max_batch))
    return DONE


def measured(run: RecordedRun, max_batch: int | None = None) -> Throughput:
    """Return what ``run`` cost. Raises UserError if it holds no finished episode with decisions, or no batch times."""
    finished = [result for result in run.results if result.outcome != "error" and result.policy_ms]
    batches = _batches(run)
    if not finished or not batches:
        raise UserError(
            f"{run.path} does not say how long the policy took: play a run of a few episodes to its end, and plan"
            " from that."
        )
    max_batch = max_batch or shared_provenance(run).get("policy_spec", {}).get("max_batch")
    if max_batch is None:
        raise UserError(f"{run.path} does not say how many questions the policy answers at once: give --max-batch.")
    first, more = fit_latency(batches)
    decisions_s = fmean(ms / 1000 for result in finished for ms in result.policy_ms)
    waits = [sitting.provenance[BATCH_TIMES]["waits"] for sitting in run.sittings if _times(sitting)]
    with_engine_s = sum(seconds for _, seconds in waits) / sum(count for count, _ in waits)
    return Throughput(
        episode_s=fmean(result.wall_s - sum(result.policy_ms) / 1000 for result in finished),
        decisions=fmean(len(result.policy_ms) for result in finished),
        first_s=first,
        more_s=more,
        max_batch=max_batch,
        way_s=max(0.0, decisions_s - with_engine_s),
    )


def plan_text(run: RecordedRun, episodes: int, hours: float, max_batch: int | None = None) -> str:
    """Return what was measured, the model's word on the run itself, and a table of what ``episodes`` take."""
    model = measured(run, max_batch)
    finished = [result for result in run.results if result.outcome != "error" and result.policy_ms]
    workers = run.sittings[-1].config.get("workers") or 1
    copies = shared_provenance(run).get("ray", {}).get("copies", 1)
    per_worker = len(finished) / sum(result.wall_s for result in finished)
    sizes = _batches(run)
    lines = [
        f"Measured in {run.path}, with {plural(workers, 'worker')} and {_copies(copies)}:",
        f"  an episode  {number(model.episode_s, 1)} s of a simulator, {number(model.decisions, 1)} decisions",
        f"  a decision  {number(1000 * model.first_s, 1)} ms, and {number(1000 * model.more_s, 1)} ms for each more in"
        f" a batch of at most {model.max_batch}; {number(1000 * model.way_s, 1)} ms on the way",
        f"  the model   {number(3600 * model.rate(workers, copies), 1)} episodes an hour; measured"
        f" {number(3600 * workers * per_worker, 1)}, while all workers play",
    ]
    if len(sizes) == 1:
        lines.append(
            f"  All batches had {plural(next(iter(sizes)), 'question')}, so a larger one is taken to cost in"
            " proportion: measure with more workers to plan with fewer copies."
        )
    target = episodes / (3600 * hours)
    fewest = next((n for n in range(1, MOST_COPIES) if model.workers(target, n) is not None), None)
    if fewest is None:
        raise UserError(f"No {MOST_COPIES:,} copies of the policy play so fast: give more --hours or fewer --episodes.")
    lines += [
        "",
        f"{plural(episodes, 'episode')} in {duration(3600 * hours)}, {number(3600 * target, 0)} an hour:",
        "",
        "  copies  workers  mean batch  copies busy  takes",
    ]
    for count in range(fewest, fewest + MORE_COPIES):
        needed = model.workers(target, count)
        assert needed is not None
        rate = model.rate(needed, count)
        batch, busy = model.load(rate, count)
        lines.append(f"  {count:>6}  {needed:>7,}  {batch:>10.1f}  {100 * busy:>9.0f} %  {duration(episodes / rate)}")
    lines += [
        "",
        "A worker takes a core and a copy of the policy a GPU, if it uses one. Starting them comes on top, and at the"
        " end workers run out of episodes.",
    ]
    return "\n".join(lines)


def _batches(run: RecordedRun) -> dict[int, tuple[int, float]]:
    return joined([_times(sitting).get("sizes", {}) for sitting in run.sittings])


def _times(sitting: Sitting) -> Mapping[str, Any]:
    return sitting.provenance.get(BATCH_TIMES, {})


def _copies(count: int) -> str:
    return "one copy of the policy" if count == 1 else f"{count} copies of the policy"
