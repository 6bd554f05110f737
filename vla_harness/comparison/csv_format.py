"""A comparison as one tidy CSV file: a line for each number of interest, full precision, for other programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..results.csv_text import csv_text
from ..results.measured import PEAK_MEMORY
from .comparison import Comparison, SuiteKey, caveats
from .published import Verdict, verdict
from .runs import ComparedRun

COLUMNS = (
    "kind", "benchmark", "suite", "task_id", "task", "policy", "against", "successes", "trials", "errors", "value",
    "low", "high", "interval", "pairs", "only_policy", "only_against", "p", "p_mid", "p_holm", "probability_better",
    "letters", "mean_steps_on_success", "latency_p50_ms", "latency_p95_ms", "latency_p99_ms", "env_steps_per_second",
    "wall_s", "peak_mb", "peak_worker_mb", "peak_gpu_mb", "run", "source", "note",
)  # fmt: skip
"""kind: task, suite, mean, difference (policy minus against), published, or verdict (run minus published). value, low
and high are rates or differences of rates, in [-1, 1]; interval and p name their method in ``interval``. p_mid: the
mid-P of McNemar's test, for pairs."""


def to_csv(comparison: Comparison) -> str:
    """Return the file's text."""
    return csv_text(COLUMNS, _lines(comparison))


def _lines(comparison: Comparison) -> Iterator[dict[str, Any]]:
    for run in comparison.runs:
        note = _note(comparison, [run])
        where = {**_suite(run.suite), "policy": run.name, "run": str(run.recorded.path)}
        for task in run.summary["tasks"]:
            task_named = {"task_id": task["task_id"], "task": task["instruction"] or task["name"]}
            yield {"kind": "task", **where, **task_named, **_counted(task), "note": note}
        latency, peaks = run.summary["policy_latency_ms"], run.summary[PEAK_MEMORY]
        yield {
            "kind": "suite",
            **where,
            **_counted(run.summary),
            **{f"latency_{name}_ms": latency[name] for name in ("p50", "p95", "p99")},
            "letters": comparison.letters.get(run.suite, {}).get(run.name),
            "env_steps_per_second": run.summary["env_steps_per_second"],
            "wall_s": run.summary["wall_s"],
            "peak_mb": peaks.get("main"),
            "peak_worker_mb": peaks.get("largest_worker"),
            "peak_gpu_mb": peaks.get("gpu"),
            "note": note,
        }
    for name, (rate, (low, high)) in comparison.average.items():
        letters = comparison.letters.get(None, {}).get(name)
        ends = {"value": rate, "low": low, "high": high, "interval": "stratified 95 %"}
        note = _note(comparison, comparison.policies[name].values())
        yield {"kind": "mean", "suite": "all", "policy": name, **ends, "letters": letters, "note": note}
    yield from _differences(comparison)
    yield from _published(comparison)


def _differences(comparison: Comparison) -> Iterator[dict[str, Any]]:
    for scope, found in comparison.contrasts.items():
        for contrast in found:
            counts = contrast.counts
            both = [comparison.policies[name] for name in (contrast.first, contrast.second)]
            rested = [run for own in both for suite, run in own.items() if scope in (None, suite)]
            method = f"Newcombe {'paired' if counts else 'unpaired'} 95 %; exact {contrast.test}"
            yield {
                "kind": "difference",
                **({"suite": "all"} if scope is None else _suite(scope)),
                "policy": contrast.first,
                "against": contrast.second,
                "value": contrast.difference,
                "low": contrast.interval[0],
                "high": contrast.interval[1],
                "interval": method,
                "pairs": counts.pairs if counts else None,
                "only_policy": counts.first_only if counts else None,
                "only_against": counts.second_only if counts else None,
                "p": contrast.p,
                "p_mid": contrast.mid_p,
                "p_holm": contrast.adjusted_p,
                "probability_better": contrast.probability,
                "note": _note(comparison, rested),
            }


def _published(comparison: Comparison) -> Iterator[dict[str, Any]]:
    for row in comparison.published:
        for suite, (k, n) in row.counts.items():
            if any(suite == name for _, name in comparison.suites):
                counted = {"successes": k, "trials": n, "value": k / n}
                said = {"source": row.source, "note": f"{row.protocol} {row.conditions}".strip()}
                yield {"kind": "published", "suite": suite, "policy": row.name, **counted, **said}
        for run in comparison.runs:
            found = verdict(run, row)
            where = {"kind": "verdict", **_suite(run.suite), "policy": run.name, "against": row.name}
            if isinstance(found, Verdict):
                low, high = found.interval
                ends = {"value": found.difference, "low": low, "high": high, "interval": "Newcombe unpaired 95 %"}
                yield where | ends | {"note": "inside" if found.inside else "outside", "source": row.source}
            elif found is not None:
                yield where | {"note": f"not comparable: {found}", "source": row.source}


def _note(comparison: Comparison, runs: Iterable[ComparedRun]) -> str:
    """Return what a reader must know of the runs that a number rests on, such as that they played on stand-ins."""
    known = caveats(comparison)
    return " ".join(dict.fromkeys(text for run in runs for text in known.get(id(run), ())))


def _suite(key: SuiteKey) -> dict[str, str]:
    return {"benchmark": key[0], "suite": key[1]}


def _counted(counted: Mapping[str, Any]) -> dict[str, Any]:
    ends = counted["exact95"] or counted["wilson95"]
    return {
        "successes": counted["successes"],
        "trials": counted["trials"],
        "errors": counted["errors"],
        "value": counted["success_rate"],
        "low": ends[0],
        "high": ends[1],
        "interval": "Clopper-Pearson 95 %" if counted["exact95"] else "Wilson 95 %",
        "mean_steps_on_success": counted["mean_steps_on_success"],
    }
