"""How a comparison's values are written, the same in every table."""

from __future__ import annotations

from ..results.wording import ABSENT, suite_title
from ..statistics import Interval
from .comparison import Comparison, SuiteKey


def title_of(comparison: Comparison, suite: SuiteKey) -> str:
    """Return the suite's title, marked if every run on it was played on stand-ins; single ones carry a mark."""
    titles = {run.summary["suite_title"] for run in comparison.runs if run.suite == suite}
    return titles.pop() if len(titles) == 1 else suite_title(suite[1], stand_ins=False)


def signed_points(value: float) -> str:
    """Return a difference of rates as "+3.1" percentage points."""
    return f"{100 * value:+.1f}"


def p_value(value: float | None) -> str:
    """Return a p-value as "0.031" or "<0.001"."""
    if value is None:
        return ABSENT
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def signed_interval(ends: Interval) -> str:
    """Return an interval of differences as "[-0.5, +3.1]" percentage points."""
    return f"[{signed_points(ends[0])}, {signed_points(ends[1])}]"
