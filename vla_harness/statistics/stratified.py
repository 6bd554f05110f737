"""The interval for the mean of several tasks' success rates, right from one trial of each task on.

It holds every mean under which what was seen lies in neither tail: a test of each candidate mean, turned round. The
tasks' own rates are a nuisance there, which two steps settle.

- **Their values**: the likeliest ones with the candidate mean, after ``PSEUDO_TRIALS`` more of each task at that mean.
  Without them the rates of few trials lie at 0 and 1, and the variance is too small by 1/n, all of it with one trial.
- **The mean's distribution under them**: the translated binomial with its first three moments (Roellin 2007,
  Bernoulli 13:1115-1128). It is exact for one task and for equal rates of equally many trials, where the interval is
  Clopper's and Pearson's; and it keeps the skew where one task varies and the others always or never succeed.

tests/vla_harness/statistics/test_coverage.py measures how often it covers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from .intervals import Interval

PSEUDO_TRIALS = 3.0
"""Fewest that cover 94 % with 1 to 50 trials of 10 and of 40 tasks, whatever their rates."""
_NEWTON_STEPS = 60


def stratified_interval(counts: Sequence[tuple[int, int]], confidence: float = 0.95) -> Interval:
    """Return an interval for the mean of the tasks' success rates, every task weighing the same.

    counts: (successes, trials) of each task, every one with trials. Raises ValueError for an empty list or a task
    without trials.
    """
    if not counts or any(not 0 <= successes <= trials or trials < 1 for successes, trials in counts):
        raise ValueError(f"every task needs at least one trial and a possible count: {list(counts)}")
    return _interval(tuple(sorted(counts)), confidence)


@lru_cache(maxsize=4096)
def _interval(counts: tuple[tuple[int, int], ...], confidence: float) -> Interval:
    successes, trials = np.array(counts, np.float64).T
    tail = (1 - confidence) / 2
    return _low_end(successes, trials, tail), 1 - _low_end(trials - successes, trials, tail)


def _low_end(successes: np.ndarray, trials: np.ndarray, tail: float) -> float:
    """Return the mean under which the observed one or a higher one has probability ``tail``."""
    if not successes.any():
        return 0.0
    from scipy.optimize import brentq

    def excess(mean: float) -> float:
        return float(probability_of_as_many(successes[None], trials, np.array([mean]))[0]) - tail

    return float(brentq(excess, 1e-9, (1 - 1e-7) * (successes / trials).mean(), xtol=1e-10))


def probability_of_as_many(successes: np.ndarray, trials: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return (results,): the probability of the observed mean rate or a higher one, if the true one is ``mean``.

    successes: (results, tasks). trials: (tasks,). mean: (results,), each above 0 and below 1.
    """
    from scipy.special import betainc

    rates = _likeliest_rates(successes, trials, mean)
    variances = rates * (1 - rates) / trials
    variance = variances.sum(axis=1)
    step = (variances / trials).sum(axis=1) / variance  # of the sum of the rates: 1/n for n trials of each task
    third_moment = (variances * (1 - 2 * rates) / trials).sum(axis=1)
    chance = np.clip((1 - third_moment / (variance * step)) / 2, 1e-12, 1 - 1e-12)
    number = variance / (step**2 * chance * (1 - chance))
    above = ((successes / trials).sum(axis=1) - rates.sum(axis=1)) / step + number * chance  # on the binomial's scale
    inner = np.clip(above, 1e-12, number + 1 - 1e-12)
    probability = betainc(inner, number - inner + 1, chance)
    probability = np.where(above <= 0, 1.0, np.where(above >= number + 1, 0.0, probability))
    # Where numbers of trials differ, the binomial may end before the highest mean does, whose probability is exact.
    return np.maximum(probability, np.exp((trials * np.log(rates)).sum(axis=1)))


def _likeliest_rates(successes: np.ndarray, trials: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return (results, tasks): the rates p with the given mean that make the smoothed counts k of n likeliest.

    They solve k - n p = t p (1 - p) for every task, with one multiplier t for all. It is found by Newton's method on
    (mean p - mean) / (mean p (1 - mean p)), which is a straight line in t where all tasks are alike.
    """
    k, n = successes + PSEUDO_TRIALS * mean[:, None], trials + PSEUDO_TRIALS
    t = np.zeros((len(mean), 1))
    for _ in range(_NEWTON_STEPS):
        root = np.sqrt(np.maximum((n + t) ** 2 - 4 * t * k, 1e-300))
        # the quadratic's root in [0, 1], of its two forms the one without cancellation
        rates = np.where(t >= 0, 2 * k / (n + np.maximum(t, 0) + root), 1 - 2 * (n - k) / (n - np.minimum(t, 0) + root))
        now = rates.mean(axis=1)
        off = now - mean
        if np.all(np.abs(off) <= 1e-8 * mean * (1 - mean)):
            break
        slope = -(rates * (1 - rates) / root).mean(axis=1)
        t -= (off * now * (1 - now) / (slope * (off**2 + mean * (1 - mean))))[:, None]
    return rates
