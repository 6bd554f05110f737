"""Intervals against published examples, closed forms and their own definitions."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import norm

from vla_harness.statistics import (
    clopper_pearson_interval,
    latency_percentiles,
    stratified_interval,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("successes", "trials", "percent"),
    [
        (97, 100, (91.5, 99.0)),
        (424, 500, (81.4, 87.7)),
        (485, 500, (95.1, 98.2)),
        (81, 263, (25.5, 36.6)),  # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3
        (15, 148, (6.2, 16.0)),
        (1, 29, (0.6, 17.2)),
        (0, 20, (0.0, 16.1)),
    ],
)
def test_wilson_gives_the_published_intervals(successes: int, trials: int, percent: tuple[float, float]) -> None:
    assert wilson_interval(successes, trials) == pytest.approx(np.array(percent) / 100, abs=6e-4)


@pytest.mark.parametrize(
    ("successes", "trials", "expected"),
    [
        (81, 263, (0.2527, 0.3676)),  # Newcombe 1998, method 5
        (15, 148, (0.0578, 0.1617)),
        (1, 29, (0.0009, 0.1776)),
        (0, 20, (0.0, 0.1684)),
    ],
)
def test_clopper_pearson_gives_the_published_intervals(
    successes: int, trials: int, expected: tuple[float, float]
) -> None:
    assert clopper_pearson_interval(successes, trials) == pytest.approx(expected, abs=6e-5)


def test_clopper_pearson_has_its_closed_form_when_all_succeed() -> None:
    assert clopper_pearson_interval(10, 10) == pytest.approx((0.025 ** (1 / 10), 1.0))


@pytest.mark.parametrize("interval", [wilson_interval, clopper_pearson_interval])
def test_intervals_without_trials_and_with_impossible_counts(interval: Callable[..., tuple[float, float]]) -> None:
    assert interval(0, 0) == (0.0, 1.0)
    for successes, trials in ((3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="impossible"):
            interval(successes, trials)


def test_a_higher_confidence_gives_a_wider_interval() -> None:
    low, high = wilson_interval(9, 10, confidence=0.99)
    assert low < wilson_interval(9, 10)[0]
    assert high > wilson_interval(9, 10)[1]


@pytest.mark.parametrize("successes", [0, 1, 5, 9, 10])
def test_stratified_is_wilson_for_one_task(successes: int) -> None:
    assert stratified_interval([(successes, 10)]) == pytest.approx(wilson_interval(successes, 10), abs=1e-9)


def test_stratified_is_pooled_wilson_where_all_tasks_are_at_a_bound() -> None:
    assert stratified_interval([(10, 10)] * 10) == pytest.approx(wilson_interval(100, 100), abs=1e-9)
    assert stratified_interval([(0, 5)] * 4) == pytest.approx(wilson_interval(0, 20), abs=1e-9)


def test_stratified_has_a_width_where_tasks_are_perfect_or_hopeless() -> None:
    low, high = stratified_interval([(10, 10), (0, 10)])
    assert 0.3 < low < 0.4
    assert high == pytest.approx(1 - low)


def test_stratified_is_narrower_than_pooled_when_tasks_differ() -> None:
    low, high = stratified_interval([(50, 50), (5, 50)])
    pooled_low, pooled_high = wilson_interval(55, 100)
    assert high - low < 0.7 * (pooled_high - pooled_low)


def test_stratified_limits_are_where_the_score_test_rejects() -> None:
    """The definition, by brute force: the likeliest rates of two tasks on a fine grid with the limit as their mean."""
    counts = [(9, 10), (14, 20)]
    for limit in stratified_interval(counts):
        first = np.linspace(max(0, 2 * limit - 1) + 1e-9, min(1, 2 * limit) - 1e-9, 400_001)
        rates = np.stack([first, 2 * limit - first])  # (2, grid)
        with np.errstate(divide="ignore"):
            likelihood = sum(k * np.log(p) + (n - k) * np.log(1 - p) for (k, n), p in zip(counts, rates, strict=True))
        p = rates[:, np.argmax(likelihood)]
        variance = sum(q * (1 - q) / n for q, (_, n) in zip(p, counts, strict=True)) / 4
        statistic = (np.mean([k / n for k, n in counts]) - limit) / np.sqrt(variance)
        assert abs(statistic) == pytest.approx(norm.ppf(0.975), abs=1e-3)


@pytest.mark.parametrize("rates", [[0.97] * 10, [1.0] * 8 + [0.5] * 2, [0.6] * 10])
def test_stratified_covers_about_as_often_as_it_says(rates: list[float]) -> None:
    draws = np.random.default_rng(0).binomial(50, rates, size=(400, len(rates)))
    intervals = np.array([stratified_interval([(int(k), 50) for k in row]) for row in draws])
    covered = (intervals[:, 0] <= np.mean(rates)) & (np.mean(rates) <= intervals[:, 1])
    assert covered.mean() >= 0.93


@pytest.mark.parametrize("counts", [[], [(3, 4), (0, 0)], [(5, 4)]])
def test_stratified_refuses_what_has_no_interval(counts: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="at least one trial"):
        stratified_interval(counts)


def test_latency_percentiles() -> None:
    assert latency_percentiles(range(101)) == {"p50": 50.0, "p95": 95.0, "p99": 99.0}
    assert latency_percentiles([]) == {"p50": None, "p95": None, "p99": None}
