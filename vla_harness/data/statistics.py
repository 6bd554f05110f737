"""Statistics of features, for normalising: read from meta/stats.json, or computed from all frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UserError
from .features import Feature
from .files import read_json

if TYPE_CHECKING:
    from .dataset import Dataset

Statistics = dict[str, dict[str, np.ndarray]]
NAMES = ("max", "min", "mean", "std", "q01", "q99")
"""The statistics of GR00T's stats.json."""


def describe(values: np.ndarray) -> dict[str, np.ndarray]:
    """Return the statistics of (frames, …) ``values``, each (D,) float64; std over the population, quantiles linear."""
    flat = values.reshape(len(values), -1).astype(np.float64)
    q01, q99 = np.quantile(flat, (0.01, 0.99), axis=0)
    found = (flat.max(axis=0), flat.min(axis=0), flat.mean(axis=0), flat.std(axis=0), q01, q99)
    return dict(zip(NAMES, found, strict=True))


def compute_statistics(dataset: Dataset, names: Sequence[str]) -> Statistics:
    """Return the statistics of the features ``names`` over all frames. Raises UserError for NaN."""
    columns = [dataset.episode(i).columns for i in range(len(dataset.episodes))]
    found = {}
    for name in names:
        if all(name in one for one in columns):
            values = np.concatenate([one[name] for one in columns])
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise UserError(f"{dataset.path} holds values of {name} that are no finite numbers: mend or drop them.")
            found[name] = describe(values)
    return found


def read_statistics(root: Path, features: Mapping[str, Feature]) -> Statistics:
    """Return what meta/stats.json says of the features that are no images; {} where there is no such file.

    A feature without all of GR00T's statistics is left out, to be computed; so is one of several axes, of which
    lerobot's v3.0 keeps the last alone. Raises UserError for lists of another length than the feature's.
    """
    path = root / "meta" / "stats.json"
    if not path.exists():
        return {}
    stored, found = read_json(path), {}
    for name, feature in features.items():
        entry = stored.get(name)
        if feature.is_visual or not isinstance(entry, Mapping) or not set(NAMES) <= set(entry):
            continue
        if len(feature.shape) > 1 and _is_flat(entry["mean"], feature.shape[-1]):
            continue
        numbers = {one: _numbers(entry[one], feature, f"{path} ({name}.{one})") for one in NAMES}
        if (numbers["min"] > numbers["max"]).any() or (numbers["std"] < 0).any():
            raise UserError(
                f"{path} has a min of {name} above its max, or a std below 0: delete the file to have it computed."
            )
        found[name] = numbers
    return found


def _is_flat(value: Any, length: int) -> bool:
    return isinstance(value, list) and len(value) == length and not any(isinstance(one, list) for one in value)


def _numbers(value: Any, feature: Feature, what: str) -> np.ndarray:
    try:
        numbers = np.asarray(value, np.float64).reshape(-1)
    except (TypeError, ValueError):
        raise UserError(f"{what} is no list of numbers: mend it, or delete the file to have it computed.") from None
    if len(numbers) != feature.size:
        raise UserError(
            f"{what} has {len(numbers)} numbers, the feature {feature.size}: delete the file to have it computed."
        )
    if not np.isfinite(numbers).all():
        raise UserError(f"{what} has values that are no finite numbers: delete the file to have it computed.")
    return numbers
