"""Every two policies on a suite: paired where they played the same initial states, and corrected for their number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations
from typing import Literal

from ..statistics import (
    BOSCHLOO_TRIALS,
    Interval,
    PairCounts,
    boschloo_p,
    compact_letters,
    fisher_p,
    holm,
    mcnemar_mid_p,
    mcnemar_p,
    paired_interval,
    paired_probability_better,
    unpaired_interval,
    unpaired_probability_better,
)
from .protocol_check import same_starting_states
from .runs import ComparedRun

LEVEL = 0.05
"""Error rate at which policies count as different in the letters, after Holm's correction."""


@dataclass(frozen=True)
class Contrast:
    """The first policy against the second.

    counts: of the pairs; None when the episodes are no pairs. episodes: of each that the comparison rests on.
    difference: first minus second, in [-1, 1], with its 95 % interval. p: of the exact test called ``test``;
    mid_p: of McNemar's mid-P test, None for no pairs. adjusted_p: p with Holm's correction over the contrasts of the
    same table. probability: P(first > second).
    """

    first: str
    second: str
    counts: PairCounts | None
    episodes: tuple[int, int]
    difference: float
    interval: Interval
    test: Literal["McNemar", "Boschloo", "Fisher"]
    p: float
    probability: float
    mid_p: float | None = None
    adjusted_p: float = 1.0


def pair_counts(first: ComparedRun, second: ComparedRun, states: int | None = None) -> PairCounts:
    """Return the outcomes of the episodes of the same task and initial state that both finished.

    states: counts only that many of each task's initial states, the first ones; None counts all.
    """
    theirs = _successes(second)
    pairs = [
        (won, theirs[start])
        for start, won in _successes(first).items()
        if start in theirs and (states is None or start[1] < states)
    ]
    return PairCounts(
        both=pairs.count((True, True)),
        first_only=pairs.count((True, False)),
        second_only=pairs.count((False, True)),
        neither=pairs.count((False, False)),
    )


def pooled_pairs(shared: Iterable[tuple[ComparedRun, ComparedRun]], states: int | None = None) -> PairCounts:
    """Return the outcomes of the pairs of several suites together; ``states`` as for ``pair_counts``."""
    parts = [pair_counts(first, second, states) for first, second in shared]
    return PairCounts(*(sum(getattr(part, field.name) for part in parts) for field in fields(PairCounts)))


def contrasts(
    policies: Sequence[tuple[str, Sequence[ComparedRun]]], baseline: str | None = None
) -> tuple[list[Contrast], bool]:
    """Return the contrast of every two policies, or of each with ``baseline``, which is then the second.

    policies: name and runs; the runs of two policies on the same suites are taken together. Two that share no suite
    are left out, and the flag says whether every two (or each and the baseline) could be compared.
    """
    if baseline is None:
        chosen = list(combinations(policies, 2))
    else:
        against = next(policy for policy in policies if policy[0] == baseline)
        chosen = [(policy, against) for policy in policies if policy is not against]
    made = [made for one, other in chosen if (made := _contrast(one, other)) is not None]
    adjusted = holm([contrast.p for contrast in made])
    found = [replace(contrast, adjusted_p=p) for contrast, p in zip(made, adjusted, strict=True)]
    return found, len(made) == len(chosen)


def letters(ranked: Sequence[str], found: Iterable[Contrast]) -> dict[str, str]:
    """Return policy -> letters, for policies from best to worst: who shares none differs at 5 %."""
    number = {name: index for index, name in enumerate(ranked)}
    different = [(number[one.first], number[one.second]) for one in found if one.adjusted_p <= LEVEL]
    return dict(zip(ranked, compact_letters(len(ranked), different), strict=True))


def _contrast(one: tuple[str, Sequence[ComparedRun]], other: tuple[str, Sequence[ComparedRun]]) -> Contrast | None:
    shared = [(a, b) for a in one[1] for b in other[1] if a.suite == b.suite]
    if not shared:
        return None
    names = one[0], other[0]
    if all(same_starting_states(a, b) for a, b in shared):
        counts = pooled_pairs(shared)
        if counts.pairs:
            return Contrast(
                *names,
                counts,
                (counts.pairs, counts.pairs),
                counts.difference,
                paired_interval(counts),
                "McNemar",
                mcnemar_p(counts),
                paired_probability_better(counts),
                mcnemar_mid_p(counts),
            )
    first, second = _pooled(a for a, _ in shared), _pooled(b for _, b in shared)
    quick = max(first[1], second[1]) <= BOSCHLOO_TRIALS
    return Contrast(
        *names,
        None,
        (first[1], second[1]),
        first[0] / first[1] - second[0] / second[1],
        unpaired_interval(first, second),
        "Boschloo" if quick else "Fisher",
        boschloo_p(first, second) if quick else fisher_p(first, second),
        unpaired_probability_better(first, second),
    )


def _pooled(runs: Iterable[ComparedRun]) -> tuple[int, int]:
    counts = [run.count for run in runs]
    return sum(k for k, _ in counts), sum(n for _, n in counts)


def _successes(run: ComparedRun) -> dict[tuple[int, int], bool]:
    return {
        (result.key.task_id, result.key.initial_state): result.outcome == "success"
        for result in run.recorded.results
        if result.outcome != "error"
    }
