"""``summary.json``: a run in numbers, as plain data that reports and later comparisons read.

Success, failure and error are three outcomes. ``trials`` counts successes and failures, so an error is never a failure
in disguise; while there are errors, or episodes not played yet, the headline is marked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from ..statistics import clopper_pearson_interval, latency_percentiles, stratified_interval, wilson_interval
from ..types import EpisodeResult
from .database import Sitting
from .marks import is_stand_in, marks, protocol_differences, shared_provenance
from .measured import PEAK_MEMORY
from .run_folder import RecordedRun
from .wording import plural, suite_title


def summarize(run: RecordedRun) -> dict[str, Any]:
    """Return the content of ``summary.json``.

    Rates and intervals lie in [0, 1]; ``wilson95`` is always Wilson's, ``exact95`` (Clopper-Pearson) is there when the
    successes are none or all of the trials, else None. ``stratified95`` belongs to ``task_mean_rate``, the mean of the
    tasks' rates, and both are None while a task has no trial. ``wall_s`` sums all sittings of the run;
    ``env_steps_per_second`` is all steps after the settle phases over it, ``render_share`` the rendering's part of
    simulation and rendering together. ``peak_memory_mb`` holds the largest of the sittings' peaks, of each kind; it is
    empty for a run that was cut short. ``sessions`` are the sittings, first to last.
    """
    config, results = run.config, run.results
    provenance = shared_provenance(run)
    by_task: dict[int, list[EpisodeResult]] = {task: [] for task in config["tasks"]}
    for result in results:
        by_task.setdefault(result.key.task_id, []).append(result)
    tasks = [_task(task, episodes) for task, episodes in by_task.items()]
    planned = len(config["tasks"]) * config["trials"]
    counts = _counts(results)
    per_task = [(task["successes"], task["trials"]) for task in tasks]
    balanced = bool(per_task) and all(trials for _, trials in per_task)
    steps = sum(result.steps for result in results)
    wall = sum(sitting.wall_s for sitting in run.sittings)
    episode_s = sum(result.wall_s for result in results)
    simulated = sum(result.env_s for result in results)
    rendered = sum(result.render_s for result in results)
    summary: dict[str, Any] = {
        "suite": config["suite"],
        "suite_title": suite_title(config["suite"], is_stand_in(run)),
        "policy": config["policy"],
        "checkpoint": config["checkpoint"],
        "protocol": config["protocol"]["name"],
        "protocol_card": dict(config["protocol"]),
        "protocol_differences": protocol_differences(config, provenance),
        "tasks": tasks,
        "planned": planned,
        "complete": counts["trials"] == planned,
        **counts,
        "task_mean_rate": fmean(k / n for k, n in per_task) if balanced else None,
        "stratified95": list(stratified_interval(per_task)) if balanced else None,
        "estimand": _estimand(tasks, config["trials"]),
        "env_steps": steps,
        "env_steps_per_second": steps / wall if wall else None,
        "env_steps_per_second_per_worker": steps / episode_s if episode_s else None,
        "decisions": sum(len(result.policy_ms) for result in results),
        "policy_latency_ms": latency_percentiles(ms for result in results for ms in result.policy_ms),
        "frames": sum(result.frames for result in results),
        "render_share": rendered / (simulated + rendered) if simulated + rendered else None,
        PEAK_MEMORY: _peak_memory(run.sittings),
        "wall_s": wall,
        "sittings": len(run.sittings),
        "sessions": [
            {"started_at": sitting.started_at, "wall_s": sitting.wall_s, "command": sitting.config.get("command", "")}
            for sitting in run.sittings
        ],
        "reads_scene": bool(provenance.get("policy_spec", {}).get("reads_scene", False)),
        "gl_backend": provenance.get("gl_backend"),
        "seed": config["seed"],
        "provenance": provenance,
    }
    return summary | {"marks": marks(run, summary)}


def _peak_memory(sittings: Iterable[Sitting]) -> dict[str, float]:
    peaks: dict[str, float] = {}
    for sitting in sittings:
        for name, megabytes in sitting.provenance.get(PEAK_MEMORY, {}).items():
            peaks[name] = max(megabytes, peaks.get(name, 0.0))
    return peaks


def _task(task_id: int, episodes: Sequence[EpisodeResult]) -> dict[str, Any]:
    first = episodes[0] if episodes else None
    return {
        "task_id": task_id,
        "name": first.task_name if first else "",
        "instruction": first.instruction if first else "",
        **_counts(episodes),
    }


def _counts(episodes: Iterable[EpisodeResult]) -> dict[str, Any]:
    episodes = list(episodes)
    steps_on_success = [result.steps for result in episodes if result.outcome == "success"]
    successes = len(steps_on_success)
    failures = sum(result.outcome == "failure" for result in episodes)
    trials = successes + failures
    exact = clopper_pearson_interval(successes, trials) if trials and successes in (0, trials) else None
    return {
        "successes": successes,
        "failures": failures,
        "trials": trials,
        "errors": len(episodes) - trials,
        "success_rate": successes / trials if trials else None,
        "wilson95": list(wilson_interval(successes, trials)),
        "exact95": list(exact) if exact else None,
        "mean_steps_on_success": fmean(steps_on_success) if steps_on_success else None,
    }


def _estimand(tasks: Sequence[Mapping[str, Any]], trials: int) -> str:
    return (
        f"The rates and intervals speak of {_these(len(tasks), 'task')} and {_these(trials, 'initial state')} of each, "
        "not of other tasks or starting positions."
    )


def _these(count: int, thing: str) -> str:
    return f"{'this' if count == 1 else 'these'} {plural(count, thing)}"
