"""Two policies on the same initial states: only the pairs in which one succeeds and the other fails tell them apart.

Sources: McNemar 1947 (Psychometrika 12:153-157); Newcombe 1998, method 10 for paired data (Stat. Med. 17:2635-2650),
which Fagerland, Lydersen & Laake 2014 (Stat. Med. 33:2850-2875) recommend.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from .intervals import Interval, wilson_interval


@dataclass(frozen=True)
class PairCounts:
    """Pairs of episodes by outcome: of both policies, of the first alone, of the second alone, of neither."""

    both: int
    first_only: int
    second_only: int
    neither: int

    @property
    def pairs(self) -> int:
        """Number of pairs."""
        return self.both + self.first_only + self.second_only + self.neither

    @property
    def difference(self) -> float:
        """The first policy's success rate minus the second's, in [-1, 1]; needs a pair."""
        return (self.first_only - self.second_only) / self.pairs


def mcnemar_p(counts: PairCounts) -> float:
    """Return the two-sided p of McNemar's exact test: that a discordant pair is the first policy's is a fair coin's.

    1.0 when no pair is discordant.
    """
    from scipy.stats import binomtest

    discordant = counts.first_only + counts.second_only
    return float(binomtest(counts.first_only, discordant).pvalue) if discordant else 1.0


def mcnemar_mid_p(counts: PairCounts) -> float:
    """Return the two-sided mid-P of McNemar's test: the exact p, but half the probability of what was seen.

    It rejects equal policies in about 5 % of all comparisons, where the exact test, which cannot exceed 5 %, often does
    in 2 to 3 (Fagerland, Lydersen & Laake 2013, BMC Med. Res. Methodol. 13:91). 1.0 when no pair is discordant.
    """
    from scipy.stats import binom

    discordant = counts.first_only + counts.second_only
    if not discordant:
        return 1.0
    seen = float(binom.pmf(counts.first_only, discordant, 0.5))
    return 1 - seen / 2 if counts.first_only == counts.second_only else mcnemar_p(counts) - seen


def paired_probability_better(counts: PairCounts) -> float:
    """Return P(first > second): that more than half of all discordant pairs are the first's, under a Beta(1, 1) prior.

    Without a discordant pair it is 0.5.
    """
    from scipy.stats import beta

    return float(beta.sf(0.5, 1 + counts.first_only, 1 + counts.second_only))


def paired_interval(counts: PairCounts, confidence: float = 0.95) -> Interval:
    """Return Newcombe's score interval for ``counts.difference``, both ends in [-1, 1].

    It joins the two Wilson intervals by their correlation. Raises ValueError without pairs.
    """
    n = counts.pairs
    if n < 1:
        raise ValueError("an interval needs at least one pair")
    successes = counts.both + counts.first_only, counts.both + counts.second_only
    first, second = (k / n for k in successes)
    (low1, high1), (low2, high2) = (wilson_interval(k, n, confidence) for k in successes)
    phi = _correlation(counts)

    def reach(one: float, other: float) -> float:
        return sqrt(max(0.0, one**2 - 2 * phi * one * other + other**2))

    difference = first - second
    return (
        max(-1.0, difference - reach(first - low1, high2 - second)),
        min(1.0, difference + reach(high1 - first, second - low2)),
    )


def _correlation(counts: PairCounts) -> float:
    """Return the phi coefficient with Newcombe's continuity correction; 0 where a margin is empty."""
    n, both, neither = counts.pairs, counts.both, counts.neither
    margins = (both + counts.first_only) * (neither + counts.second_only)
    margins *= (both + counts.second_only) * (neither + counts.first_only)
    if not margins:
        return 0.0
    covariance: float = both * neither - counts.first_only * counts.second_only
    if covariance > 0:
        covariance = max(covariance - n / 2, 0)
    return covariance / sqrt(margins)
