"""Holm's correction, compact letters and planning, against published examples and their own definitions."""

from itertools import combinations

import numpy as np
import pytest

from vla_harness.statistics import compact_letters, holm, trials_for_half_width, wilson_interval


def test_holm_gives_the_usual_examples_adjustment() -> None:
    """Wikipedia's example of the method: at 5 % the first and the last of the four are rejected."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_rejects_as_the_step_down_procedure_does() -> None:
    draw = np.random.default_rng(3)
    for _ in range(200):
        p_values = draw.random(draw.integers(1, 9)) ** 3
        rejected = set()
        for rank, index in enumerate(np.argsort(p_values)):
            if p_values[index] > 0.05 / (len(p_values) - rank):
                break
            rejected.add(int(index))
        assert {index for index, p in enumerate(holm(p_values.tolist())) if p <= 0.05} == rejected


def test_two_policies_share_a_letter_exactly_if_they_do_not_differ() -> None:
    draw = np.random.default_rng(4)
    for _ in range(200):
        count = int(draw.integers(1, 8))
        different = {pair for pair in combinations(range(count), 2) if draw.random() < 0.4}
        letters = compact_letters(count, different)
        for pair in combinations(range(count), 2):
            assert bool(set(letters[pair[0]]) & set(letters[pair[1]])) == (pair not in different)
        assert all(letters)


def test_letters_of_a_chain_overlap() -> None:
    assert compact_letters(3, []) == ["a", "a", "a"]
    assert compact_letters(3, [(0, 1), (0, 2), (1, 2)]) == ["a", "b", "c"]
    assert compact_letters(4, [(0, 2), (0, 3), (1, 3)]) == ["a", "ab", "bc", "c"]


@pytest.mark.parametrize(("half_width", "rate"), [(0.03, 0.5), (0.03, 0.9), (0.05, 0.97), (0.1, 0.0), (0.02, 0.3)])
def test_planned_trials_are_just_enough(half_width: float, rate: float) -> None:
    def reached(trials: int) -> float:
        """Half of Wilson's interval at a rate that need not be a whole number of successes."""
        z = 1.959963984540054
        return z * (rate * (1 - rate) / trials + z**2 / (4 * trials**2)) ** 0.5 / (1 + z**2 / trials)

    trials = trials_for_half_width(half_width, rate)
    assert reached(trials) <= half_width < reached(trials - 1)


def test_planned_trials_agree_with_the_interval_that_is_reported() -> None:
    trials = trials_for_half_width(0.03)
    assert trials == 1064
    low, high = wilson_interval(trials // 2, trials)
    assert (high - low) / 2 <= 0.03
    for half_width, rate in ((0.0, 0.5), (0.5, 0.5), (0.1, 1.2)):
        with pytest.raises(ValueError, match="no number of trials"):
            trials_for_half_width(half_width, rate)
