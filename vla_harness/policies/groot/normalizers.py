"""Normalisation of states and actions by a dataset's statistics, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

MODES = {
    "min_max": ("min", "max"),
    "q99": ("q01", "q99"),
    "mean_std": ("mean", "std"),
    "scale": ("min", "max"),
    "binary": (),
}
"""Mode -> the statistics that it needs."""

Statistics = Mapping[str, Sequence[float]]
"""Name of a statistic ("min", "max", "mean", "std", "q01", "q99") -> one number per entry."""


@dataclass(frozen=True)
class Normalizer:
    """One mode with its statistics. Numbers keep their dtype, in which all is computed.

    min_max: min..max to -1..1, not clipped; 0 where min equals max. q99: q01..q99 to -1..1, clipped; raw (and then
    clipped) where they are equal. mean_std: to mean 0 and deviation 1; raw where the deviation is 0. scale: divided by
    the largest magnitude. binary: 1 above 0.5, else 0.
    """

    mode: str
    statistics: Statistics

    def normalise(self, x: np.ndarray) -> np.ndarray:
        """x: (..., D). Returns (..., D) of the same dtype."""
        if self.mode == "binary":
            return (x > 0.5).astype(x.dtype)
        low, high = self._pair(x.dtype)
        if self.mode == "mean_std":
            return np.where(high != 0, (x - low) / _divisor(high), x)
        if self.mode == "scale":
            largest = np.maximum(np.abs(low), np.abs(high))
            return np.where(largest != 0, x / _divisor(largest), 0).astype(x.dtype)
        scaled = 2 * ((x - low) / _divisor(high - low)) - 1
        if self.mode == "q99":
            return np.clip(np.where(high != low, scaled, x), -1, 1)
        return np.where(high != low, scaled, 0).astype(x.dtype)

    def restore(self, x: np.ndarray) -> np.ndarray:
        """x: (..., D) normalised. Returns (..., D) in the dataset's units, not clipped.

        Raises ValueError for the mode scale, which the reference cannot undo either.
        """
        if self.mode == "binary":
            return (x > 0.5).astype(x.dtype)
        low, high = self._pair(x.dtype)
        if self.mode == "mean_std":
            return x * high + low
        if self.mode == "scale":
            raise ValueError("the mode scale has no inverse")
        return (x + 1) / 2 * (high - low) + low

    def _pair(self, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
        first, second = MODES[self.mode]
        return np.asarray(self.statistics[first], dtype), np.asarray(self.statistics[second], dtype)


def _divisor(x: np.ndarray) -> np.ndarray:
    """Return ``x`` with ones for zeros: what is divided by those is not used."""
    return np.where(x == 0, np.ones_like(x), x)
