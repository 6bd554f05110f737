"""Writing a LeRobot v3.0 dataset, in which episodes share tables and videos, from one in the v2 layout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import UserError
from .dataset import Dataset, Episode
from .episode_statistics import image_statistics, merged_image_statistics, numeric_statistics
from .features import BOOKKEEPING, Feature, arrow_column, feature_entry, huggingface_metadata
from .joining import VideoJoiner
from .lerobot import CHUNK, V3_DATA, V3_EPISODES, V3_VIDEO
from .lerobot_storage import LeRobotStorage
from .modality import modality_json

DATA_BYTES = 100 << 20
VIDEO_BYTES = 200 << 20


def write_v3(dataset: Dataset, root: Path) -> None:
    """Write ``dataset``, of the v2 layout, as v3.0 into the empty folder ``root``. Videos are not encoded anew."""
    numbers = sorted(dataset.tasks)
    if numbers != list(range(len(numbers))):
        raise UserError(
            f"The task_index values of {dataset.path} are {numbers}, and v3.0 needs 0, 1, 2, …: renumber them."
        )
    kept = {n: f for n, f in dataset.features.items() if (not f.is_visual or n in dataset.cameras)}
    features = {n: f for n, f in kept.items() if n not in BOOKKEEPING} | BOOKKEEPING
    for name in features:
        if "/" in name:
            raise UserError(f"{dataset.path} has a feature {name!r}, whose slash LeRobot does not allow: rename it.")
    (root / "meta").mkdir(parents=True)
    tables, videos = _Tables(root, features), {}
    for name in (name for name, feature in features.items() if feature.dtype == "video"):
        videos[name] = _Videos(root, name, dataset.fps)
    rows, statistics = [], _Merged(features)
    for position, record in enumerate(dataset.episodes):
        episode = dataset.episode(position)
        columns = _columns(episode, position, tables.rows, features)
        row: dict[str, Any] = {"episode_index": position, "tasks": list(record.tasks), "length": record.length}
        row |= {"dataset_from_index": tables.rows, "dataset_to_index": tables.rows + record.length}
        row |= tables.append(columns)
        for one in videos.values():
            row |= one.append(dataset, position)
        row |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
        rows.append(row | statistics.add(episode, columns))
    tables.close()
    for one in videos.values():
        one.close()
    path = root / V3_EPISODES.format(chunk_index=0, file_index=0)
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    _write_tasks(root, [dataset.tasks[number] for number in numbers])
    _write_json(root / "meta" / "stats.json", statistics.result())
    _write_json(root / "meta" / "modality.json", modality_json(dataset.modality, features))
    _write_json(root / "meta" / "info.json", _info(dataset, features, tables.rows))


def _columns(episode: Episode, number: int, start: int, features: Mapping[str, Feature]) -> dict[str, Any]:
    storage = episode.dataset.storage
    assert isinstance(storage, LeRobotStorage)
    columns: dict[str, Any] = {name: column for name, column in episode.columns.items() if name in features}
    for name, feature in features.items():
        if feature.dtype == "image":
            storage.check_frames(episode.position, name)
            columns[name] = storage.cells(episode.position, name, range(episode.length))
    columns["timestamp"] = episode.regular_timestamps
    columns["frame_index"] = np.arange(episode.length)
    columns["episode_index"] = np.full(episode.length, number)
    columns["index"] = np.arange(start, start + episode.length)
    columns["task_index"] = episode.task_numbers
    return columns


class _Tables:
    """data/chunk-…/file-….parquet: episodes after each other, one row group for each."""

    def __init__(self, root: Path, features: Mapping[str, Feature]) -> None:
        self.root, self.features = root, {n: f for n, f in features.items() if f.dtype != "video"}
        self.rows, self._file = 0, -1
        self._writer: pq.ParquetWriter | None = None
        self._bytes = 0

    def append(self, columns: Mapping[str, Any]) -> dict[str, int]:
        """Append one episode. Returns where it lies."""
        arrays = [arrow_column(columns[name], feature) for name, feature in self.features.items()]
        table = pa.table(arrays, names=list(self.features)).replace_schema_metadata(huggingface_metadata(self.features))
        if self._writer is None or self._bytes + table.nbytes > DATA_BYTES:
            self.close()
            self._file, self._bytes = self._file + 1, 0
            path = self.root / V3_DATA.format(**_place(self._file))
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(path, table.schema)
        self._writer.write_table(table)
        self._bytes += table.nbytes
        self.rows += table.num_rows
        return {f"data/{name}": value for name, value in _place(self._file).items()}

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class _Videos:
    """videos/…/chunk-…/file-….mp4 of one camera: episodes after each other."""

    def __init__(self, root: Path, name: str, fps: float) -> None:
        self.root, self.name, self.fps = root, name, fps
        self._file = -1
        self._joiner: VideoJoiner | None = None

    def append(self, dataset: Dataset, position: int) -> dict[str, Any]:
        """Append one episode. Returns where it lies."""
        storage = dataset.storage
        assert isinstance(storage, LeRobotStorage)
        storage.check_frames(position, self.name)
        part = storage.layout.files[position].videos[self.name]
        size = len(storage.video(part.path)) and part.path.stat().st_size  # refuses a damaged file by its name
        if self._joiner is None or self._joiner.size + size > VIDEO_BYTES or not self._joiner.fits(part):
            self.close()
            self._file += 1
            self._joiner = VideoJoiner(self.root / V3_VIDEO.format(video_key=self.name, **_place(self._file)), self.fps)
        start, _ = self._joiner.append(part)
        end = start + dataset.episodes[position].length / self.fps
        values = _place(self._file) | {"from_timestamp": start, "to_timestamp": end}
        return {f"videos/{self.name}/{key}": value for key, value in values.items()}

    def close(self) -> None:
        """Finish the file."""
        if self._joiner is not None:
            self._joiner.close()
            self._joiner = None


class _Merged:
    """Statistics of each episode, and of them all for meta/stats.json."""

    def __init__(self, features: Mapping[str, Feature]) -> None:
        self._columns: dict[str, list[np.ndarray]] = {
            name: [] for name, f in features.items() if not f.is_visual and f.dtype not in ("string", "language")
        }
        self._images: dict[str, list[dict[str, Any]]] = {name: [] for name, f in features.items() if f.is_visual}

    def add(self, episode: Episode, columns: Mapping[str, Any]) -> dict[str, Any]:
        """Take in one episode. Returns its "stats/…" entries."""
        for name, parts in self._columns.items():
            parts.append(np.asarray(columns[name]))
        for name, entries in self._images.items():
            entries.append(image_statistics(episode, name))
        found = numeric_statistics({name: parts[-1] for name, parts in self._columns.items()}, "v3.0")
        found |= {name: entries[-1] for name, entries in self._images.items()}
        return {f"stats/{name}/{key}": value for name, one in found.items() for key, value in one.items()}

    def result(self) -> dict[str, Any]:
        """Return the content of meta/stats.json."""
        whole = {name: np.concatenate(parts) for name, parts in self._columns.items()}
        merged = {name: merged_image_statistics(entries) for name, entries in self._images.items()}
        return numeric_statistics(whole, "v3.0") | merged


def _place(file: int) -> dict[str, int]:
    return {"chunk_index": file // CHUNK, "file_index": file % CHUNK}


def _write_tasks(root: Path, words: list[str]) -> None:
    """Write meta/tasks.parquet as pandas writes a table whose index is the task in words."""
    table = pa.table({"task_index": pa.array(range(len(words)), pa.int64()), "task": pa.array(words, pa.string())})
    kinds = {"task_index": ("int64", "int64"), "task": ("unicode", "object")}
    described = [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy_kind, "metadata": None}
        for name, (kind, numpy_kind) in kinds.items()
    ]
    pandas = {"index_columns": ["task"], "column_indexes": [], "columns": described, "pandas_version": "2.0.0"}
    table = table.replace_schema_metadata({b"pandas": json.dumps(pandas).encode()})
    pq.write_table(table, root / "meta" / "tasks.parquet")


def _info(dataset: Dataset, features: Mapping[str, Feature], frames: int) -> dict[str, Any]:
    videos = any(feature.dtype == "video" for feature in features.values())
    count = len(dataset.episodes)
    return {
        "codebase_version": "v3.0",
        "robot_type": dataset.robot_type or None,
        "total_episodes": count,
        "total_frames": frames,
        "total_tasks": len(dataset.tasks),
        "chunks_size": CHUNK,
        "data_files_size_in_mb": DATA_BYTES >> 20,
        "video_files_size_in_mb": VIDEO_BYTES >> 20,
        "fps": int(dataset.fps) if dataset.fps == int(dataset.fps) else dataset.fps,
        "splits": {"train": f"0:{count}"},
        "data_path": V3_DATA,
        "video_path": V3_VIDEO if videos else None,
        "features": {name: feature_entry(feature) for name, feature in features.items()},
    }


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False), encoding="utf-8")
