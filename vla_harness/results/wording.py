"""How results are named and written in words, the same in every table: titles, rates, intervals, durations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

SUITES = {
    "spatial": ("LIBERO-Spatial", 10),
    "object": ("LIBERO-Object", 10),
    "goal": ("LIBERO-Goal", 10),
    "10": ("LIBERO-10 (Long)", 10),
    "90": ("LIBERO-90", 90),
    "single-arm": ("robosuite, one arm", 7),
    "two-arm": ("robosuite, two arms", 3),
}
"""Suite -> (the benchmark's name for it, its number of tasks)."""

ABSENT = "–"


def suite_title(suite: str, stand_ins: bool) -> str:
    """Return the suite's published name, marked when the assets are generated stand-ins."""
    title = SUITES[suite][0] if suite in SUITES else suite
    return f"{title} (stand-in assets)" if stand_ins else title


def percent(rate: float | None) -> str:
    """Return a rate in [0, 1] as "91.5 %"."""
    return ABSENT if rate is None else f"{100 * rate:.1f} %"


def interval(ends: Sequence[float] | None) -> str:
    """Return an interval of rates as "[91.5, 99.0]", in percent."""
    return ABSENT if ends is None else f"[{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]"


def best_interval(counted: Mapping[str, Any]) -> str:
    """Return the interval to print beside k/n: Wilson's, or the exact one with a dagger when k is 0 or n."""
    if not counted["trials"]:
        return ABSENT
    return f"{interval(counted['exact95'])}†" if counted["exact95"] else interval(counted["wilson95"])


def number(value: float | None, digits: int = 1, unit: str = "") -> str:
    """Return a number with thousands separators and its unit."""
    return ABSENT if value is None else f"{value:,.{digits}f}{' ' if unit else ''}{unit}"


def duration(seconds: float) -> str:
    """Return seconds as "0:01:30"; below ten seconds as "1.5 s"."""
    return f"{seconds:.1f} s" if seconds < 10 else str(timedelta(seconds=round(seconds)))


def value_text(value: Any) -> str:
    """Return one value of a card in words: lists with commas, mappings as "key value" pairs, None as a dash."""
    if value is None or value == "" or value == [] or value == {}:
        return ABSENT
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {value_text(inner)}" for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(value_text(inner) for inner in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def plural(count: int, thing: str) -> str:
    """Return "1 episode" or "2 episodes"."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"
