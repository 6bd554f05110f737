"""A comparison put into tables and plots, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..results.measured import PEAK_MEMORY
from ..results.provenance_text import clipped
from ..results.report_content import EXACT_NOTE, WILSON_NOTE, is_provisional, task_label
from ..results.wording import ABSENT, best_interval, duration, interval, number, percent, plural, value_text
from ..statistics import BOSCHLOO_TRIALS
from .comparison import Comparison, SuiteKey, marked, shared_marks
from .contrasts import Contrast
from .document import Cell, Document, Plot, Table
from .published_tables import published_table, verdict_table
from .runs import ComparedRun
from .words import p_value, signed_interval, signed_points, title_of


def document(comparison: Comparison) -> Document:
    """Return the comparison's tables: success, differences, tasks of each suite, efficiency, published rows."""
    marks = Marks(comparison)
    tables = [_success(comparison, marks)]
    tables += [_differences(comparison, scope) for scope, found in comparison.contrasts.items() if found]
    tables += [_tasks(comparison, suite, marks) for suite in comparison.suites]
    tables += [_efficiency(comparison), _runs(comparison)]
    if comparison.published:
        tables.append(published_table(comparison))
        tables.append(verdict_table(comparison))
    plots = [_plot(comparison, suite, marks) for suite in comparison.suites]
    names = ", ".join(dict.fromkeys(title_of(comparison, suite) for suite in comparison.suites))
    return Document(f"Comparison on {names}", shared_marks(comparison), tables, plots)


class Marks:
    """Numbers the marks of single runs, so that cells can point at them."""

    def __init__(self, comparison: Comparison) -> None:
        self._of = marked(comparison)
        texts = dict.fromkeys(text for run in comparison.runs for text in self._of.get(id(run), ()))
        self._number = {text: number for number, text in enumerate(texts, 1)}

    def of(self, run: ComparedRun) -> str:
        """Return " [1, 3]", or nothing."""
        numbers = [str(self._number[text]) for text in self._of.get(id(run), ())]
        return f" [{', '.join(numbers)}]" if numbers else ""

    def notes(self, runs: Iterable[ComparedRun]) -> list[str]:
        """Return the marks of ``runs``, each with its number."""
        used = {text for run in runs for text in self._of.get(id(run), ())}
        return [f"[{number}] {text}" for text, number in self._number.items() if text in used]


def _success(comparison: Comparison, marks: Marks) -> Table:
    suites, scope = comparison.suites, None if len(comparison.suites) > 1 else comparison.suites[0]
    head = ["policy"]
    for suite in suites:
        head += [title_of(comparison, suite), "95 %"]
    if comparison.average:
        head += [f"mean of {len(suites)}", "95 %"]
    lettered = comparison.letters.get(scope, {})
    if lettered:
        head.append("letters")
    best = {suite: _best(own.get(suite) for own in comparison.policies.values()) for suite in suites}
    rivals = _rivals(comparison.policies)
    averages = [comparison.average[name][0] for name in rivals if name in comparison.average]
    best_average = max((rate for rate in averages if rate), default=None)
    rows = []
    for name, own in comparison.policies.items():
        row = [Cell(name, order=name)]
        for suite in suites:
            run = own.get(suite)
            row += [Cell(ABSENT), Cell(ABSENT)] if run is None else _counted(run, run.summary, best[suite], marks)
        if comparison.average:
            rate, ends = comparison.average.get(name, (None, None))
            bold = rate is not None and rate == best_average and name in rivals and len(comparison.policies) > 1
            row += [Cell(percent(rate), bold, rate), Cell(interval(ends))]
        if lettered:
            row.append(Cell(lettered.get(name, ABSENT), order=lettered.get(name)))
        rows.append(row)
    summaries = [run.summary for run in comparison.runs]
    notes = [EXACT_NOTE if any(summary["exact95"] for summary in summaries) else WILSON_NOTE]
    notes.append("They speak of these tasks and these initial states.")
    if any(cell.bold for row in rows for cell in row):
        which = (
            " of the policies that do not read the simulator's state" if len(rivals) < len(comparison.policies) else ""
        )
        notes.append(f"Bold: the highest rate{which}.")
    if comparison.average:
        notes.append("The mean weighs every suite the same; its interval is stratified by suite.")
    if lettered:
        notes.append("Policies that share no letter differ at 5 % (exact tests with Holm's correction).")
    return Table("Success", head, rows, [" ".join(notes), *marks.notes(comparison.runs)])


