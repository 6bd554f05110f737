"""Writing what a reader opens: ``summary.json``, ``report.md`` and ``report.html``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .files import write_text
from .report_html import render_html
from .report_markdown import render_markdown
from .run_folder import RunFolder, read_run
from .summary import summarize

SUMMARY = "summary.json"


def write_reports(run: RunFolder | str | Path) -> dict[str, Any]:
    """Write the three files into the run's folder, replacing earlier ones, and return the summary.

    run: the folder being written, or the path of one. Raises UserError if it is no run, is damaged, or cannot be
    written.
    """
    recorded = run.recorded() if isinstance(run, RunFolder) else read_run(run)
    summary = summarize(recorded)
    text = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(recorded.path / SUMMARY, text + "\n")
    write_text(recorded.path / "report.md", render_markdown(summary, recorded.results))
    write_text(recorded.path / "report.html", render_html(summary, recorded.results))
    return summary
