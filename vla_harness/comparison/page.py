"""A comparison as one self-contained HTML page: sortable tables, plots with intervals, nothing from the network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from ..results import bars
from .document import Cell, Document, Plot, Table

_HERE = Path(__file__).parent
_STYLES = (Path(bars.__file__).with_name("report.css"), _HERE / "page.css")


def html_page(page: Document) -> str:
    """Return the page. Everything that comes from outside (names, instructions, paths) is escaped."""
    style = "".join(file.read_text(encoding="utf-8") for file in _STYLES)
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    notes = "".join(f"<li>{escape(note)}</li>" for note in page.notes)
    success, *others = map(_table, page.tables)
    parts = [
        f"<header>\n<h1>{escape(page.title)}</h1>\n</header>",
        f'<ul class="marks">{notes}</ul>' if notes else "",
        success,
        f'<div class="plots">{"".join(map(_plot, page.plots))}</div>',
        *others,
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(page.title)}</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{''.join(part + chr(10) for part in parts if part)}</main>\n<script>\n{script}</script>\n"
        "</body>\n</html>\n"
    )


def _table(table: Table) -> str:
    head = "".join(
        f'<th scope="col"{_left(table, column)}><button type="button">{escape(name)}</button></th>'
        for column, name in enumerate(table.head)
    )
    body = "".join(f"<tr>{_row(table, row)}</tr>\n" for row in table.rows)
    foot = "".join(f"<tr>{_row(table, row)}</tr>\n" for row in table.foot)
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in table.notes)
    return (
        f'<section>\n<h2>{escape(table.title)}</h2>\n<div class="scroll"><table class="sortable">\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n"
        + (f"<tfoot>\n{foot}</tfoot>\n" if foot else "")
        + f"</table></div>\n{notes}\n</section>"
    )


def _row(table: Table, row: Sequence[Cell]) -> str:
    return "".join(_cell(cell, _left(table, column)) for column, cell in enumerate(row))


def _cell(cell: Cell, left: str) -> str:
    order = "" if cell.order is None else f' data-order="{escape(str(cell.order))}"'
    text = f"<b>{escape(cell.text)}</b>" if cell.bold else escape(cell.text)
    return f"<td{left}{order}>{text}</td>"


def _left(table: Table, column: int) -> str:
    return ' class="left"' if column in table.left else ""


def _plot(plot: Plot) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(label)}</th><td class="bar">{bars.rate_bar(rate, ends)}</td>'
        f"<td>{escape(text)}</td></tr>\n"
        for label, rate, ends, text in plot.bars
    )
    return (
        f'<section>\n<h2>Success on {escape(plot.title)}, with 95 % intervals</h2>\n<div class="scroll">'
        f'<table class="plot">\n<thead><tr><th></th><th class="bar">{bars.rate_axis()}</th><th></th></tr></thead>\n'
        f"<tbody>\n{rows}</tbody>\n</table></div>\n</section>"
    )
