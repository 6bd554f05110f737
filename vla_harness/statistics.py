"""Intervals for success rates and percentiles for latencies, on scipy's and numpy's own functions.

The intervals speak of "these tasks, these initial states": tasks are fixed strata, not a sample of tasks.
Sources: Wilson 1927 (JASA 22:209-212); Clopper & Pearson 1934 (Biometrika 26:404-413); Zou, Huang & Zhang 2009
(Computational Statistics & Data Analysis 53:1080-1085) for the stratified interval.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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


def stratified_interval(counts: Sequence[tuple[int, int]], confidence: float = 0.95) -> Interval:
    """Return an interval for the mean of the tasks' success rates, every task weighing the same.

    counts: (successes, trials) of each task, every one with trials.

    The method of Zou, Huang & Zhang 2009 for a linear function of binomial proportions (MOVER): each task's Wilson
    limits give its variance near that limit, and the distances from the rates are added as squares. It has a width at
    0/n and n/n, where the textbook stratified interval collapses to a point, and is conservative there. Raises
    ValueError for an empty list or a task without trials.
    """
    if not counts or any(trials < 1 for _, trials in counts):
        raise ValueError("every task needs at least one trial")
    rates = np.array([successes / trials for successes, trials in counts])  # (T,)
    limits = np.array([wilson_interval(*count, confidence) for count in counts])  # (T, 2)
    below = np.linalg.norm(rates - limits[:, 0]) / len(counts)
    above = np.linalg.norm(limits[:, 1] - rates) / len(counts)
    return max(0.0, float(rates.mean() - below)), min(1.0, float(rates.mean() + above))


def latency_percentiles(milliseconds: Iterable[float]) -> dict[str, float | None]:
    """Return {"p50", "p95", "p99"} in milliseconds, interpolated linearly between samples; None without samples."""
    samples = np.fromiter(milliseconds, np.float64)
    if not samples.size:
        return {"p50": None, "p95": None, "p99": None}
    p50, p95, p99 = np.percentile(samples, [50, 95, 99])
    return {"p50": float(p50), "p95": float(p95), "p99": float(p99)}