def _counted(run: ComparedRun, counted: Mapping[str, Any], best: float | None, marks: Marks | None) -> list[Cell]:
    """Return "97/100 = 97.0 %" and its interval."""
    rate = counted["success_rate"]
    text = f"{counted['successes']}/{counted['trials']} = {percent(rate)}" if counted["trials"] else ABSENT
    if marks is not None:
        text += (" (provisional)" if is_provisional(run.summary) else "") + marks.of(run)
    bold = best is not None and rate == best and not run.privileged
    return [Cell(text, bold, rate), Cell(best_interval(counted), order=counted["wilson95"][0])]


def _rivals(policies: Mapping[str, Mapping[SuiteKey, ComparedRun]]) -> set[str]:
    """Return the policies that may be the best one: those that do not read the simulator's state."""
    return {name for name, own in policies.items() if not any(run.privileged for run in own.values())}


def _best(runs: Iterable[ComparedRun | None], task: int | None = None) -> float | None:
    """Return the highest rate above 0 of the runs that may be best, if there is more than one run."""
    there = [run for run in runs if run is not None]
    rates = [_of_task(run, task)["success_rate"] for run in there if not run.privileged]
    return max((rate for rate in rates if rate), default=None) if len(there) > 1 else None


_NONE = {"successes": 0, "trials": 0, "success_rate": None, "wilson95": [0.0, 1.0], "exact95": None}


def _of_task(run: ComparedRun, task_id: int | None) -> Mapping[str, Any]:
    if task_id is None:
        return run.summary
    return next((task for task in run.summary["tasks"] if task["task_id"] == task_id), _NONE)


def _differences(comparison: Comparison, scope: SuiteKey | None) -> Table:
    found = comparison.contrasts[scope]
    where = "all suites together" if scope is None else title_of(comparison, scope)
    rows = [_difference(contrast) for contrast in found]
    notes = []
    if any(contrast.counts for contrast in found):
        notes.append(
            "Paired on task and initial state; difference in percentage points with Newcombe's paired 95 % interval; p:"
            " McNemar's exact test; mid-P: the same test, with half the probability of what was seen; P(A > B): that A"
            " wins most discordant pairs, under a Beta(1, 1) prior."
        )
    if unpaired := sorted({contrast.test for contrast in found if contrast.counts is None}):
        tests = " or ".join(f"{test}'s" for test in unpaired)
        notes.append(
            "Unpaired, because the initial states were not the same: Newcombe's interval for independent rates, p:"
            f" {tests} exact test; P(A > B): of two rates, each under a Beta(1, 1) prior."
        )
    if "Fisher" in unpaired:
        notes.append(f"Fisher's is for more than {BOSCHLOO_TRIALS} episodes a side, where Boschloo's takes too long.")
    if len(found) > 1:
        notes.append(f"Holm p: the exact p, corrected for the {len(found)} comparisons of this table.")
    head = ("A", "B", "episodes", "only A", "only B", "A - B", "95 %", "p", "mid-P", "Holm p", "P(A > B)")
    return Table(f"Differences on {where}", head, rows, [" ".join(notes)], left=(0, 1))


def _difference(contrast: Contrast) -> list[Cell]:
    counts = contrast.counts
    if counts is None:
        paired = [Cell("{} and {}, unpaired".format(*contrast.episodes)), Cell(ABSENT), Cell(ABSENT)]
    else:
        paired = [
            Cell(plural(counts.pairs, "pair"), order=counts.pairs),
            Cell(str(counts.first_only), order=counts.first_only),
            Cell(str(counts.second_only), order=counts.second_only),
        ]
    return [
        Cell(contrast.first, order=contrast.first),
        Cell(contrast.second, order=contrast.second),
        *paired,
        Cell(signed_points(contrast.difference), order=contrast.difference),
        Cell(signed_interval(contrast.interval), order=contrast.interval[0]),
        Cell(p_value(contrast.p), order=contrast.p),
        Cell(p_value(contrast.mid_p), order=contrast.mid_p),
        Cell(p_value(contrast.adjusted_p), order=contrast.adjusted_p),
        Cell(f"{contrast.probability:.3f}", order=contrast.probability),
    ]


