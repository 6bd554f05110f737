"""Batches of sentences of similar length, so that little of a batch is padding."""

from __future__ import annotations

import random
from collections.abc import Sequence

POOL = 50  # batches that are sorted together: longer pools pad less, shorter ones mix more


def bucketed_batches(lengths: Sequence[tuple[int, int]], batch_size: int, seed: int) -> list[list[int]]:
    """Return the indices of all sentences in batches, shuffled by ``seed``; the number of batches never varies.

    lengths: of each sentence's source and target.
    """
    draw = random.Random(seed)
    order = list(range(len(lengths)))
    draw.shuffle(order)
    batches = []
    for start in range(0, len(order), POOL * batch_size):
        pool = sorted(order[start : start + POOL * batch_size], key=lambda i: (lengths[i][1], lengths[i][0]))
        batches += [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
    draw.shuffle(batches)
    return batches
