"""Comparisons of two success rates against published examples and their own definitions."""

from math import comb

import numpy as np
import pytest

from vla_harness.statistics import (
    PairCounts,
    boschloo_p,
    fisher_p,
    mcnemar_mid_p,
    mcnemar_p,
    paired_interval,
    paired_probability_better,
    unpaired_interval,
    unpaired_probability_better,
)

BENTUR = PairCounts(1, 1, 7, 12)  # airway hyper-responsiveness; Fagerland, Lydersen & Laake 2013, table 1
CAVO = PairCounts(59, 6, 16, 80)  # response to therapy; Fagerland, Lydersen & Laake 2017, chapter 8
ALTMAN = PairCounts(14, 5, 0, 22)  # Altman et al. 2000, Statistics with Confidence, table 6.2


@pytest.mark.parametrize(("counts", "p"), [(BENTUR, 0.070), (CAVO, 0.0525), (ALTMAN, 0.0625)])
def test_mcnemar_gives_the_published_p(counts: PairCounts, p: float) -> None:
    assert mcnemar_p(counts) == pytest.approx(p, abs=5e-4)


@pytest.mark.parametrize(("counts", "p"), [(BENTUR, 0.039), (ALTMAN, 0.03125), (PairCounts(5, 1, 1, 5), 0.75)])
def test_mid_p_mcnemar_gives_the_published_p(counts: PairCounts, p: float) -> None:
    """Fagerland, Lydersen & Laake 2013, table 2, and by hand: five heads of five, one of two."""
    assert mcnemar_mid_p(counts) == pytest.approx(p, abs=5e-4)
    assert mcnemar_mid_p(PairCounts(50, 0, 0, 50)) == 1.0


def test_mcnemar_is_the_binomial_tail_twice_and_one_without_discordant_pairs() -> None:
    assert mcnemar_p(PairCounts(90, 9, 1, 0)) == pytest.approx(2 * (comb(10, 0) + comb(10, 1)) / 2**10)
    assert mcnemar_p(PairCounts(50, 0, 0, 50)) == 1.0


@pytest.mark.parametrize(
    ("counts", "interval", "places"),
    [(BENTUR, (-0.507, -0.026), 3), (CAVO, (-0.1186, -0.0046), 4), (ALTMAN, (0.011, 0.226), 3)],
)
def test_the_paired_interval_is_newcombes(counts: PairCounts, interval: tuple[float, float], places: int) -> None:
    assert paired_interval(counts) == pytest.approx(interval, abs=0.51 * 10**-places)


def test_the_paired_interval_turns_with_the_order_of_the_policies() -> None:
    low, high = paired_interval(CAVO)
    assert paired_interval(PairCounts(59, 16, 6, 80)) == pytest.approx((-high, -low))


@pytest.mark.parametrize("theta", [0.02, 0.15])
def test_the_paired_interval_covers_about_as_often_as_it_says(theta: float) -> None:
    """Rates of about 0.9 that depend on each other as policies on the same states do."""
    probabilities = np.array([0.85, 0.05 + theta, 0.05, 0.05 - theta / 3])
    probabilities /= probabilities.sum()
    true = probabilities[1] - probabilities[2]
    draws = np.random.default_rng(1).multinomial(100, probabilities, size=400)
    intervals = np.array([paired_interval(PairCounts(*map(int, row))) for row in draws])
    assert 0.92 <= ((intervals[:, 0] <= true) & (true <= intervals[:, 1])).mean() <= 0.99


def test_intervals_stay_in_bounds_where_all_agree() -> None:
    low, high = paired_interval(PairCounts(20, 0, 0, 0))
    assert -0.2 < low < 0 < high < 0.2
    assert paired_interval(PairCounts(0, 10, 0, 0))[1] == 1.0
    with pytest.raises(ValueError, match="at least one pair"):
        paired_interval(PairCounts(0, 0, 0, 0))


@pytest.mark.parametrize(
    ("first", "second", "interval"),
    [  # Newcombe 1998, Statistics in Medicine 17:873, table II, method 10
        ((56, 70), (48, 80), (0.0524, 0.3339)),
        ((9, 10), (3, 10), (0.1705, 0.8090)),
        ((6, 7), (2, 7), (0.0582, 0.8062)),
        ((5, 56), (0, 29), (-0.0381, 0.1926)),
        ((0, 10), (0, 10), (-0.2775, 0.2775)),
        ((10, 10), (0, 20), (0.6791, 1.0)),
        ((7, 34), (1, 34), (0.0189, 0.3404)),  # Fagerland, Lydersen & Laake 2017, chapter 4 (Perondi 2004)
    ],
)
def test_the_unpaired_interval_is_newcombes(
    first: tuple[int, int], second: tuple[int, int], interval: tuple[float, float]
) -> None:
    assert unpaired_interval(first, second) == pytest.approx(interval, abs=6e-5)


def test_boschloo_gives_the_published_p() -> None:
    """scipy's documentation: 74 of 117 professors and 31 of 63 lawyers; one-sided 0.0355, which two-sided doubles."""
    assert boschloo_p((74, 117), (31, 63)) == pytest.approx(2 * 0.0355, abs=2e-4)
    assert boschloo_p((31, 63), (74, 117)) == pytest.approx(2 * 0.0355, abs=2e-4)


def test_boschloo_is_stronger_than_fisher() -> None:
    """Perondi et al. 2004; Fagerland, Lydersen & Laake 2017, chapter 4: Fisher's exact test does not reject."""
    assert fisher_p((7, 34), (1, 34)) == pytest.approx(0.054, abs=5e-4)
    assert 0.03 < boschloo_p((7, 34), (1, 34)) < 0.05


def test_fisher_gives_the_published_p() -> None:
    """The lady tasting tea (Fisher 1935): three of four cups of each kind; 17/70 on one side, doubled by symmetry."""
    assert fisher_p((3, 4), (1, 4)) == pytest.approx(34 / 70)


def test_the_probability_of_being_better_is_what_a_sample_of_the_posteriors_says() -> None:
    draw = np.random.default_rng(0)
    sampled = (draw.beta(21, 81, 400_000) > draw.beta(16, 86, 400_000)).mean()
    assert unpaired_probability_better((20, 100), (15, 100)) == pytest.approx(sampled, abs=3e-3)
    assert unpaired_probability_better((3, 7), (3, 7)) == pytest.approx(0.5)
    assert unpaired_probability_better((0, 0), (0, 0)) == pytest.approx(0.5)
    assert unpaired_probability_better((0, 1), (1, 1)) == pytest.approx(1 / 6)  # both densities are straight lines
    share = draw.beta(1 + 9, 1 + 4, 400_000)
    assert paired_probability_better(PairCounts(50, 9, 4, 37)) == pytest.approx((share > 0.5).mean(), abs=3e-3)
    assert paired_probability_better(PairCounts(50, 0, 0, 37)) == pytest.approx(0.5)
