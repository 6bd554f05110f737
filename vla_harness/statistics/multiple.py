"""More than two policies: p-values that stay honest in number, and letters that show who differs from whom.

Sources: Holm 1979 (Scand. J. Statist. 6:65-70); Piepho 2004 (J. Comput. Graph. Statist. 13:456-466), insert and absorb.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from string import ascii_letters


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values, in the order given: reject where one is at most the wanted error rate.

    The chance of any false rejection among them is then at most that rate, however the tests depend on each other.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def compact_letters(count: int, different: Iterable[tuple[int, int]]) -> list[str]:
    """Return letters for ``count`` policies: two share a letter exactly if they are not in ``different``.

    different: pairs (i, j) of policies that differ significantly. Give the policies from best to worst, so that "a" is
    the best one's.
    """
    columns: list[frozenset[int]] = [frozenset(range(count))]
    for i, j in different:
        split: list[frozenset[int]] = []
        for column in columns:
            split += [column - {i}, column - {j}] if {i, j} <= column else [column]
        kept: list[frozenset[int]] = []
        for column in sorted(set(split), key=len, reverse=True):
            if not any(column <= other for other in kept):
                kept.append(column)
        columns = kept
    columns.sort(key=sorted)
    letters = [""] * count
    for number, column in enumerate(columns):
        for policy in column:
            letters[policy] += ascii_letters[number]
    return letters
