"""The interface of what reads a dataset's values, whatever the format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np


class Storage(Protocol):
    """Where the values of a dataset lie; ``episode`` is a position in the dataset's list."""

    def columns(self, episode: int) -> Mapping[str, np.ndarray]:
        """Return every column but the visual ones, (length, …)."""
        ...

    def images(self, episode: int, camera: str, rows: Sequence[int]) -> np.ndarray:
        """Return (n, height, width, 3) uint8."""
        ...

    def raw_images(self, episode: int, camera: str, rows: Sequence[int]) -> list[np.ndarray]:
        """Return the images as they are stored, (height, width[, channels]) of any dtype; videos decoded."""
        ...

    def has_colors(self, episode: int, camera: str) -> bool:
        """Return whether the first frame is of colors, and no depth."""
        ...

    def check_frames(self, episode: int, camera: str) -> None:
        """Raise UserError unless each row has a frame of its own, as far as that shows without decoding."""
        ...
