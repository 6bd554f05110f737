"""What ``--target-halfwidth`` and ``--sequential`` print."""

from __future__ import annotations

from collections.abc import Sequence
from math import isinf

from ..errors import UserError
from ..printing import printable
from ..results.marks import trials_added
from ..results.wording import percent, plural
from ..statistics import SequentialTest, trials_for_half_width
from .contrasts import pooled_pairs
from .protocol_check import departures, require_alike, same_starting_states
from .repeats import repeats
from .runs import ComparedRun, by_policy

RATES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
TASKS = 10
"""Of each of LIBERO's four suites."""


def plan_text(half_width: float, runs: Sequence[ComparedRun] = ()) -> str:
    """Return the episodes that a 95 % interval of that half width (in (0, 0.5)) takes, at usual rates and the runs'.

    The usual rates' are also given for each task of a suite of ten, a run's for each of its own.
    """
    points = f"{100 * half_width:g}"
    lines = [f"Episodes for a 95 % interval (Wilson) of half width {points} points, {200 * half_width:g} in all:", ""]
    rates = [("" if rate != 0.5 else "any rate at all", rate, TASKS) for rate in RATES]
    for run in runs:
        label = f"{run.name} on {run.summary['suite_title']}"
        rates.append((label, run.summary["success_rate"], len(run.summary["tasks"])))
    for label, rate, tasks in rates:
        trials = trials_for_half_width(half_width, rate)
        per_task = f"{-(-trials // tasks):>5,} for each of {plural(tasks, 'task')}"
        lines.append(f"  at {percent(rate):>7}: {trials:>6,} episodes, {per_task}  {label}".rstrip())
    lines = [printable(line) for line in lines]
    lines += [
        "",
        f"Near 0 % and 100 % the interval lies unevenly: it reaches further than {points} points towards 50 %, and less"
        " far the other way.",
        "Choose the number before the run: a run that is made longer until it looks good proves nothing.",
    ]
    return "\n".join(lines)


def sequential_text(runs: Sequence[ComparedRun], force: bool = False, alpha: float = 0.05) -> str:
    """Return what the sequential test says of two policies' runs, which may still be growing.

    Pairs are counted in an order in which no task comes before the others: the first initial state of all tasks, then
    the second, and so on. Runs play tasks one after the other, and a policy that is better on the first one and worse
    on the next would be declared better for good.

    force: compare runs whose episodes are pairs but which were not measured alike in all else, and mark them.
    Raises UserError unless there are two policies with the same suites, whose episodes are pairs, measured alike.
    """
    policies = by_policy(runs)
    if len(policies) != 2:
        raise UserError(
            f"--sequential compares two policies, and these runs are of {len(policies)}: give the runs of two."
        )
    (first, firsts), (second, seconds) = policies.items()
    shared = [(a, b) for a in firsts for b in seconds if a.suite == b.suite]
    if len(shared) != len(firsts) or len(shared) != len(seconds):
        raise UserError(f"--sequential needs {first} and {second} on the same suites: give a run of each on every one.")
    for a, b in shared:
        if not same_starting_states(a, b):
            raise UserError(
                f"{a.recorded.path} and {b.recorded.path} did not start from the same states, so their episodes are no"
                " pairs: --sequential needs runs of one protocol and the same assets."
            )
        if not _shared_tasks(a, b):
            raise UserError(f"{a.recorded.path} and {b.recorded.path} have no task in common: give runs that have.")
    found = departures(runs, runs[0])
    if not force:
        require_alike(found)
    # the number that a run was started with: what was added later cannot have been planned
    trials = min(min([run.recorded.config["trials"], *(n for n, _ in trials_added(run.recorded))]) for run in runs)
    tasks = sum(len(_shared_tasks(a, b)) for a, b in shared)
    states = next((state for state in range(trials) if not all(_both_ended(a, b, state) for a, b in shared)), trials)
    counts, played = pooled_pairs(shared, states), pooled_pairs(shared, trials).pairs
    wins, losses, pairs = counts.first_only, counts.second_only, counts.pairs
    test = SequentialTest(tasks * trials, alpha)
    if isinf(test.critical_evidence):
        raise UserError(
            f"{plural(test.planned, 'pair')} cannot tell two policies apart at {percent(alpha)}: plan more trials."
        )
    said = {
        "first": f"{first} is better. Both evaluations may stop here.",
        "second": f"{second} is better. Both evaluations may stop here.",
        "go on": "Not decided: go on.",
        "undecided": "All planned pairs are played, and the policies were not told apart.",
    }[test.verdict(wins, losses, pairs)]
    lines = [
        said,
        "",
        f"  pairs counted     {pairs:,} of {test.planned:,}: {states:,} of {plural(trials, 'initial state')} of each of"
        f" {plural(tasks, 'task')}",
        f"  only {first} succeeds: {wins:,}; only {second}: {losses:,}",
        f"  evidence          {test.evidence(wins, losses):.3g}, and {test.critical_evidence:.3g} decides",
        f"  error rate        {percent(test.false_positive_rate)} at most, over all looks together"
        f" (fixed before: {percent(alpha)})",
    ]
    if played > pairs:
        lines.append(
            f"  {plural(played - pairs, 'pair')} more {'is' if played - pairs == 1 else 'are'} played. An initial state"
            " counts when both have played it on every task, in order; run with --round 1 to play in that order."
        )
    lines += [f"  Not measured alike: {one.run.name} has {one.text}." for one in found]
    lines += [f"  {repeat.text}" for repeat in repeats(runs)]
    lines = [printable(line) for line in lines]
    lines += [
        "",
        "Look as often as you like, but do not make the runs longer than they were planned, and do not read McNemar's p"
        " of runs that were stopped by this test: it holds only for a number of episodes that was fixed.",
    ]
    return "\n".join(lines)


def _shared_tasks(first: ComparedRun, second: ComparedRun) -> set[int]:
    return set(first.recorded.config["tasks"]) & set(second.recorded.config["tasks"])


def _both_ended(first: ComparedRun, second: ComparedRun, state: int) -> bool:
    """Return whether both have played the initial state on every task, be it to an error."""
    return all(
        _shared_tasks(first, second)
        <= {result.key.task_id for result in run.recorded.results if result.key.initial_state == state}
        for run in (first, second)
    )
