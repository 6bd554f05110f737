"""Which rows of which episodes a training sees, in an order that any process can work out for itself."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from itertools import accumulate
from typing import Generic, TypeVar

import torch

from ..data import Dataset, Episode

Batch = TypeVar("Batch")


class Rows:
    """Every row of a dataset, in an endless stream of shuffled passes."""

    def __init__(self, dataset: Dataset, seed: int) -> None:
        self.dataset, self.seed = dataset, seed
        self._ends = list(accumulate(record.length for record in dataset.episodes))

    def place(self, position: int) -> tuple[Episode, int]:
        """Return the episode and the row at ``position`` of the stream."""
        turn, at = divmod(position, self._ends[-1])
        number = shuffled(self._ends[-1], self.seed + turn)[at]
        episode = bisect_right(self._ends, number)
        return self.dataset.episode(episode), number - (self._ends[episode - 1] if episode else 0)


@lru_cache(maxsize=2)  # a batch touches one pass over the rows, or two
def shuffled(count: int, seed: int) -> list[int]:
    """Return 0 … count - 1 in a random order."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()


def generator_of(seed: int, position: int) -> torch.Generator:
    """Return the generator of one position's draws, the same in whichever process and after any resume."""
    return torch.Generator().manual_seed((seed * 0x9E3779B97F4A7C15 + position) % 2**63)


class Prefetcher(Generic[Batch]):
    """Makes the batch that comes after the one asked for in the background.

    The indices of a step's share are those of the step before plus the size of the global batch.
    """

    def __init__(self, make: Callable[[Sequence[int]], Batch], batch_size: int) -> None:
        self._make, self._step = make, batch_size
        self._pool = ThreadPoolExecutor(1)
        self._coming: dict[tuple[int, ...], Future[Batch]] = {}

    def __call__(self, indices: Sequence[int]) -> Batch:
        """Return the batch of ``indices``."""
        wanted = tuple(indices)
        future = self._coming.pop(wanted, None)
        self._coming.clear()
        batch = self._make(wanted) if future is None else future.result()
        following = tuple(index + self._step for index in wanted)
        self._coming[following] = self._pool.submit(self._make, following)
        return batch

    def close(self) -> None:
        """Stop the background work."""
        self._pool.shutdown(wait=True, cancel_futures=True)
