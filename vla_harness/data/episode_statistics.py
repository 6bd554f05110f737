"""The statistics that lerobot stores for each episode, and merges when it opens a dataset.

Sources: huggingface/lerobot ``datasets/compute_stats.py`` at v2.1 (0.3.3) and v3.0 (0.4.4, 0.6.1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .files import read_json_lines, read_table

if TYPE_CHECKING:
    from .dataset import Dataset, Episode
    from .features import Feature

IMAGE_SIDE = 64
"""Pixels that an image is thinned to, about, for its statistics."""
SAMPLED_FRAMES = 32
"""Frames of a copied episode that its image statistics are taken from, where none are stored."""
QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
"""Stored in v3.0 beside the others; lerobot goes on recording only where all episodes have the same ones."""
BASIC = ("min", "max", "mean", "std")
"""Stored in every version, with the count."""


class ImageStatistics:
    """Statistics of an episode's images by channel, of values in [0, 1]."""

    def __init__(self) -> None:
        self.count = 0
        self._histograms = np.zeros((3, 256), np.int64)

    def add(self, image: np.ndarray) -> None:
        """Take in one (H, W, 3) uint8 image."""
        step = max(1, min(image.shape[:2]) // IMAGE_SIDE)
        thinned = image[::step, ::step]
        self.count += 1
        for channel, histogram in enumerate(self._histograms):
            histogram += np.bincount(thinned[..., channel].reshape(-1), minlength=256)

    def result(self) -> dict[str, Any]:
        """Return lerobot's entry, quantiles included: (3, 1, 1) lists, and the number of images."""
        levels = np.arange(256) / 255
        seen = self._histograms > 0
        pixels = self._histograms[0].sum()
        mean = self._histograms @ levels / pixels
        found = {
            "min": levels[seen.argmax(axis=1)],
            "max": levels[255 - seen[:, ::-1].argmax(axis=1)],
            "mean": mean,
            "std": np.sqrt(np.maximum(0, self._histograms @ levels**2 / pixels - mean**2)),
        }
        shares = self._histograms.cumsum(axis=1) / pixels
        found |= {name: levels[(shares >= share).argmax(axis=1)] for name, share in QUANTILES.items()}
        return {name: value.reshape(3, 1, 1).tolist() for name, value in found.items()} | {"count": [self.count]}


def column_statistics(column: np.ndarray, version: str) -> dict[str, Any]:
    """Return lerobot's entry of (rows, …) numbers: min, max, mean, std (population), count, in v3.0 quantiles too.

    v2.1 has them for each entry of a row's value, v3.0 for each place of its last axis.
    """
    count = [len(column)]
    rows = column.reshape(len(column), *(column.shape[1:] or (1,))).astype(np.float64)
    if version == "v3.0":
        rows = rows.reshape(-1, rows.shape[-1])
    found = {name: getattr(rows, name)(axis=0).tolist() for name in BASIC}
    if version == "v3.0":
        quantiles = np.quantile(rows, list(QUANTILES.values()), axis=0)
        found |= dict(zip(QUANTILES, quantiles.tolist(), strict=True))
    return found | {"count": count}


def numeric_statistics(columns: Mapping[str, Any], version: str) -> dict[str, Any]:
    """Return ``column_statistics`` of each column of numbers."""
    arrays = {name: np.asarray(column) for name, column in columns.items()}
    return {name: column_statistics(array, version) for name, array in arrays.items() if array.dtype.kind in "biuf"}


def statistic_shapes(feature: Feature, version: str) -> tuple[tuple[int, ...], ...]:
    """Return the shapes that lerobot of ``version`` writes a feature's statistics in, the preferred one first."""
    if feature.is_visual:
        return (
            ((1, 1, 1), (3, 1, 1)) if feature.is_depth else ((3, 1, 1),)
        )  # lerobot up to 0.4 knew three channels only
    if version == "v2.1":
        return (feature.shape,)
    return ((feature.shape[-1],), feature.shape)  # lerobot's own conversion keeps those of v2.1


def image_statistics(episode: Episode, camera: str) -> dict[str, Any]:
    """Return lerobot's entry of an episode's images: the stored one, completed from a sample of frames."""
    stored = episode.dataset.image_statistics.get(episode.index, {}).get(camera, {})
    if stored.keys() >= {*BASIC, *QUANTILES, "count"}:
        return dict(stored)
    found = ImageStatistics()
    rows = np.unique(np.linspace(0, episode.length - 1, SAMPLED_FRAMES).round().astype(int)).tolist()
    raw = episode.raw_images(camera, rows)
    if episode.dataset.features[camera].is_depth:
        return _number_statistics(np.stack(raw).reshape(-1, 1), len(raw)) | dict(stored)  # in the stored unit
    images = [_three_channels(image) for image in raw]
    if any(image.dtype != np.uint8 for image in images):
        # They are no 8-bit colors, and lerobot divides them by 255 all the same.
        return _number_statistics(np.stack(images).reshape(-1, 3) / 255, len(images)) | dict(stored)
    for image in images:
        found.add(image)
    return found.result() | dict(stored)


def _three_channels(image: np.ndarray) -> np.ndarray:
    """Return (H, W, 3) of (H, W[, C]): what lerobot stores statistics of, gray repeated and alpha left out."""
    channels = image.reshape(*image.shape[:2], -1)
    return channels[..., :3] if channels.shape[2] >= 3 else np.repeat(channels[..., :1], 3, axis=2)


def _number_statistics(pixels: np.ndarray, count: int) -> dict[str, Any]:
    """Return lerobot's entry of (n, channels) ``pixels`` of ``count`` images."""
    pixels = pixels.astype(np.float64)
    found = {name: getattr(pixels, name)(axis=0) for name in BASIC}
    found |= dict(zip(QUANTILES, np.quantile(pixels, list(QUANTILES.values()), axis=0), strict=True))
    return {name: value.reshape(-1, 1, 1).tolist() for name, value in found.items()} | {"count": [count]}


def merged_image_statistics(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the entry of all images together, as lerobot merges those of episodes: weighted by their counts."""
    arrays = {name: np.array([entry[name] for entry in entries], np.float64) for name in (*BASIC, *QUANTILES)}
    counts = np.array([entry["count"][0] for entry in entries], np.float64).reshape(-1, 1, 1, 1)

    def averaged(values: np.ndarray) -> np.ndarray:
        return np.asarray((values * counts).sum(axis=0) / counts.sum())

    mean = averaged(arrays["mean"])
    found = {
        "min": arrays["min"].min(axis=0),
        "max": arrays["max"].max(axis=0),
        "mean": mean,
        "std": np.sqrt(averaged(arrays["std"] ** 2 + (arrays["mean"] - mean) ** 2)),
        **{name: averaged(arrays[name]) for name in QUANTILES},
    }
    return {name: value.tolist() for name, value in found.items()} | {"count": [int(counts.sum())]}


def read_image_statistics(dataset: Dataset) -> dict[int, dict[str, dict[str, Any]]]:
    """Return episode_index -> camera -> lerobot's entry, as far as they are stored and whole."""
    found = {}
    for number, entries in _stored(dataset.path, dataset.version):
        if not isinstance(number, int):
            continue
        whole = {camera: _whole(entries.get(camera), dataset.features[camera]) for camera in dataset.cameras}
        found[number] = {camera: entry for camera, entry in whole.items() if entry}
    return found


def _stored(root: Path, version: str) -> list[tuple[Any, Mapping[str, Any]]]:
    if version.startswith("v3."):
        rows = [
            row for path in sorted((root / "meta/episodes").glob("*/*.parquet")) for row in read_table(path).to_pylist()
        ]
        return [(row.get("episode_index"), nested_statistics(row)) for row in rows]
    path = root / "meta/episodes_stats.jsonl"
    lines = read_json_lines(path) if path.exists() else []  # v2.0 has none
    return [(row.get("episode_index"), row["stats"]) for row in lines if isinstance(row.get("stats"), Mapping)]


def nested_statistics(row: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return feature -> statistic -> value of the "stats/…" columns of v3.0's tables of episodes."""
    found: dict[str, dict[str, Any]] = {}
    for key, value in row.items():
        if key.startswith("stats/") and key.count("/") >= 2:
            name, _, statistic = key.removeprefix("stats/").rpartition("/")
            found.setdefault(name, {})[statistic] = value
    return found


def _whole(entry: Any, feature: Feature) -> dict[str, Any]:
    """Return the statistics of ``entry`` by lerobot's names; {} unless the basic ones and the count are there."""
    if not isinstance(entry, Mapping):
        return {}
    shape = next((s for s in statistic_shapes(feature, "v3.0") if _is_array(entry.get("mean"), s)), ())
    known = {name: entry[name] for name in (*BASIC, *QUANTILES) if _is_array(entry.get(name), shape)}
    if not (known.keys() >= set(BASIC) and _is_array(entry.get("count"), (1,)) and entry["count"][0] > 0):
        return {}
    return known | {"count": entry["count"]}


def _is_array(value: Any, shape: tuple[int, ...]) -> bool:
    try:
        array = np.array(value, np.float64)
    except (TypeError, ValueError):
        return False
    return array.shape == shape and bool(np.isfinite(array).all())
