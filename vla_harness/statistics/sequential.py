"""A comparison of two policies that may be looked at after every pair of episodes, with its error rate fixed before.

Under the hypothesis that the policies are equally good, each discordant pair (one succeeds, the other fails on the same
initial state) is a fair coin: Wald 1945 (Ann. Math. Statist. 16:117-186) built the first sequential test of two success
rates on that. The evidence is the likelihood ratio of a coin of unknown bias, uniform on [0, 1], against the fair
one (Robbins 1970, Ann. Math. Statist. 41:1397-1409). By Ville's inequality it reaches 1/alpha at any time with
probability alpha at most; for a number of pairs that is fixed in advance the exact critical value is lower, and is
found by counting the coin's paths, as Armitage, McPherson & Rowe 1969 (J. R. Statist. Soc. A 132:235-244) did for
repeated tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

Verdict = Literal["first", "second", "go on", "undecided"]


@dataclass(frozen=True)
class SequentialTest:
    """A two-sided test of at most ``planned`` pairs, whose false-positive rate over all looks is at most ``alpha``.

    Both are fixed before the first pair. The wins may be looked at after every pair or seldom; what must not decide
    when to look, or which pairs count, is who won.
    """

    planned: int
    alpha: float = 0.05

    def __post_init__(self) -> None:
        if self.planned < 1 or not 0 < self.alpha < 1:
            raise ValueError(f"no test has {self.planned} pairs and an error rate of {self.alpha}")

    @cached_property
    def critical_evidence(self) -> float:
        """The evidence that decides; infinite where so few pairs cannot decide at this error rate."""
        reachable = np.unique(np.concatenate([_log_evidence(discordant) for discordant in range(1, self.planned + 1)]))
        reachable = reachable[reachable <= -np.log(self.alpha) + 1e-9]  # beyond it Ville's inequality holds already
        above = np.searchsorted(reachable, 0.0)
        candidates = reachable[above:]
        low, high = 0, len(candidates)  # the first candidate whose error rate is low enough, by bisection
        while low < high:
            middle = (low + high) // 2
            if self._crossing_probability(candidates[middle]) <= self.alpha:
                high = middle
            else:
                low = middle + 1
        if low < len(candidates):
            return float(np.exp(candidates[low]))
        best = _log_evidence(self.planned)[0]
        return 1 / self.alpha if best >= -np.log(self.alpha) else float("inf")

    @property
    def false_positive_rate(self) -> float:
        """The exact probability that equal policies are told apart, when every pair is discordant: at most alpha."""
        return self._crossing_probability(np.log(self.critical_evidence))

    def evidence(self, first_only: int, second_only: int) -> float:
        """Return the likelihood ratio against equal policies; 1.0 before the first discordant pair."""
        return float(np.exp(_log_evidence(first_only + second_only)[first_only]))

    def verdict(self, first_only: int, second_only: int, pairs: int) -> Verdict:
        """Return which policy is better, or "go on", or "undecided" when all planned pairs are played.

        pairs: played so far, concordant ones included; ValueError when there are more than planned.
        """
        if pairs > self.planned:
            raise ValueError(f"{pairs} pairs were played, and the test was planned for {self.planned}")
        if self.evidence(first_only, second_only) >= self.critical_evidence * (1 - 1e-9):
            return "first" if first_only > second_only else "second"
        return "go on" if pairs < self.planned else "undecided"

    def _crossing_probability(self, log_critical: float) -> float:
        """Return the probability that a fair coin's evidence ever reaches the value, by the paths that stay below."""
        below = np.ones(1)  # probability of each number of heads, without a crossing so far
        for flips in range(1, self.planned + 1):
            after = np.zeros(flips + 1)
            after[:-1] += below / 2
            after[1:] += below / 2
            after[_log_evidence(flips) >= log_critical - 1e-9] = 0.0
            below = after
        return float(1.0 - below.sum())


def _log_evidence(flips: int) -> np.ndarray:
    """Return (flips + 1,) float64: the log likelihood ratio for each number of heads."""
    from scipy.special import betaln

    heads = np.arange(flips + 1)
    return betaln(1 + heads, 1 + flips - heads) + flips * np.log(2.0)
