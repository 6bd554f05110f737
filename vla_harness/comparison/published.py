"""Published success rates beside measured ones: with source and protocol, and never in one test with them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..results.marks import is_stand_in
from ..statistics import Interval, unpaired_interval
from .runs import ComparedRun

BENCHMARK = "libero"
_FILE = Path(__file__).with_name("published.toml")


@dataclass(frozen=True)
class PublishedRow:
    """A policy's published rates.

    counts: suite -> (successes, episodes); the successes are rounded from the percentage where only that is published.
    protocol: name of the card it was measured under, "" where none of ours is it.
    """

    name: str
    policies: tuple[str, ...]
    protocol: str
    conditions: str
    source: str
    counts: Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Verdict:
    """What a run says of a published rate: the difference run minus published, in [-1, 1], and its 95 % interval."""

    run: ComparedRun
    row: PublishedRow
    difference: float
    interval: Interval

    @property
    def inside(self) -> bool:
        """Whether the two rates do not differ at 95 %."""
        return self.interval[0] <= 0 <= self.interval[1]


@cache
def published_rows() -> tuple[PublishedRow, ...]:
    """Return the rows of ``published.toml``."""
    rows = []
    for entry in tomllib.loads(_FILE.read_text(encoding="utf-8"))["row"]:
        counts = {suite: (int(k), int(n)) for suite, (k, n) in entry.get("counts", {}).items()}
        for suite, percent in entry.get("rates", {}).items():
            counts[suite] = (round(percent / 100 * entry["episodes"]), entry["episodes"])
        rows.append(
            PublishedRow(
                entry["name"],
                tuple(entry["policies"]),
                entry.get("protocol", ""),
                entry["conditions"],
                entry["source"],
                counts,
            )
        )
    return tuple(rows)


def published_rows_of(suites: Iterable[tuple[str, str]]) -> list[PublishedRow]:
    """Return the rows that have a rate on one of ``suites``, each (benchmark, suite)."""
    known = [suite for benchmark, suite in suites if benchmark == BENCHMARK]
    return [row for row in published_rows() if any(suite in row.counts for suite in known)]


def verdict(run: ComparedRun, row: PublishedRow) -> Verdict | str | None:
    """Return whether ``run`` reproduces ``row``; a sentence on why it cannot; None when it is of another policy."""
    suite = run.summary["suite"]
    if run.suite[0] != BENCHMARK or run.policy not in row.policies or suite not in row.counts:
        return None
    if reason := _not_comparable(run, row):
        return reason
    ours, theirs = run.count, row.counts[suite]
    return Verdict(run, row, ours[0] / ours[1] - theirs[0] / theirs[1], unpaired_interval(ours, theirs))


def _not_comparable(run: ComparedRun, row: PublishedRow) -> str:
    if not row.protocol:
        return "its protocol is not one of ours"
    if run.summary["protocol"] != row.protocol:
        return f"protocol {run.summary['protocol']} instead of {row.protocol}"
    if is_stand_in(run.recorded):
        return "played on stand-in assets"
    if run.summary["errors"] or not run.summary["complete"]:
        return "errors or unplayed episodes are left"
    departures = [text for text in run.summary["protocol_differences"] if not text.startswith("trials ")]
    return "; ".join(departures)
