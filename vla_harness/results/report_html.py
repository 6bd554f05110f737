"""``report.html``: a run as one self-contained page, without scripts and without the network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..types import EpisodeResult
from .bars import rate_axis, rate_bar
from .provenance_text import provenance_rows, run_rows
from .report_content import (
    STRATIFIED_NOTE,
    figures,
    interval_note,
    is_provisional,
    protocol_rows,
    task_label,
    task_mean,
    title,
)
from .wording import best_interval, number, percent, plural

_STYLE = Path(__file__).with_name("report.css")
_SIGNS = {"success": "", "failure": "×", "error": "!"}


def render_html(summary: Mapping[str, Any], results: Sequence[EpisodeResult]) -> str:
    """Return the page; ``summary`` as ``summarize`` makes it, ``results`` for the map of episodes and the errors.

    Everything that comes from outside (names, instructions, errors, paths) is escaped.
    """
    parts = [_header(summary), _marks(summary), _task_section(summary)]
    parts += [_episode_section(summary, results), _error_section(results), _figures(summary)]
    parts.append('<div class="cards">')
    parts.append(f"<div>{_card('Run', run_rows(summary))}{_card('Protocol', protocol_rows(summary))}</div>")
    parts.append(_card("Provenance", provenance_rows(summary)))
    parts.append("</div>")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title(summary))}</title>\n<style>\n{_STYLE.read_text(encoding='utf-8')}</style>\n</head>\n"
        f"<body>\n<main>\n{''.join(part + chr(10) for part in parts if part)}</main>\n</body>\n</html>\n"
    )


def _header(summary: Mapping[str, Any]) -> str:
    provisional = '<span class="tag warn">provisional</span>' if is_provisional(summary) else ""
    run_by = [f"policy <b>{escape(summary['policy'])}</b>"]
    if summary["checkpoint"]:
        run_by.append(f"checkpoint <b>{escape(str(summary['checkpoint']))}</b>")
    run_by.append(f"protocol <b>{escape(summary['protocol'])}</b>")
    if summary["sessions"]:
        run_by.append(f"{escape(summary['sessions'][0]['started_at'][:10])}")
    counted = f"{summary['successes']}/{summary['trials']} episodes"
    return (
        f'<header>\n<h1>{escape(summary["suite_title"])}</h1>\n<p class="by">{" · ".join(run_by)}</p>\n'
        f'<p class="rate"><span class="big">{percent(summary["success_rate"])}</span>'
        f'<span class="of">{counted}<br>95 % {best_interval(summary)}</span>{provisional}</p>\n'
        f'<p class="note">{escape(summary["estimand"])}</p>\n</header>'
    )


def _marks(summary: Mapping[str, Any]) -> str:
    items = "".join(f'<li class="{escape(mark["kind"])}">{escape(mark["text"])}</li>' for mark in summary["marks"])
    return f'<ul class="marks">{items}</ul>' if items else ""


def _task_section(summary: Mapping[str, Any]) -> str:
    rows = [_task_row(str(task["task_id"]), task_label(task), task) for task in summary["tasks"]]
    mean, interval = task_mean(summary)
    mean_bar = rate_bar(summary["task_mean_rate"], summary["stratified95"])
    foot = _task_row("", "pooled", summary) + (
        f'<tr><td></td><th scope="row">task mean</th><td class="bar">{mean_bar}</td><td></td><td>{mean}</td>'
        f"<td>{interval}</td><td></td><td></td></tr>\n"
    )
    return (
        '<section>\n<h2>Success per task</h2>\n<div class="scroll"><table class="tasks">\n<thead><tr><th></th>'
        f'<th scope="col" class="left">task</th><th scope="col" class="bar">{rate_axis()}</th>'
        '<th scope="col">k/n</th><th scope="col">rate</th><th scope="col">95 %</th><th scope="col">errors</th>'
        '<th scope="col">mean steps</th></tr></thead>\n'
        f"<tbody>\n{''.join(rows)}</tbody>\n<tfoot>\n{foot}</tfoot>\n</table></div>\n"
        f'<p class="note">{escape(interval_note(summary))} {escape(STRATIFIED_NOTE)} '
        "Mean steps are those of the successful episodes.</p>\n</section>"
    )


def _task_row(number_text: str, label: str, counted: Mapping[str, Any]) -> str:
    bar = rate_bar(counted["success_rate"], counted["exact95"] or counted["wilson95"])
    errors = f'<b class="warn">{counted["errors"]}</b>' if counted["errors"] else "0"
    return (
        f'<tr><td class="id">{number_text}</td><th scope="row">{escape(label)}</th><td class="bar">{bar}</td>'
        f"<td>{counted['successes']}/{counted['trials']}</td><td>{percent(counted['success_rate'])}</td>"
        f"<td>{best_interval(counted)}</td><td>{errors}</td><td>{number(counted['mean_steps_on_success'])}</td></tr>\n"
    )


def _episode_section(summary: Mapping[str, Any], results: Sequence[EpisodeResult]) -> str:
    if not results:
        return ""
    rows = []
    for task in summary["tasks"]:
        cells = [_cell(result) for result in results if result.key.task_id == task["task_id"]]
        rows.append(
            f'<div class="id">{task["task_id"]}</div><div class="cells">{"".join(cells) or "not played yet"}</div>'
        )
    videos = " An underlined cell opens the episode's video." if any(result.video for result in results) else ""
    legend = (
        '<span class="cell success"></span> success <span class="cell failure">×</span> failure '
        '<span class="cell error">!</span> error'
    )
    return (
        f'<section>\n<h2>Episodes</h2>\n<div class="episodes">{"".join(rows)}</div>\n'
        f'<p class="note legend">{legend}. One row per task, one cell per initial state.{videos}</p>\n</section>'
    )


def _cell(result: EpisodeResult) -> str:
    what = result.error if result.outcome == "error" else f"{result.outcome} in {plural(result.steps, 'step')}"
    attributes = f'class="cell {result.outcome}" title="{escape(f"initial state {result.key.initial_state}: {what}")}"'
    sign = _SIGNS[result.outcome]
    if result.video:
        return f'<a href="{escape(quote(result.video))}" {attributes}>{sign}</a>'
    return f"<span {attributes}>{sign}</span>"


def _error_section(results: Iterable[EpisodeResult]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(str(result.key))}</th><td>{escape(result.error)}</td></tr>\n'
        for result in results
        if result.outcome == "error"
    )
    return f'<section>\n<h2>Errors</h2>\n<table class="pairs">{rows}</table>\n</section>' if rows else ""


def _figures(summary: Mapping[str, Any]) -> str:
    tiles = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in figures(summary))
    return f'<section>\n<h2>Figures</h2>\n<dl class="tiles">{tiles}</dl>\n</section>'


def _card(heading: str, rows: Iterable[tuple[str, str]]) -> str:
    body = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>\n' for name, value in rows)
    return f'<section>\n<h2>{heading}</h2>\n<table class="pairs">{body}</table>\n</section>'
