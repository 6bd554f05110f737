"""The tables of published rates, and of what the runs say of them."""

from __future__ import annotations

from ..results.wording import ABSENT, suite_title
from .comparison import Comparison
from .document import Cell, Table
from .published import Verdict, verdict
from .runs import ComparedRun
from .words import signed_interval, signed_points, title_of


def published_table(comparison: Comparison) -> Table:
    """Return the published rows that have one of the compared suites, with protocol and source."""
    suites = [suite for suite in comparison.suites if any(suite[1] in row.counts for row in comparison.published)]
    head = ["policy", *(suite_title(name, stand_ins=False) for _, name in suites)]
    rows = []
    for row in comparison.published:
        cells = [Cell(row.name, order=row.name)]
        for _, name in suites:
            k, n = row.counts.get(name, (0, 0))
            cells.append(Cell(f"{100 * k / n:.1f} % of {n}", order=k / n) if n else Cell(ABSENT))
        protocol = f"{row.protocol}: {row.conditions}" if row.protocol else row.conditions
        rows.append([*cells, Cell(protocol, order=protocol), Cell(row.source, order=row.source)])
    note = "Not measured here, by other code on other machines; no test above contains them."
    words = (0, len(suites) + 1, len(suites) + 2)
    return Table("Published", [*head, "protocol", "source"], rows, [note], left=words)


def verdict_table(comparison: Comparison) -> Table:
    """Return for each run of a published policy whether it reproduces the published rate."""
    rows = []
    for run in comparison.runs:
        for row in comparison.published:
            found = verdict(run, row)
            if found is not None:
                rows.append(_verdict_row(comparison, run, row.name, found))
    note = (
        "Inside: the run and the published rate do not differ at 95 % (Newcombe's interval for independent rates,"
        " in percentage points). A run reproduces a row only under its protocol."
    )
    if not rows:
        note = "None of these runs is of a policy with a published row."
    head = ("policy", "suite", "published", "run - published", "95 %", "verdict")
    return Table("Runs against published rates", head, rows, [note], left=(0, 1, 2, 5))


def _verdict_row(comparison: Comparison, run: ComparedRun, name: str, found: Verdict | str) -> list[Cell]:
    start = [Cell(run.name, order=run.name), Cell(title_of(comparison, run.suite), order=run.suite[1]), Cell(name)]
    if isinstance(found, str):
        return [*start, Cell(ABSENT), Cell(ABSENT), Cell(f"not comparable: {found}")]
    ends = Cell(signed_interval(found.interval), order=found.interval[0])
    word = "inside" if found.inside else "outside"
    return [*start, Cell(signed_points(found.difference), order=found.difference), ends, Cell(word, order=word)]
