"""A comparison as tables and plots of text, before any format: what ``content`` makes and the formats write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Cell:
    """One cell. bold: it is the best of its column. order: what it is sorted by; None sorts it last."""

    text: str
    bold: bool = False
    order: float | str | None = None


@dataclass(frozen=True)
class Table:
    """A table. Columns whose numbers are in ``left`` hold words, the others numbers. foot: rows that are not sorted."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()
    foot: Sequence[Sequence[Cell]] = ()
    left: Sequence[int] = (0,)


@dataclass(frozen=True)
class Plot:
    """Success rates with intervals, all in [0, 1]: (label, rate, (low, high), text)."""

    title: str
    bars: Sequence[tuple[str, float | None, tuple[float, float] | None, str]]


@dataclass(frozen=True)
class Document:
    """The whole page. notes: what holds for all of it."""

    title: str
    notes: Sequence[str]
    tables: Sequence[Table]
    plots: Sequence[Plot] = field(default_factory=tuple)
