"""The sequential test: how often it is wrong, how soon it stops, and what it says."""

import numpy as np
import pytest

from vla_harness.statistics import PairCounts, SequentialTest, mcnemar_p


def wins(first: float, second: float, agreement: float, pairs: int, runs: int) -> np.ndarray:
    """Return (runs, pairs) of +1, -1 and 0: the first policy's win, the second's, a concordant pair.

    With probability ``agreement`` both outcomes come from one uniform number (the state is hard or easy for both),
    else from two; the rates are ``first`` and ``second`` either way.
    """
    draw = np.random.default_rng(5)
    shared = draw.random((runs, pairs))
    own = np.where(draw.random((runs, pairs)) < agreement, shared, draw.random((runs, pairs)))
    return (shared < first).astype(int) - (own < second).astype(int)


def stops(test: SequentialTest, outcomes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each run the pairs after which it stopped, and +1, -1 or 0 for what it decided, looking always."""
    firsts, seconds = (np.cumsum(outcomes == sign, axis=1) for sign in (1, -1))
    table = np.full((test.planned + 1, test.planned + 1), 0)
    for first in range(test.planned + 1):
        for second in range(test.planned + 1 - first):
            said = test.verdict(first, second, first + second)
            table[first, second] = {"first": 1, "second": -1}.get(said, 0)
    decisions = table[firsts, seconds]
    decided = decisions != 0
    when = np.where(decided.any(1), decided.argmax(1), outcomes.shape[1] - 1)
    return when + 1, decisions[np.arange(len(decisions)), when]


@pytest.mark.parametrize(("rate", "agreement"), [(0.5, 0.0), (0.8, 0.5), (0.95, 0.0)])
def test_equal_policies_are_told_apart_no_more_often_than_promised(rate: float, agreement: float) -> None:
    test = SequentialTest(planned=100)
    runs = 20_000
    _, decisions = stops(test, wins(rate, rate, agreement, test.planned, runs))
    false_positives = (decisions != 0).mean()
    noise = 3 * (0.05 * 0.95 / runs) ** 0.5
    assert false_positives <= test.false_positive_rate + noise
    assert abs((decisions == 1).mean() - (decisions == -1).mean()) < 2 * noise


def test_the_exact_false_positive_rate_is_what_fair_coins_do() -> None:
    test = SequentialTest(planned=60)
    coins = np.random.default_rng(6).choice([-1, 1], size=(40_000, 60))
    assert (stops(test, coins)[1] != 0).mean() == pytest.approx(test.false_positive_rate, abs=0.004)


@pytest.mark.parametrize("planned", [5, 6, 20, 100, 500])
def test_the_error_rate_is_kept_and_used(planned: int) -> None:
    test = SequentialTest(planned)
    assert test.false_positive_rate <= test.alpha
    assert test.critical_evidence <= 1 / test.alpha or planned == 5  # five pairs cannot decide at 5 %
    assert test.false_positive_rate >= 0.03 or planned == 5


def test_looks_after_every_initial_state_of_all_tasks_keep_the_error_rate_where_tasks_differ() -> None:
    """As ``sequential_text`` counts pairs, for policies as good as each other, one of them better on the first tasks.

    Looks while one task after the other is played tell them apart most of the time.
    """
    test, runs = SequentialTest(planned=100), 1000
    draw = np.random.default_rng(7)
    edge = np.repeat([0.3, -0.3], 5)  # by task
    states = np.sign((draw.random((runs, 10, 10)) < 0.5 + edge).astype(int) - (draw.random((runs, 10, 10)) < 0.5))
    by_task = states.transpose(0, 2, 1).reshape(runs, 100)
    assert (stops(test, by_task)[1] != 0).mean() > 0.5
    firsts, seconds = (np.cumsum((states == sign).sum(2), axis=1) for sign in (1, -1))  # (runs, 10), after each state
    decided = np.vectorize(lambda first, second: test.verdict(first, second, 0) != "go on")(firsts, seconds)
    assert decided.any(axis=1).mean() <= test.false_positive_rate


def test_different_policies_are_told_apart_early_and_the_right_way_round() -> None:
    test = SequentialTest(planned=200)
    when, decisions = stops(test, wins(0.9, 0.6, 0.3, 200, 2000))
    assert (decisions == 1).mean() > 0.99 and (decisions == -1).mean() < 0.001
    assert when.mean() < 80


def test_looking_without_a_plan_at_mcnemars_p_would_be_wrong_too_often() -> None:
    """What the sequential test is for: the fixed-n test, repeated, is wrong far more often than it says."""
    outcomes = wins(0.7, 0.7, 0.0, 60, 1000)
    firsts, seconds = (np.cumsum(outcomes == sign, axis=1) for sign in (1, -1))
    p = np.array([[mcnemar_p(PairCounts(0, a, b, 0)) for b in range(40)] for a in range(40)])
    assert (p[firsts, seconds] < 0.05).any(axis=1).mean() > 0.1


def test_what_it_says() -> None:
    test = SequentialTest(planned=40)
    assert test.evidence(0, 0) == 1.0
    assert test.evidence(7, 0) == pytest.approx(2**7 / 8)
    assert test.verdict(0, 0, 39) == "go on"
    assert test.verdict(12, 0, 20) == "first" and test.verdict(0, 12, 20) == "second"
    assert test.verdict(6, 5, 40) == "undecided"
    with pytest.raises(ValueError, match="planned for 40"):
        test.verdict(1, 0, 41)
    with pytest.raises(ValueError, match="error rate"):
        SequentialTest(planned=10, alpha=1.5)
