"""A dataset of demonstrations, however it is stored: features, episodes, statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from .episode_statistics import read_image_statistics
from .features import Feature
from .lerobot import EpisodeRecord
from .lerobot_storage import LeRobotStorage
from .modality import Modality, default_modality
from .statistics import Statistics, compute_statistics, read_statistics
from .storage import Storage
from .validation import column_faults

LEROBOT_TOLERANCE_S = 1e-4
"""Most that a row's timestamp may differ from its frame's in lerobot."""


@dataclass(frozen=True)
class Dataset:
    """Demonstrations. Made by ``open_dataset``.

    version: "v2.0", "v2.1" or "v3.0" of LeRobot, or "hdf5". cameras: the visual features that have frames.
    tasks: task_index -> words. own_modality: what the dataset says of itself in GR00T's terms, if anything.
    left_out: features that cannot be read, in words. notices: what one must know who trains on it. source, revision:
    name and commit on the hub, if it is from there. translation: what is turned into the harness's terms as it is read
    (see ``conventions``), in words; "" if nothing is.
    """

    path: Path
    version: str
    fps: float
    robot_type: str
    features: Mapping[str, Feature]
    cameras: tuple[str, ...]
    tasks: Mapping[int, str]
    episodes: tuple[EpisodeRecord, ...]
    storage: Storage
    own_modality: Modality | None = None
    info: Mapping[str, Any] | None = None
    source: str | None = None
    revision: str | None = None
    translation: str = ""
    notices: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its folder's or file's name."""
        return Path(self.source or self.path).name

    @property
    def kind(self) -> str:
        """The format, in words."""
        return "LIBERO's HDF5 demonstrations" if self.version == "hdf5" else f"LeRobot {self.version}"

    @property
    def frames(self) -> int:
        """Frames of all episodes."""
        return sum(record.length for record in self.episodes)

    def episode(self, position: int) -> Episode:
        """Return the episode at ``position`` of ``episodes``."""
        return Episode(self, position, self.episodes[position])

    @cached_property
    def has_instructions(self) -> bool:
        """Whether any task has words; where none has, an episode's instruction is ""."""
        words = self.tasks.values() if self.tasks else (text for record in self.episodes for text in record.tasks)
        return any(text.strip() for text in words)

    @cached_property
    def valid_episodes(self) -> set[int]:
        """Positions of the episodes whose columns were found to be in order."""
        return set()

    @cached_property
    def modality(self) -> Modality:
        """The parts of state and action, by GR00T's meta/modality.json, or else one part for each feature."""
        return self.own_modality or default_modality(self.features, self.cameras)

    @cached_property
    def statistics(self) -> Statistics:
        """Feature -> statistic -> (D,) float64: those in meta/stats.json, and computed ones for what it lacks."""
        known = {} if self.translation else read_statistics(self.path, self.features)
        missing = [
            name
            for name, feature in self.features.items()
            if not feature.is_visual and feature.dtype not in ("string", "language") and name not in known
        ]
        return known | compute_statistics(self, missing) if missing else known

    @cached_property
    def image_statistics(self) -> Mapping[int, Mapping[str, Mapping[str, Any]]]:
        """episode_index -> camera -> lerobot's statistics of the stored frames, where the dataset has them."""
        return read_image_statistics(self) if isinstance(self.storage, LeRobotStorage) else {}


class Episode:
    """One episode; its values are read when they are asked for."""

    def __init__(self, dataset: Dataset, position: int, record: EpisodeRecord) -> None:
        self.dataset, self.position = dataset, position
        self.index, self.length, self.tasks = record.index, record.length, record.tasks

    def __len__(self) -> int:
        return self.length

    @property
    def columns(self) -> Mapping[str, np.ndarray]:
        """Every column but the visual ones, (length, *shape), and (length,) for the shape (1,).

        Raises UserError for values that cannot be meant; see ``validation``.
        """
        columns = self.dataset.storage.columns(self.position)
        if self.position not in self.dataset.valid_episodes:
            if fault := next(column_faults(self, columns), None):
                raise UserError(fault)
            self.dataset.valid_episodes.add(self.position)
        return columns

    def column(self, name: str) -> np.ndarray:
        """Return one column. Raises UserError where there is none."""
        columns = self.columns
        if name not in columns:
            raise UserError(
                f"Episode {self.index} of {self.dataset.path} has no column {name!r} (it has: {', '.join(columns)})."
            )
        return columns[name]

    @property
    def timestamps(self) -> np.ndarray:
        """(length,) float64 seconds; rows over fps where none are stored."""
        columns = self.columns
        if "timestamp" in columns:
            return columns["timestamp"].astype(np.float64)
        return np.arange(self.length) / self.dataset.fps

    @property
    def regular_timestamps(self) -> np.ndarray:
        """The timestamps as lerobot wants them, rows over fps: the stored ones where they are that already."""
        regular, stored = np.arange(self.length) / self.dataset.fps, self.timestamps
        return stored if np.abs(stored - regular).max() < LEROBOT_TOLERANCE_S else regular

    def images(self, camera: str, rows: Sequence[int]) -> np.ndarray:
        """Return (n, height, width, 3) uint8: the frames of ``rows``. Raises UserError for an unknown camera."""
        if camera not in self.dataset.cameras:
            known = ", ".join(self.dataset.cameras) or "none"
            raise UserError(f"{self.dataset.path} has no camera {camera!r} (it has: {known}): name one of these.")
        _ = self.columns  # reading checks them, the timestamps above all
        return self.dataset.storage.images(self.position, camera, rows)

    def raw_images(self, camera: str, rows: Sequence[int]) -> list[np.ndarray]:
        """Return the frames of ``rows`` as they are stored: depth and alpha are kept."""
        return self.dataset.storage.raw_images(self.position, camera, rows)

    def has_colors(self, camera: str) -> bool:
        """Return whether the first frame is of colors, and no depth."""
        return self.dataset.storage.has_colors(self.position, camera)

    @property
    def task_numbers(self) -> np.ndarray:
        """(length,) int64 task_index of each row; by the words in the metadata where the rows have none.

        Raises UserError where these words are no task of the dataset.
        """
        columns = self.columns
        if "task_index" in columns:
            return columns["task_index"].astype(np.int64)
        numbers = {words: number for number, words in self.dataset.tasks.items()}
        words = self.tasks[0] if self.tasks else ""
        if self.dataset.has_instructions and words not in numbers:
            raise UserError(
                f"Episode {self.index} of {self.dataset.path} has the task {words!r:.80}, which is none of the"
                " dataset's: mend meta/tasks."
            )
        return np.full(self.length, numbers.get(words, min(self.dataset.tasks, default=0)), np.int64)

    def instruction(self, row: int) -> str:
        """Return the task of ``row`` in words; "" where none is stored."""
        columns = self.columns
        if "task_index" in columns:
            return self.dataset.tasks.get(int(columns["task_index"][row]), "")
        return self.tasks[0] if self.tasks else ""
