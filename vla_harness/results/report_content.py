"""The content that the Markdown and the HTML report share: headline, figures, cards, notes, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..protocols import chunk_text
from .provenance_text import frames_text, image_path_text
from .wording import ABSENT, best_interval, duration, interval, number, percent, value_text

WILSON_NOTE = "Intervals are Wilson's, 95 %."
EXACT_NOTE = "Intervals are Wilson's, 95 %; † exact (Clopper-Pearson), where the successes are none or all."
STRATIFIED_NOTE = (
    "Pooled: every episode weighs the same. Task mean: every task weighs the same, with an interval that is stratified "
    "by task."
)


def title(summary: Mapping[str, Any]) -> str:
    """Return "LIBERO-Spatial: scripted", with the mark of stand-in assets."""
    return f"{summary['suite_title']}: {summary['policy']}"


def is_provisional(summary: Mapping[str, Any]) -> bool:
    """Return whether the headline must be marked: errors or unplayed episodes remain."""
    return summary["errors"] > 0 or not summary["complete"]


def headline(summary: Mapping[str, Any]) -> str:
    """Return "97/100 = 97.0 % [91.5, 99.0]", marked when provisional."""
    text = f"{summary['successes']}/{summary['trials']} = {percent(summary['success_rate'])} {best_interval(summary)}"
    return f"{text} (provisional)" if is_provisional(summary) else text


def task_label(task: Mapping[str, Any]) -> str:
    """Return the task in words, or its name, or its number if it was not played."""
    return task["instruction"] or task["name"] or f"task {task['task_id']}"


def interval_note(summary: Mapping[str, Any]) -> str:
    """Return the sentence on the intervals of the table."""
    return EXACT_NOTE if any(counted["exact95"] for counted in (*summary["tasks"], summary)) else WILSON_NOTE


def task_mean(summary: Mapping[str, Any]) -> tuple[str, str]:
    """Return the mean of the tasks' rates and its stratified interval."""
    return percent(summary["task_mean_rate"]), interval(summary["stratified95"])


def figures(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the run's figures beside success, as (name, value with unit)."""
    latency = summary["policy_latency_ms"]
    quantiles = " / ".join(number(latency[name]) for name in ("p50", "p95", "p99"))
    workers = number(summary["env_steps_per_second_per_worker"])
    return [
        ("Mean steps on success", number(summary["mean_steps_on_success"])),
        ("Environment steps per second", f"{number(summary['env_steps_per_second'])} ({workers} per worker)"),
        ("Policy latency p50 / p95 / p99", f"{quantiles} ms" if latency["p50"] is not None else ABSENT),
        ("Wall time", duration(summary["wall_s"]) + _sittings(summary["sittings"])),
        ("Environment steps", f"{summary['env_steps']:,}"),
        ("Policy decisions", f"{summary['decisions']:,}"),
        ("Frames rendered", f"{summary['frames']:,}"),
        ("Rendering's share of simulation", percent(summary["render_share"])),
    ]


def protocol_rows(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the protocol as it was played, as (field, value)."""
    card, spec = summary["protocol_card"], summary["provenance"].get("policy_spec", {})
    steps = card.get("max_steps", {})
    return [
        ("protocol", summary["protocol"]),
        ("source", value_text(card.get("source"))),
        ("episodes planned", f"{summary['planned']:,}"),
        ("run seed", value_text(summary["seed"])),
        (
            "environment seed",
            "the episode's number"
            if card.get("environment_seed", 0) is None
            else value_text(card.get("environment_seed")),
        ),
        ("max steps", value_text(steps.get(summary["suite"]) if isinstance(steps, Mapping) else steps)),
        ("settle steps", value_text(card.get("settle_steps"))),
        ("settle action", value_text(card.get("settle_action"))),
        ("actions per inference", chunk_text(spec.get("horizon") or 1, card.get("actions_per_inference"))),
        ("frames", frames_text(summary)),
        ("image path", image_path_text(summary)),
        ("departures", "; ".join(summary["protocol_differences"]) or "none"),
    ]


def _sittings(count: int) -> str:
    return f" in {count} sittings" if count > 1 else ""
