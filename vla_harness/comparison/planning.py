"""What ``--target-halfwidth`` and ``--sequential`` print."""

from __future__ import annotations

from collections.abc import Sequence
from math import isinf

from ..errors import UserError
from ..results.wording import percent, plural
from ..statistics import SequentialTest, trials_for_half_width
from .contrasts import pooled_pairs
from .protocol_check import same_starting_states
from .runs import ComparedRun, by_policy

RATES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
TASKS = 10


def plan_text(half_width: float, runs: Sequence[ComparedRun] = ()) -> str:
    """Return the episodes that a 95 % interval of that half width (in (0, 0.5)) takes, at usual rates and the runs'.

    Raises UserError for another half width.
    """
    if not 0 < half_width < 0.5:
        raise UserError(f"--target-halfwidth is {half_width:g}: give a number between 0 and 0.5, such as 0.03.")
    lines = [
        f"Episodes for a 95 % interval (Wilson) that reaches at most {100 * half_width:g} points to each side:",
        "",
    ]
    rates = [("" if rate != 0.5 else "any rate at all", rate) for rate in RATES]
    rates += [(f"{run.name} on {run.summary['suite_title']}", run.summary["success_rate"]) for run in runs]
    for label, rate in rates:
        trials = trials_for_half_width(half_width, rate)
        per_task = f"{-(-trials // TASKS):>5,} for each of {TASKS} tasks"
        lines.append(f"  at {percent(rate):>7}: {trials:>6,} episodes, {per_task}  {label}".rstrip())
    lines += ["", "Choose the number before the run: a run that is made longer until it looks good proves nothing."]
    return "\n".join(lines)


def sequential_text(runs: Sequence[ComparedRun], alpha: float = 0.05) -> str:
    """Return what the sequential test says of two policies' runs, which may still be growing.

    Raises UserError unless there are two policies with the same suites, whose episodes are pairs.
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
    planned = sum(_planned_pairs(a, b) for a, b in shared)
    counts = pooled_pairs(shared)
    wins, losses, pairs = counts.first_only, counts.second_only, counts.pairs
    test = SequentialTest(planned, alpha)
    if isinf(test.critical_evidence):
        raise UserError(
            f"{plural(planned, 'pair')} cannot tell two policies apart at {percent(alpha)}: plan more trials."
        )
    verdict = test.verdict(wins, losses, pairs)
    said = {
        "first": f"{first} is better. Both evaluations may stop here.",
        "second": f"{second} is better. Both evaluations may stop here.",
        "go on": "Not decided: go on.",
        "undecided": "All planned pairs are played, and the policies were not told apart.",
    }[verdict]
    played = sum(len(_tasks_with_pairs(a, b)) for a, b in shared)
    tasks = sum(len(set(a.recorded.config["tasks"]) & set(b.recorded.config["tasks"])) for a, b in shared)
    lines = [
        said,
        "",
        f"  pairs played      {pairs:,} of {planned:,}, from {played} of {plural(tasks, 'task')}",
        f"  only {first} succeeds: {wins:,}; only {second}: {losses:,}",
        f"  evidence          {test.evidence(wins, losses):.3g}, and {test.critical_evidence:.3g} decides",
        f"  error rate        {percent(test.false_positive_rate)} at most, over all looks together"
        f" (fixed before: {percent(alpha)})",
    ]
    if played < tasks:
        lines.append("  So far it speaks only of the tasks that both have played.")
    lines += [
        "",
        "Look as often as you like, but do not make the runs longer than they were planned, and do not read McNemar's p"
        " of runs that were stopped by this test: it holds only for a number of episodes that was fixed.",
    ]
    return "\n".join(lines)


def _planned_pairs(first: ComparedRun, second: ComparedRun) -> int:
    one, other = first.recorded.config, second.recorded.config
    return len(set(one["tasks"]) & set(other["tasks"])) * min(one["trials"], other["trials"])


def _tasks_with_pairs(first: ComparedRun, second: ComparedRun) -> set[int]:
    one, other = (
        {(r.key.task_id, r.key.initial_state) for r in run.recorded.results if r.outcome != "error"}
        for run in (first, second)
    )
    return {task for task, _ in one & other}
