"""Intervals for success rates and percentiles for latencies, on scipy's and numpy's own functions.

The intervals speak of "these tasks, these initial states": tasks are fixed strata, not a sample of tasks.
Sources: Wilson 1927 (JASA 22:209-212); Clopper & Pearson 1934 (Biometrika 26:404-413); for the stratified
interval Martin Andres, Herranz Tejedor & Alvarez Hernandez 2012 (J. Stat. Comput. Simul., doi
10.1080/00949655.2010.530601), who find the score method the best of those for a linear combination of proportions.
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

    The score interval for a linear combination of proportions: the means that a score test does not reject, with the
    tasks' rates at their likeliest values under each mean. For one task, and for equal tasks at 0/n or n/n, it is
    Wilson's interval; unlike adding up the tasks' own intervals it keeps its coverage near 0 and 1. Raises ValueError
    for an empty list or a task without trials.
    """
    if not counts or any(not 0 <= successes <= trials or trials < 1 for successes, trials in counts):
        raise ValueError(f"every task needs at least one trial and a possible count: {list(counts)}")
    successes, trials = np.array(counts, np.float64).T  # (T,), (T,)
    return _score_limit(successes, trials, confidence), 1 - _score_limit(trials - successes, trials, confidence)


def _score_limit(successes: np.ndarray, trials: np.ndarray, confidence: float) -> float:
    """Return the lower end of ``stratified_interval``.

    The likeliest rates p with a given mean solve n (k/n - p) = t p (1 - p) for every task, with one multiplier t; the
    test's statistic is then z^2 = t^2 sum(p (1 - p) / n). So the limit is found by its t, and t = 0 is the estimate.
    """
    if not successes.any():
        return 0.0
    from scipy.optimize import brentq
    from scipy.stats import norm

    def rates(t: float) -> np.ndarray:  # the quadratic's root in [0, 1], written without cancellation
        total = t + trials
        return 2 * successes / (total + np.sqrt(np.maximum(total**2 - 4 * t * successes, 0.0)))

    def excess(t: float) -> float:
        p = rates(t)
        return float(t**2 * np.sum(p * (1 - p) / trials) - critical**2)

    critical = norm.ppf((1 + confidence) / 2)
    far = trials.max()
    while excess(far) < 0:
        far *= 2
    return float(rates(brentq(excess, 0.0, far)).mean())


def latency_percentiles(milliseconds: Iterable[float]) -> dict[str, float | None]:
    """Return {"p50", "p95", "p99"} in milliseconds, interpolated linearly between samples; None without samples."""
    samples = np.fromiter(milliseconds, np.float64)
    if not samples.size:
        return {"p50": None, "p95": None, "p99": None}
    p50, p95, p99 = np.percentile(samples, [50, 95, 99])
    return {"p50": float(p50), "p95": float(p95), "p99": float(p99)}
