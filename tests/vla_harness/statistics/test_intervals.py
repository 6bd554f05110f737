"""Intervals against published examples, closed forms and their own definitions."""

from collections.abc import Callable

import numpy as np
import pytest

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
def test_stratified_is_clopper_pearson_for_one_task(successes: int) -> None:
    assert stratified_interval([(successes, 10)]) == pytest.approx(clopper_pearson_interval(successes, 10), abs=1e-7)


def test_stratified_is_pooled_clopper_pearson_where_all_tasks_are_alike() -> None:
    assert stratified_interval([(10, 10)] * 10) == pytest.approx(clopper_pearson_interval(100, 100), abs=1e-7)
    assert stratified_interval([(0, 5)] * 4) == pytest.approx(clopper_pearson_interval(0, 20), abs=1e-7)
    assert stratified_interval([(1, 1), (0, 1)] * 5) == pytest.approx(clopper_pearson_interval(5, 10), abs=0.01)


def test_stratified_has_a_width_where_tasks_are_perfect_or_hopeless() -> None:
    low, high = stratified_interval([(10, 10), (0, 10)])
    assert 0.3 < low < 0.4
    assert high == pytest.approx(1 - low)


def test_stratified_is_narrower_than_pooled_when_tasks_differ() -> None:
    low, high = stratified_interval([(50, 50), (5, 50)])
    pooled_low, pooled_high = wilson_interval(55, 100)
    assert high - low < 0.7 * (pooled_high - pooled_low)


@pytest.mark.parametrize("counts", [[], [(3, 4), (0, 0)], [(5, 4)]])
def test_stratified_refuses_what_has_no_interval(counts: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="at least one trial"):
        stratified_interval(counts)


def test_latency_percentiles() -> None:
    assert latency_percentiles(range(101)) == {"p50": 50.0, "p95": 95.0, "p99": 99.0}
    assert latency_percentiles([]) == {"p50": None, "p95": None, "p99": None}