def _tasks(comparison: Comparison, suite: SuiteKey, marks: Marks) -> Table:
    runs = {name: own[suite] for name, own in comparison.policies.items() if suite in own}
    labels: dict[int, str] = {}
    for run in runs.values():
        for task in run.summary["tasks"]:
            if task["task_id"] not in labels or not labels[task["task_id"]]:
                labels[task["task_id"]] = task_label(task)
    head = ["task", "instruction"]
    for name, run in runs.items():
        head += [name + marks.of(run), "95 %"]
    rows = []
    for task_id, label in sorted(labels.items()):
        best = _best(runs.values(), task_id)
        row = [Cell(str(task_id), order=task_id), Cell(label, order=label)]
        for run in runs.values():
            row += _counted(run, _of_task(run, task_id), best, None)
        rows.append(row)
    pooled, mean, lettered = [], [], comparison.letters.get(suite, {})
    for run in runs.values():
        pooled += _counted(run, run.summary, _best(runs.values()), None)
        mean += [Cell(percent(run.summary["task_mean_rate"])), Cell(interval(run.summary["stratified95"]))]
    foot = [[Cell(""), Cell("pooled"), *pooled], [Cell(""), Cell("task mean"), *mean]]
    if lettered:
        spread = [cell for name in runs for cell in (Cell(lettered.get(name, ABSENT)), Cell(""))]
        foot.append([Cell(""), Cell("letters"), *spread])
    note = "Task mean: every task weighs the same, with an interval that is stratified by task."
    return Table(f"Tasks of {title_of(comparison, suite)}", head, rows, [note, *marks.notes(runs.values())], foot, (1,))


def _efficiency(comparison: Comparison) -> Table:
    rows = []
    for run in comparison.runs:
        summary = run.summary
        latency = summary["policy_latency_ms"]
        policy_s = sum(sum(result.policy_ms) for result in run.recorded.results) / 1000
        hz = summary["env_steps"] / policy_s if policy_s else None
        rows.append(
            [
                Cell(run.name, order=run.name),
                Cell(title_of(comparison, run.suite), order=run.suite[1]),
                _figure(summary["mean_steps_on_success"]),
                *(_figure(latency[quantile]) for quantile in ("p50", "p95", "p99")),
                _figure(hz),
                _figure(summary["env_steps_per_second"]),
                Cell(duration(summary["wall_s"]), order=summary["wall_s"]),
                *(_figure(summary[PEAK_MEMORY].get(kind), 0) for kind in ("main", "largest_worker", "gpu")),
                Cell(_device(summary["provenance"])),
            ]
        )
    head = (
        "policy",
        "suite",
        "steps on success",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "control Hz",
        "env steps/s",
        "wall time",
        "MB",
        "worker MB",
        "GPU MB",
    )
    note = (
        "Latency of one decision, waiting in the batch included. Control Hz: actions executed for each second of"
        " decisions. MB: peak memory of the process with the policy, of the largest simulator, of the tensors on"
        " the GPU. Times are comparable only between runs on one machine with the same workers."
    )
    return Table("Efficiency", (*head, "device"), rows, [note], left=(0, 1, 12))


def _runs(comparison: Comparison) -> Table:
    rows = []
    for run in comparison.runs:
        summary, started = run.summary, run.summary["sessions"][:1]
        cells = [
            run.name,
            title_of(comparison, run.suite),
            summary["protocol"],
            value_text(summary["seed"]),
            value_text(summary["checkpoint"]),
            started[0]["started_at"][:10] if started else ABSENT,
            str(run.recorded.path),
        ]
        rows.append([Cell(clipped(text), order=text) for text in cells])
    head = ("policy", "suite", "protocol", "seed", "checkpoint", "started", "folder")
    note = "The report in each folder says how its run was made, by which command and on what."
    return Table("Runs", head, rows, [note], left=(0, 1, 2, 4, 5, 6))


def _figure(value: float | None, digits: int = 1) -> Cell:
    return Cell(number(value, digits), order=value)


def _device(provenance: Mapping[str, Any]) -> str:
    machine = provenance.get("machine", {})
    gpus = machine.get("gpus") or []
    place = provenance.get("device") or "cpu"
    return f"{place}: {gpus[0]}" if gpus and place != "cpu" else str(machine.get("cpu") or place)


def _plot(comparison: Comparison, suite: SuiteKey, marks: Marks) -> Plot:
    bars: list[tuple[str, float | None, tuple[float, float] | None, str]] = []
    runs: Sequence[tuple[str, ComparedRun]] = [
        (name, own[suite]) for name, own in comparison.policies.items() if suite in own
    ]
    for name, run in runs:
        low, high = run.summary["exact95"] or run.summary["wilson95"]
        text = f"{percent(run.summary['success_rate'])} {best_interval(run.summary)}"
        bars.append((name + marks.of(run), run.summary["success_rate"], (low, high), text))
    return Plot(title_of(comparison, suite), bars)
