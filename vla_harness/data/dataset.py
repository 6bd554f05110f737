"""A dataset of demonstrations, however it is stored: features, episodes, statistics."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from ..errors import UserError
from ..system_memory import require_memory
from .episode_statistics import read_image_statistics
from .features import Feature, column_values
from .files import read_table
from .image_cells import COLORS, color_image, open_image, raw_image
from .lerobot import EpisodeFiles, EpisodeRecord, Layout
from .modality import Modality, default_modality
from .statistics import Statistics, compute_statistics, read_statistics
from .validation import column_faults
from .videos import VideoFile

TABLE_CACHE_BYTES = 1 << 30
"""Bytes of tables kept in memory, so that windows drawn at random read each file once."""
LEROBOT_TOLERANCE_S = 1e-4
"""Most that a row's timestamp may differ from its frame's in lerobot."""


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

    def instruction(self, row: int) -> str:
        """Return the task of ``row`` in words; "" where none is stored."""
        columns = self.columns
        if "task_index" in columns:
            return self.dataset.tasks.get(int(columns["task_index"][row]), "")
        return self.tasks[0] if self.tasks else ""


class LeRobotStorage:
    """Values of a LeRobot dataset, from parquet tables and videos."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.frame_cache_bytes = 0  # whole videos stay decoded while they fit; where keyframes are rare, seeking costs
        self._tables: OrderedDict[Path, tuple[dict[str, np.ndarray], pa.Table]] = OrderedDict()
        self._videos: dict[Path, VideoFile] = {}
        self._decoded: dict[Path, np.ndarray] = {}
        self._lock = threading.RLock()  # training reads from several threads

    def columns(self, episode: int) -> Mapping[str, np.ndarray]:
        """See Storage."""
        record, place = self.layout.episodes[episode], self.layout.files[episode]
        with self._lock:
            values, table = self._table(place.data)
        rows = slice(place.first_row, place.first_row + record.length)
        if rows.stop > table.num_rows or (place.first_row == 0 and self._alone(place) and rows.stop != table.num_rows):
            raise UserError(
                f"{place.data} has {table.num_rows} rows, and the metadata says {record.length} of episode"
                f" {record.index}'s length: copy the file again."
            )
        part = {name: column[rows] for name, column in values.items()}
        if "episode_index" in part and (part["episode_index"] != record.index).any():
            raise UserError(
                f"{place.data} holds other rows than episode {record.index}'s at its place (episode_index)."
            )
        return part

    def images(self, episode: int, camera: str, rows: Sequence[int]) -> np.ndarray:
        """See Storage. A video's frame is the one nearest to the row's timestamp, as in lerobot and GR00T."""
        place = self.layout.files[episode]
        if self.layout.features[camera].dtype == "image":
            shape = self.layout.features[camera].shape
            require_memory(len(rows) * shape[0] * shape[1] * 3, f"{camera} of {self.layout.root}, {len(rows)} images,")
            cells = zip(self.cells(episode, camera, rows), rows, strict=True)
            return np.stack([color_image(cell, shape, self._where(episode, row, camera)) for cell, row in cells])
        video = self.video(place.videos[camera].path)
        stamps = self.columns(episode).get("timestamp")
        times = (np.arange(self.layout.episodes[episode].length) / self.layout.fps) if stamps is None else stamps
        frames = self._frames(episode, camera, np.asarray(times, np.float64)[list(rows)], rows)
        whole = self._whole(video)
        return video.read(frames) if whole is None else whole[frames]

    def raw_images(self, episode: int, camera: str, rows: Sequence[int]) -> list[np.ndarray]:
        """See Storage."""
        feature = self.layout.features[camera]
        if feature.dtype != "image":
            return list(self.images(episode, camera, rows))
        cells = zip(self.cells(episode, camera, rows), rows, strict=True)
        return [raw_image(cell, feature.shape, self._where(episode, row, camera)) for cell, row in cells]

    def cells(self, episode: int, camera: str, rows: Sequence[int]) -> list[Any]:
        """Return what the table holds of the "image" feature ``camera`` in ``rows``: {"bytes": …, "path": …} each."""
        place = self.layout.files[episode]
        with self._lock:
            _, table = self._table(place.data)
        if camera not in table.column_names:
            raise UserError(f"{place.data} has no column {camera}, which meta/info.json lists: copy the file again.")
        return table.column(camera).take(pa.array([place.first_row + row for row in rows], pa.int64())).to_pylist()

    def has_colors(self, episode: int, camera: str) -> bool:
        """See Storage."""
        feature = self.layout.features[camera]
        if feature.dtype != "image":
            return True
        where = self._where(episode, 0, camera)
        return open_image(self.cells(episode, camera, [0])[0], feature.shape, where).mode in COLORS

    def check_frames(self, episode: int, camera: str) -> None:
        """See Storage: reads the headers of images, and the index of a video, which is kept."""
        length, feature = self.layout.episodes[episode].length, self.layout.features[camera]
        if feature.dtype == "image":
            for row, cell in enumerate(self.cells(episode, camera, range(length))):
                open_image(cell, feature.shape, self._where(episode, row, camera))
        else:
            self._span(episode, camera)

    def video(self, path: Path) -> VideoFile:
        """Return the index of the video ``path``, read once."""
        with self._lock:
            if path not in self._videos:
                self._videos[path] = VideoFile(path)
            return self._videos[path]

    def _whole(self, video: VideoFile) -> np.ndarray | None:
        """Return all frames of the video, kept for the next time; None where they would not fit."""
        with self._lock:
            kept = sum(frames.nbytes for frames in self._decoded.values())
            size = len(video) * video.height * video.width * 3
            if video.path not in self._decoded and kept + size <= self.frame_cache_bytes:
                self._decoded[video.path] = video.read(range(len(video)))
            return self._decoded.get(video.path)

    def _frames(self, episode: int, camera: str, times: np.ndarray, rows: Sequence[int]) -> np.ndarray:
        """Return the frames that are nearest to ``times``, those of ``rows``, within the episode's part of the video.

        A frame further off belongs to no row; one off is the habit of some writers (see docs/data.md).
        """
        part, (first, last) = self.layout.files[episode].videos[camera], self._span(episode, camera)
        video = self.video(part.path)
        frames = video.nearest(times + part.start, first, last)
        far = np.flatnonzero(np.abs(video.times[frames] - part.start - times) > 1.01 / self.layout.fps)
        if len(far):
            raise UserError(
                f"{self._where(episode, rows[far[0]], camera)} has the timestamp {times[far[0]]:g} s, for which"
                f" {part.path} has no frame: mend the timestamps, or copy the video again."
            )
        return frames

    def _span(self, episode: int, camera: str) -> tuple[int, int]:
        """Return the first and the last frame of the episode in its video; UserError if they are fewer than rows."""
        part, half = self.layout.files[episode].videos[camera], 0.5 / self.layout.fps
        video = self.video(part.path)
        first = int(np.searchsorted(video.times, part.start - half))
        end = len(video) if part.end is None else int(np.searchsorted(video.times, part.end - half))
        if end - first < self.layout.episodes[episode].length:
            record = self.layout.episodes[episode]
            raise UserError(
                f"Episode {record.index} of {self.layout.root} has {record.length} rows and {max(0, end - first)}"
                f" frames of {camera}: {part.path} ends or skips, copy it again or drop the episode."
            )
        return first, end - 1

    def _where(self, episode: int, row: int, column: str) -> str:
        return f"Episode {self.layout.episodes[episode].index} of {self.layout.root}, row {row} of {column},"

    def _row_name(self, path: Path, row: int) -> str:
        """Return in words which episode's row the ``row`` of a table is."""
        for record, place in zip(self.layout.episodes, self.layout.files, strict=True):
            if place.data == path and 0 <= row - place.first_row < record.length:
                return f"row {row - place.first_row} of episode {record.index}"
        return f"row {row}"

    def _alone(self, place: EpisodeFiles) -> bool:
        return str(self.layout.info["codebase_version"]).startswith("v2.")

    def _table(self, path: Path) -> tuple[dict[str, np.ndarray], pa.Table]:
        if path in self._tables:
            self._tables.move_to_end(path)
            return self._tables[path]
        table = read_table(path)
        values, images = {}, []
        for name in table.column_names:
            feature = self.layout.features.get(name)
            if feature is None:
                continue
            if feature.is_visual:
                images.append(name)
            else:
                values[name] = column_values(
                    table.column(name), feature, f"The column {name} of {path}", partial(self._row_name, path)
                )
        self._tables[path] = values, table.select(images) if images else table.select(table.column_names[:1])
        while len(self._tables) > 1 and sum(map(_size, self._tables.values())) > TABLE_CACHE_BYTES:
            self._tables.popitem(last=False)
        return self._tables[path]


def _size(entry: tuple[dict[str, np.ndarray], pa.Table]) -> int:
    return sum(column.nbytes for column in entry[0].values()) + entry[1].nbytes
