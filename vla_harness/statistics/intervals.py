"""Intervals for success rates and percentiles for latencies, on scipy's and numpy's own functions.

The intervals speak of "these tasks, these initial states": tasks are fixed strata, not a sample of tasks.
Sources: Wilson 1927 (JASA 22:209-212); Clopper & Pearson 1934 (Biometrika 26:404-413).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np

Interval = tuple[float, float]


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Return Wilson's score interval for a success rate, both ends in [0, 1].

    Without trials nothing is known, and the interval is (0, 1). Raises ValueError unless 0 <= successes <= trials.
    """
    return _proportion_interval(successes, trials, confidence, "wilson")


def clopper_pearson_interval(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Return the exact interval, which never covers less than ``confidence``; arguments as ``wilson_interval``."""
    return _proportion_interval(successes, trials, confidence, "exact")


def _proportion_interval(
    successes: int, trials: int, confidence: float, method: Literal["wilson", "exact"]
) -> Interval:
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials is impossible")
    if trials == 0:
        return 0.0, 1.0
    from scipy.stats import binomtest  # a second of import that a run's start need not wait for

    interval = binomtest(int(successes), int(trials)).proportion_ci(confidence, method=method)
    return float(interval.low), float(interval.high)


def latency_percentiles(milliseconds: Iterable[float]) -> dict[str, float | None]:
    """Return {"p50", "p95", "p99"} in milliseconds, interpolated linearly between samples; None without samples."""
    samples = np.fromiter(milliseconds, np.float64)
    if not samples.size:
        return {"p50": None, "p95": None, "p99": None}
    p50, p95, p99 = np.percentile(samples, [50, 95, 99])
    return {"p50": float(p50), "p95": float(p95), "p99": float(p99)}
