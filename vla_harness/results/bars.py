"""Success rates with intervals as inline SVG, for every HTML page. Positions are shares of the width: bars stretch."""

from __future__ import annotations

from collections.abc import Sequence


def rate_axis() -> str:
    """Return the scale from 0 to 100 % that stands over a column of bars."""
    anchors = {0: "start", 50: "middle", 100: "end"}
    labels = "".join(f'<text x="{at}%" y="12" text-anchor="{anchor}">{at} %</text>' for at, anchor in anchors.items())
    return f'<svg class="axis" width="100%" height="16" role="img" aria-label="success rate">{labels}</svg>'


def rate_bar(rate: float | None, ends: Sequence[float] | None) -> str:
    """Return a bar of ``rate`` with a whisker for the interval ``ends``, in [0, 1]; empty without a rate."""
    grid = "".join(f'<line class="grid" x1="{at}%" x2="{at}%" y1="0" y2="22"/>' for at in (0, 25, 50, 75, 100))
    drawn = ""
    if rate is not None and ends is not None:
        low, high = (f"{100 * end:.2f}%" for end in ends)
        drawn = (
            f'<rect class="fill" x="0" y="5" width="{100 * rate:.2f}%" height="12" rx="2"/>'
            f'<line class="whisker" x1="{low}" x2="{high}" y1="11" y2="11"/>'
            f'<line class="whisker" x1="{low}" x2="{low}" y1="7" y2="15"/>'
            f'<line class="whisker" x1="{high}" x2="{high}" y1="7" y2="15"/>'
        )
    return f'<svg width="100%" height="22" aria-hidden="true">{grid}{drawn}</svg>'
