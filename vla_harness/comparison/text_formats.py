"""A comparison as plain text for the terminal, as Markdown and as LaTeX."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..printing import printable
from ..results.report_markdown import escape_markdown
from .document import Cell, Document, Table


def plain_text(page: Document) -> str:
    """Return the tables in columns; the best cells carry a star."""
    parts = [page.title, *(f"Note: {note}" for note in page.notes), *map(_plain_table, page.tables)]
    return "\n\n".join("\n".join(map(printable, part.split("\n"))) for part in parts)


def markdown(page: Document) -> str:
    """Return the page as GitHub-flavoured Markdown."""
    parts = [f"# {escape_markdown(page.title)}", *(f"**Note:** {escape_markdown(note)}" for note in page.notes)]
    for table in page.tables:
        alignment = ["---" if column in table.left else "--:" for column in range(len(table.head))]
        lines = [[escape_markdown(cell) for cell in table.head], alignment]
        lines += [[_markdown_cell(cell) for cell in row] for row in (*table.rows, *table.foot)]
        parts += [f"## {escape_markdown(table.title)}", "\n".join(f"| {' | '.join(line)} |" for line in lines)]
        parts += [escape_markdown(note) for note in table.notes]
    return "\n\n".join(parts) + "\n"


def latex(page: Document) -> str:
    """Return a whole document for pdflatex; each table stands between rules of comments, to be copied into a paper."""
    parts = [_PREAMBLE, rf"\section*{{{escape_latex(page.title)}}}"]
    parts += [escape_latex(note) + r"\par" for note in page.notes]
    for table in page.tables:
        parts += [f"% ---- {_ascii(table.title)}", _latex_table(table), "% ----"]
    return "\n".join([*parts, r"\end{document}", ""])


def _plain_table(table: Table) -> str:
    rows = [list(table.head), *([cell.text + ("*" if cell.bold else "") for cell in row] for row in table.rows)]
    foot = [[cell.text + ("*" if cell.bold else "") for cell in row] for row in table.foot]
    widths = [max(map(len, column)) for column in zip(*rows, *foot, strict=True)]

    def line(row: Sequence[str]) -> str:
        cells = zip(row, widths, range(len(row)), strict=True)
        aligned = [cell.ljust(width) if column in table.left else cell.rjust(width) for cell, width, column in cells]
        return "  ".join(aligned).rstrip()

    lines = [table.title, "", *map(line, rows)]
    if foot:
        lines += ["-" * (sum(widths) + 2 * len(widths) - 2), *map(line, foot)]
    return "\n".join([*lines, *table.notes]).replace("Bold: ", "*: ")


def _markdown_cell(cell: Cell) -> str:
    text = escape_markdown(cell.text)
    return f"**{text}**" if cell.bold else text


_PREAMBLE = r"""\documentclass{article}
\usepackage[a4paper,landscape,margin=15mm]{geometry}
\usepackage[utf8]{inputenc}
\usepackage[T1]{fontenc}
\usepackage{booktabs}
\usepackage{graphicx}
\setlength{\parindent}{0pt}
\begin{document}"""


def _latex_table(table: Table) -> str:
    columns = "".join("l" if column in table.left else "r" for column in range(len(table.head)))

    def line(row: Sequence[str]) -> str:
        return " & ".join(row) + r" \\"

    body = [r"\toprule", line([escape_latex(cell) for cell in table.head]), r"\midrule"]
    body += [line([_latex_cell(cell) for cell in row]) for row in table.rows]
    if table.foot:
        body += [r"\midrule", *(line([_latex_cell(cell) for cell in row]) for row in table.foot)]
    # A table that is wider than the page is made smaller, and no other.
    return "\n".join(
        [
            r"\begin{table}[htbp]",
            r"\centering",
            rf"\caption{{{escape_latex(table.title)}}}",
            r"\setbox0=\hbox{%",
            rf"\begin{{tabular}}{{{columns}}}",
            *body,
            r"\bottomrule",
            r"\end{tabular}}%",
            r"\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\box0}\else\leavevmode\box0\fi",
            *(rf"\par\smallskip{{\footnotesize {escape_latex(note)}}}" for note in table.notes),
            r"\end{table}",
        ]
    )


def _latex_cell(cell: Cell) -> str:
    text = escape_latex(cell.text)
    return rf"\textbf{{{text}}}" if cell.bold else text


_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "%": r"\%",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "$": r"\$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "†": r"\textdagger{}",
    "–": "--",
    "—": "---",
    "…": r"\dots{}",
    "’": "'",
    "π": r"$\pi$",
    "µ": r"$\mu$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "[": "{[}",
    "]": "{]}",
}


def escape_latex(text: str) -> str:
    """Return ``text`` so that LaTeX prints it; what pdflatex's fonts lack becomes a question mark."""
    escaped = "".join(_LATEX.get(character, character) for character in " ".join(text.split()))
    signed = re.sub(r"(?<!\w)-(?=\d)", "$-$", escaped)  # a minus, which is longer than a hyphen
    return re.sub(r"[^\x20-\x7eÀ-ÿ]", "?", signed)


def _ascii(text: str) -> str:
    return " ".join(text.split()).encode("ascii", "replace").decode()
