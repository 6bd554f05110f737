"""Action tokens to robot actions: the bins, the training data's statistics, and which of them apply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...checkpoints import Checkpoint, Fields
from ...errors import CheckpointError, UserError
from .configuration import OpenVLAConfig

STATISTICS = "dataset_statistics.json"


@dataclass(frozen=True)
class Bounds:
    """The 1st and 99th percentile of each entry in the training data, float64; what ``mask`` leaves out stays raw."""

    low: np.ndarray
    high: np.ndarray
    mask: np.ndarray

    @classmethod
    def of(cls, statistics: Mapping[str, Any] | Fields, count: int | None = None) -> Bounds:
        """Return the bounds in one part ("action" or "proprio") of a data set's statistics.

        count: how many entries it must have. Raises CheckpointError for a list of another length, or anything in it but
        finite numbers.
        """
        part = statistics if isinstance(statistics, Fields) else Fields(statistics, "The statistics")
        low, high = part.numbers("q01", count), part.numbers("q99", count)
        if len(low) != len(high):
            part.refuse("q99", f"a list of {len(low)} finite numbers")
        if any(above < below for below, above in zip(low, high, strict=True)):
            part.refuse("q99", "no number below that of q01")
        mask = part.flags("mask", len(low), [True] * len(low))
        return cls(np.array(low, np.float64), np.array(high, np.float64), np.array(mask, bool))

    def unnormalise(self, actions: np.ndarray, slack: float = 0.0) -> np.ndarray:
        """Return (..., D) float64 in the data's units of (..., D) in [-1, 1]; slack: added to the bounds' distance."""
        return np.where(self.mask, 0.5 * (actions + 1) * (self.high - self.low + slack) + self.low, actions)

    def normalise(self, values: np.ndarray) -> np.ndarray:
        """Return (..., D) float64 in [-1, 1] of values in the data's units; what lies beyond is cut off."""
        scaled = 2 * (values - self.low) / (self.high - self.low + 1e-8) - 1
        return np.clip(np.where(self.mask, scaled, values), -1.0, 1.0)


def read_statistics(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return key -> statistics: of ``dataset_statistics.json`` where there is one, else those in ``config.json``."""
    found = statistics_fields(checkpoint).content
    if not found:
        raise CheckpointError(
            f"{checkpoint.name} has no {STATISTICS} and no norm_stats in config.json: give one that has."
        )
    return dict(found)


def statistics_fields(checkpoint: Checkpoint) -> Fields:
    """Return the same for typed reading; empty where the checkpoint has none."""
    if checkpoint.has(STATISTICS):
        return checkpoint.fields(STATISTICS)
    return checkpoint.fields("config.json").section("norm_stats", optional=True)


def choose_key(statistics: Mapping[str, Any], wanted: str | None) -> str:
    """Return the key of the statistics: ``wanted``, else ``wanted`` with "_no_noops", or for None the only one.

    Raises UserError that lists the keys there are.
    """
    keys = sorted(statistics)
    if wanted is None:
        if len(keys) == 1:
            return keys[0]
        raise UserError(
            f"The checkpoint was trained on several data sets: give --unnorm-key, one of {', '.join(keys)}."
        )
    for key in (wanted, f"{wanted}_no_noops"):
        if key in statistics:
            return key
    raise UserError(f"The checkpoint has no statistics for {wanted!r}: give --unnorm-key, one of {', '.join(keys)}.")


def token_values(tokens: np.ndarray | Sequence[int], config: OpenVLAConfig) -> np.ndarray:
    """Return (...,) float64 in [-1, 1] of token ids: the last ids of the vocabulary are the bins' centres, backwards.

    Any other id counts as the nearest bin, as in the reference.
    """
    edges = np.linspace(-1, 1, config.bins)
    centers = (edges[:-1] + edges[1:]) / 2.0
    return centers[np.clip(config.first_padding - np.asarray(tokens) - 1, 0, len(centers) - 1)]


def value_tokens(values: np.ndarray, config: OpenVLAConfig) -> np.ndarray:
    """Return the int64 token ids (...,) of values in [-1, 1], as training labels are made; beyond is cut off."""
    edges = np.linspace(-1, 1, config.bins)
    return config.first_padding - np.digitize(np.clip(values, -1.0, 1.0), edges)


def libero_gripper(actions: np.ndarray) -> np.ndarray:
    """Return (..., 7) with the gripper, in the data 1 open and 0 closed, as LIBERO takes it: -1 open, 1 closed."""
    turned = actions.copy()
    turned[..., -1] = -np.sign(2 * actions[..., -1] - 1)
    return turned
