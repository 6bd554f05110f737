"""Values of LeRobot datasets: parquet tables, images in their cells, and videos."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import UserError
from ..system_memory import require_memory
from .features import column_values
from .files import read_table
from .image_cells import COLORS, color_image, open_image, raw_image
from .lerobot import EpisodeFiles, Layout
from .videos import VideoFile

TABLE_CACHE_BYTES = 1 << 30
"""Bytes of tables kept in memory, so that windows drawn at random read each file once."""


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
        if self.layout.features[camera].dtype == "image":
            shape = self.layout.features[camera].shape
            require_memory(len(rows) * shape[0] * shape[1] * 3, f"{camera} of {self.layout.root}, {len(rows)} images,")
            cells = zip(self.cells(episode, camera, rows), rows, strict=True)
            return np.stack([color_image(cell, shape, self._where(episode, row, camera)) for cell, row in cells])
        if self.layout.features[camera].is_depth:
            raise UserError(
                f"{camera} of {self.layout.root} is a video of depth, which is no color image: choose another camera."
            )
        video, frames = self._video_frames(episode, camera, rows)
        whole = self._whole(video)
        return video.read(frames) if whole is None else whole[frames]

    def _video_frames(self, episode: int, camera: str, rows: Sequence[int]) -> tuple[VideoFile, np.ndarray]:
        """Return the video of ``camera`` and the numbers of its frames that belong to ``rows``."""
        video = self.video(self.layout.files[episode].videos[camera].path)
        stamps = self.columns(episode).get("timestamp")
        times = (np.arange(self.layout.episodes[episode].length) / self.layout.fps) if stamps is None else stamps
        return video, self._frames(episode, camera, np.asarray(times, np.float64)[list(rows)], rows)

    def raw_images(self, episode: int, camera: str, rows: Sequence[int]) -> list[np.ndarray]:
        """See Storage."""
        feature = self.layout.features[camera]
        if feature.dtype != "image" and feature.is_depth:
            video, frames = self._video_frames(episode, camera, rows)
            return list(video.read(frames, depth=True))
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
            return not feature.is_depth
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
