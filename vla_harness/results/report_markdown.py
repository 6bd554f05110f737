"""``report.md``: a run as Markdown tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..printing import printable
from ..types import EpisodeResult
from .provenance_text import provenance_rows, run_rows
from .report_content import (
    STRATIFIED_NOTE,
    figures,
    headline,
    interval_note,
    protocol_rows,
    task_label,
    task_mean,
    title,
)
from .wording import best_interval, number, percent


def render_markdown(summary: Mapping[str, Any], results: Iterable[EpisodeResult]) -> str:
    """Return the report of a run; ``summary`` as ``summarize`` makes it, ``results`` for the list of errors."""
    parts = [f"# {escape_markdown(title(summary))}", f"**{headline(summary)}**"]
    if summary["marks"]:
        parts.append("\n".join(f"- **Note:** {escape_markdown(mark['text'])}" for mark in summary["marks"]))
    parts += [escape_markdown(summary["estimand"]), "## Tasks", _task_table(summary)]
    parts.append(f"{interval_note(summary)} {STRATIFIED_NOTE}")
    parts += ["## Figures", _pairs("figure", figures(summary))]
    if errors := [result for result in results if result.outcome == "error"]:
        rows = [(str(result.key), result.error) for result in errors]
        parts += ["## Errors", _table(("episode", "error"), rows)]
    parts += ["## Run", _pairs("field", run_rows(summary))]
    parts += ["## Protocol", _pairs("field", protocol_rows(summary))]
    parts += ["## Provenance", _pairs("field", provenance_rows(summary))]
    return "\n\n".join(parts) + "\n"


def _task_table(summary: Mapping[str, Any]) -> str:
    rows = [(str(task["task_id"]), task_label(task), *_counted(task)) for task in summary["tasks"]]
    rows.append(("", "pooled", *_counted(summary)))
    mean, interval = task_mean(summary)
    rows.append(("", "task mean", "", mean, interval, "", ""))
    return _table(("task", "instruction", "k/n", "rate", "95 %", "errors", "mean steps on success"), rows, left=(1,))


def _counted(counted: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        f"{counted['successes']}/{counted['trials']}",
        percent(counted["success_rate"]),
        best_interval(counted),
        str(counted["errors"]),
        number(counted["mean_steps_on_success"]),
    )


def _pairs(name: str, rows: Iterable[tuple[str, str]]) -> str:
    return _table((name, "value"), rows, left=(0, 1))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], left: Sequence[int] = (0, 1)) -> str:
    lines = [head, ["---" if column in left else "--:" for column in range(len(head))]]
    lines += [[escape_markdown(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escape_markdown(text: str) -> str:
    """Return ``text`` on one line with its special characters kept from being read as Markdown or HTML."""
    return re.sub(r"([\\`*|<>&]|\](?=[(\[]))", r"\\\1", printable(" ".join(text.split())))
