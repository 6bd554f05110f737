"""Taking in the frames of one episode, each checked against the dataset's features."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from ..errors import UserError
from ..video import VideoWriter
from .episode_statistics import ImageStatistics
from .features import BOOKKEEPING, Feature


class EpisodeWriter:
    """The episode under way."""

    def __init__(self, features: Mapping[str, Feature], task: str, videos: Mapping[str, VideoWriter]) -> None:
        self.features = {name: feature for name, feature in features.items() if name not in BOOKKEEPING}
        self.words: list[str] = []
        self._task, self._videos = task, videos
        self._values: dict[str, list[Any]] = {n: [] for n, f in self.features.items() if f.dtype != "video"}
        self._images = {name: ImageStatistics() for name, f in self.features.items() if f.is_visual}

    @property
    def length(self) -> int:
        """Frames so far."""
        return len(self.words)

    def add(self, frame: Mapping[str, Any], task: str | None = None) -> None:
        """Append one frame: a value for each feature; images (H, W, 3) uint8. task: where it is not the episode's.

        Raises UserError for missing or unknown features, wrong shapes, and numbers that are not finite.
        """
        if frame.keys() != self.features.keys():
            odd = sorted(frame.keys() ^ self.features.keys())
            raise UserError(f"A frame has other features than the dataset ({', '.join(odd)}): give each of them once.")
        values = {name: _checked(value, self.features[name], name) for name, value in frame.items()}
        for name, value in values.items():
            if self.features[name].is_visual:
                self._images[name].add(value)
            if name in self._videos:
                self._videos[name].add(value)
            else:
                self._values[name].append(png_bytes(value) if self.features[name].dtype == "image" else value)
        self.words.append(self._task if task is None else task)

    def contents(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the columns but the bookkeeping ones, and lerobot's entries of the images' statistics."""
        return dict(self._values), {name: found.result() for name, found in self._images.items()}


def _checked(value: Any, feature: Feature, name: str) -> Any:
    if feature.dtype == "string":
        return str(value)
    array = np.asarray(value, np.uint8 if feature.is_visual else feature.dtype)
    if feature.shape == (1,) and array.shape == ():
        array = array.reshape(1)
    if array.shape != feature.shape or (feature.is_visual and np.asarray(value).dtype != np.uint8):
        raise UserError(
            f"{name} is {np.shape(value)} in a frame, and the dataset says {feature.shape} {feature.dtype}."
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise UserError(f"{name} holds {array[~np.isfinite(array)][0]} in a frame: give finite numbers.")
    return array


def png_bytes(image: np.ndarray) -> bytes:
    """Return the (H, W, 3) uint8 image as PNG, compressed for speed."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
