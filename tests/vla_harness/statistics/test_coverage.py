"""How often intervals hold the true value and tests reject a true hypothesis, simulated or counted out."""

import numpy as np
import pytest
from scipy.stats import binom

from vla_harness.statistics import (
    PairCounts,
    boschloo_p,
    fisher_p,
    mcnemar_mid_p,
    mcnemar_p,
    paired_interval,
    stratified_interval,
    unpaired_interval,
)
from vla_harness.statistics.stratified import probability_of_as_many

DRAWS = 20_000
RATES = {
    "all alike": np.full(10, 0.5),
    "alike and high": np.full(10, 0.97),
    "spread": np.linspace(0.05, 0.95, 10),
    "high": np.linspace(0.7, 1.0, 10),
    "hopeless or perfect": np.repeat([0.02, 0.98], 5),
    "one in doubt": np.array([0.5] + [1.0] * 9),
    "one that succeeds": np.array([0.95] + [0.0] * 9),
    "a mixture": np.random.default_rng(1).beta(1.0, 0.5, 10),
}


def coverage(rates: np.ndarray, trials: np.ndarray, draws: int) -> float:
    """Return how often the interval holds the mean: where neither tail of what was drawn is below 2.5 %."""
    successes = np.random.default_rng(0).binomial(trials, rates, (draws, len(rates)))
    mean = np.full(draws, rates.mean())
    high = probability_of_as_many(successes, trials, mean)
    low = probability_of_as_many(trials - successes, trials, 1 - mean)
    return float(((high >= 0.025) & (low >= 0.025)).mean())


@pytest.mark.parametrize("trials", [1, 2, 3, 5, 10, 20, 50])
def test_the_interval_of_the_task_mean_covers_94_percent_whatever_the_rates(trials: int) -> None:
    covered = {name: coverage(rates, np.full(10, trials), DRAWS) for name, rates in RATES.items()}
    assert min(covered.values()) >= 0.94, covered
    assert covered["all alike"] <= (0.99 if trials < 3 else 0.975)  # not by being needlessly wide


@pytest.mark.parametrize(
    "trials",
    [
        [50] * 9 + [1],  # a run that was cut short in its last task
        [50] * 5 + [20] * 5,
        [50] * 5 + [49] * 5,  # one error in each of five tasks
        [10, 9, 8, 7, 6, 5, 4, 3, 2, 1],
    ],
)
def test_it_covers_where_tasks_have_different_numbers_of_trials(trials: list[int]) -> None:
    both_ways = [(name, rates, np.array(order)) for name, rates in RATES.items() for order in (trials, trials[::-1])]
    covered = {(name, order[0]): coverage(rates, order, 5_000) for name, rates, order in both_ways}
    assert min(covered.values()) >= 0.935, covered  # a standard error of 5,000 draws is 0.3 %


@pytest.mark.parametrize(("tasks", "trials"), [(2, 5), (3, 10), (40, 1), (40, 3), (40, 50), (90, 3)])
def test_it_covers_with_few_tasks_and_with_many(tasks: int, trials: int) -> None:
    for rates in (np.full(tasks, 0.5), np.linspace(0.6, 1.0, tasks), np.array([0.5] + [1.0] * (tasks - 1))):
        assert coverage(rates, np.full(tasks, trials), 4_000) >= 0.935


@pytest.mark.parametrize("counts", [[(9, 10), (14, 20)], [(1, 1), (0, 1), (1, 1)], [(50, 50), (0, 1), (47, 50)]])
def test_the_limits_are_where_a_tail_has_two_and_a_half_percent(counts: list[tuple[int, int]]) -> None:
    successes, trials = np.array(counts, float).T
    low, high = stratified_interval(counts)
    assert probability_of_as_many(successes[None], trials, np.array([low])) == pytest.approx(0.025, rel=1e-4)
    assert probability_of_as_many((trials - successes)[None], trials, np.array([1 - high])) == pytest.approx(
        0.025, rel=1e-4
    )


@pytest.mark.parametrize("trials", [10, 20])
def test_newcombes_interval_of_two_rates_covers_where_they_are_no_further_apart_than_policies_are(trials: int) -> None:
    ends = np.array(
        [[unpaired_interval((a, trials), (b, trials)) for b in range(trials + 1)] for a in range(trials + 1)]
    )
    covered = []
    for first, second in [(0.5, 0.5), (0.65, 0.5), (0.9, 0.8), (0.98, 0.95), (0.98, 0.7), (0.05, 0.2)]:
        weight = np.outer(*(binom.pmf(np.arange(trials + 1), trials, rate) for rate in (first, second)))
        difference = first - second
        inside = (ends[..., 0] <= difference + 1e-12) & (difference - 1e-12 <= ends[..., 1])
        covered.append(float((weight * inside).sum()))
    assert min(covered) >= 0.93, covered
    assert np.mean(covered) >= 0.95


@pytest.mark.parametrize("pairs", [20, 100])
def test_newcombes_paired_interval_covers(pairs: int) -> None:
    draw = np.random.default_rng(2)
    covered = []
    for chances in ([0.85, 0.07, 0.05, 0.03], [0.3, 0.3, 0.2, 0.2], [0.6, 0.1, 0.0, 0.3], [0.95, 0.02, 0.02, 0.01]):
        drawn, number = np.unique(draw.multinomial(pairs, chances, 1_000), axis=0, return_counts=True)
        ends = np.array([paired_interval(PairCounts(*map(int, row))) for row in drawn])
        difference = chances[1] - chances[2]
        inside = (ends[:, 0] <= difference + 1e-12) & (difference - 1e-12 <= ends[:, 1])
        covered.append(float((number * inside).sum() / 1_000))
    assert min(covered) >= 0.92, covered
    assert np.mean(covered) >= 0.945


@pytest.mark.parametrize("discordant", [6, 10, 25, 60])
def test_mcnemar_rejects_equal_policies_in_five_percent_at_most(discordant: int) -> None:
    """Counted out over all ways in which a fair coin falls; the mid-P version is allowed half a point more."""
    weight = binom.pmf(np.arange(discordant + 1), discordant, 0.5)
    splits = [PairCounts(0, wins, discordant - wins, 0) for wins in range(discordant + 1)]
    exact = sum(chance for chance, split in zip(weight, splits, strict=True) if mcnemar_p(split) <= 0.05)
    middle = sum(chance for chance, split in zip(weight, splits, strict=True) if mcnemar_mid_p(split) <= 0.05)
    assert exact <= 0.05
    assert exact <= middle <= 0.056


def test_the_exact_unpaired_tests_reject_equal_rates_in_five_percent_at_most() -> None:
    trials = 9
    tables = [(a, b) for a in range(trials + 1) for b in range(a, trials + 1)]
    fisher = [(a, b) for a, b in tables if fisher_p((a, trials), (b, trials)) <= 0.05]
    boschloo = [(a, b) for a, b in tables if boschloo_p((a, trials), (b, trials)) <= 0.05]
    for rate in (0.1, 0.3, 0.5, 0.9):
        weight = binom.pmf(np.arange(trials + 1), trials, rate)
        sizes = [sum(2 * weight[a] * weight[b] for a, b in rejected) for rejected in (fisher, boschloo)]
        assert sizes[0] <= sizes[1] <= 0.05 + 1e-6
