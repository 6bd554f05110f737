"""The table that a command prints at its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .printing import printable
from .results.report_content import headline, interval_note, task_label, title
from .results.wording import best_interval, number, percent


def success_table(summary: Mapping[str, Any]) -> str:
    """Return title and headline, a line per task, the pooled line and the marks of a run; see ``summarize``."""
    rows = [("", "task", "k/n", "rate", "95 %", "errors", "steps")]
    for task_id, label, counted in [
        *((str(task["task_id"]), task_label(task), task) for task in summary["tasks"]),
        ("", "pooled", summary),
    ]:
        rows.append(
            (
                task_id,
                printable(label),
                f"{counted['successes']}/{counted['trials']}",
                percent(counted["success_rate"]),
                best_interval(counted),
                str(counted["errors"]),
                number(counted["mean_steps_on_success"]),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 1 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    lines.insert(-1, "-" * len(lines[0]))
    lines += [interval_note(summary), *(f"Note: {printable(mark['text'])}" for mark in summary["marks"])]
    return "\n".join([f"{printable(title(summary))}: {headline(summary)}", "", *lines])
