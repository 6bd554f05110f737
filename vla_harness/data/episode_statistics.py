"""The statistics that lerobot stores for each episode, and merges when it opens a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

IMAGE_SIDE = 64
"""Pixels that an image is thinned to, about, for its statistics."""


class ImageStatistics:
    """Statistics of an episode's images by channel, of values in [0, 1]."""

    def __init__(self) -> None:
        self.count = 0
        self._pixels = 0
        self._sum, self._squares = np.zeros(3), np.zeros(3)
        self._low, self._high = np.full(3, 255), np.zeros(3, int)

    def add(self, image: np.ndarray) -> None:
        """Take in one (H, W, 3) uint8 image."""
        step = max(1, min(image.shape[:2]) // IMAGE_SIDE)
        pixels = image[::step, ::step].reshape(-1, 3).astype(np.int64)
        self.count += 1
        self._pixels += len(pixels)
        self._sum += pixels.sum(axis=0)
        self._squares += (pixels**2).sum(axis=0)
        self._low, self._high = np.minimum(self._low, pixels.min(axis=0)), np.maximum(self._high, pixels.max(axis=0))

    def result(self) -> dict[str, Any]:
        """Return lerobot's entry: (3, 1, 1) lists, and the number of images."""
        mean = self._sum / self._pixels
        std = np.sqrt(np.maximum(0, self._squares / self._pixels - mean**2))
        found = {"min": self._low, "max": self._high, "mean": mean, "std": std}
        return {name: (value / 255).reshape(3, 1, 1).tolist() for name, value in found.items()} | {
            "count": [self.count]
        }


def episode_statistics(columns: Mapping[str, Any], images: Mapping[str, ImageStatistics]) -> dict[str, Any]:
    """Return the entry of meta/episodes_stats.jsonl: min, max, mean, std (population) and count of each feature."""
    found: dict[str, Any] = {}
    for name, column in columns.items():
        values = np.asarray(column)
        if values.dtype.kind not in "biuf":
            continue
        rows = values.reshape(len(values), -1).astype(np.float64)
        found[name] = {
            "min": rows.min(axis=0).tolist(),
            "max": rows.max(axis=0).tolist(),
            "mean": rows.mean(axis=0).tolist(),
            "std": rows.std(axis=0).tolist(),
            "count": [len(rows)],
        }
    return found | {name: image.result() for name, image in images.items()}
