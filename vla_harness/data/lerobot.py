"""The two layouts of LeRobot datasets on disk: v2 (a file for each episode) and v3 (episodes share files).

Sources: huggingface/lerobot ``datasets/utils.py`` at v2.1 and v3.0, NVIDIA/Isaac-GR00T N1.5 ``data/dataset.py``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..paths import path_inside
from .features import Feature, parse_features, readable_features
from .files import read_json, read_json_lines, read_table, take

V2_DATA = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
V2_VIDEO = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
V3_DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
V3_VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
V3_EPISODES = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
CHUNK = 1000
"""Files in a folder."""
MOST = 2**31 - 1
"""Largest number of an episode and of its rows that is believed."""


@dataclass(frozen=True)
class EpisodeRecord:
    """What the metadata say of an episode. index: its number; length: in frames; tasks: in words."""

    index: int
    length: int
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class VideoPart:
    """Where an episode's frames lie: in ``path``, from ``start`` seconds on, to ``end`` (None: the file's end)."""

    path: Path
    start: float = 0.0
    end: float | None = None


@dataclass(frozen=True)
class EpisodeFiles:
    """Where an episode lies. first_row: of its rows in ``data``; videos: by the feature's name."""

    data: Path
    first_row: int
    videos: Mapping[str, VideoPart]


@dataclass(frozen=True)
class Layout:
    """All that the metadata of the dataset in ``root`` say."""

    root: Path
    info: Mapping[str, Any]
    fps: float
    features: Mapping[str, Feature]
    tasks: Mapping[int, str]
    episodes: tuple[EpisodeRecord, ...]
    files: tuple[EpisodeFiles, ...]
    left_out: tuple[str, ...] = ()


def read_layout(root: Path) -> Layout:
    """Read the metadata of the dataset in ``root``. Raises UserError that names file and field."""
    path = root / "meta" / "info.json"
    info = read_json(path)
    version = take(info, "codebase_version", str, path)
    fps = float(take(info, "fps", (int, float), path))
    if not 0 < fps <= MOST:
        raise UserError(f"{path} says {fps:g} of fps, which must be positive: mend that field.")
    entries, left_out = readable_features(info.get("features"))
    features = parse_features(entries, str(path))
    if version.startswith("v2."):
        tasks, episodes, files = _read_v2(root, info, features)
    elif version.startswith("v3."):
        tasks, episodes, files = _read_v3(root, info, features)
    else:
        raise UserError(f"{path} says {version!r} of codebase_version: LeRobot's v2.0, v2.1 and v3.0 can be read.")
    if not episodes:
        raise UserError(f"The dataset {root} has no episodes: record some, or name another.")
    total = info.get("total_episodes", len(episodes))
    if total != len(episodes):
        raise UserError(
            f"{path} says {total} of total_episodes, and {root / 'meta'} lists {len(episodes)}: copy the files again."
        )
    return Layout(root, info, fps, features, tasks, tuple(episodes), tuple(files), left_out)


Contents = tuple[dict[int, str], list[EpisodeRecord], list[EpisodeFiles]]


def _read_v2(root: Path, info: Mapping[str, Any], features: Mapping[str, Feature]) -> Contents:
    where = root / "meta" / "info.json"
    path = root / "meta" / "tasks.jsonl"
    tasks = _tasks(read_json_lines(path), "task", path)
    data, video = take(info, "data_path", str, where), info.get("video_path") or V2_VIDEO
    chunk = take(info, "chunks_size", int, where) if info.get("chunks_size") else CHUNK
    if chunk < 1:
        raise UserError(f"{where} says {chunk} of chunks_size, which must be at least 1: mend that field.")
    path = root / "meta" / "episodes.jsonl"
    episodes, files = [], []
    for row in sorted(read_json_lines(path), key=lambda row: take(row, "episode_index", int, path)):
        record = _record(row, path)
        place = {"episode_index": record.index, "episode_chunk": record.index // chunk}
        videos = {
            name: VideoPart(_fill(root, video, "video_path", video_key=name, **place))
            for name, feature in features.items()
            if feature.dtype == "video"
        }
        episodes.append(record)
        files.append(EpisodeFiles(_fill(root, data, "data_path", **place), 0, videos))
    _check_unique(episodes, path)
    return tasks, episodes, files


def _read_v3(root: Path, info: Mapping[str, Any], features: Mapping[str, Feature]) -> Contents:
    where = root / "meta" / "info.json"
    path = root / "meta" / "tasks.parquet"
    rows = read_table(path).to_pylist()
    words = next((name for name in ("task", "__index_level_0__") if rows and name in rows[0]), "task")
    tasks = _tasks(rows, words, path)
    data, video = take(info, "data_path", str, where), info.get("video_path") or V3_VIDEO
    folder = root / "meta" / "episodes"
    paths = sorted(folder.glob("*/*.parquet"))
    if not paths:
        raise UserError(f"{folder} holds no parquet file: name the folder of a complete LeRobot dataset.")
    found = []
    for path in paths:
        table = read_table(path)
        table = table.select([name for name in table.column_names if not name.startswith("stats/")])
        found += [(row, path) for row in table.to_pylist()]
    episodes, files = [], []
    next_row: dict[Path, int] = {}
    for row, path in sorted(found, key=lambda pair: take(pair[0], "episode_index", int, pair[1])):
        record = _record(row, path)
        place = {name: take(row, f"data/{name}", int, path) for name in ("chunk_index", "file_index")}
        table_path = _fill(root, data, "data_path", **place)
        videos = {}
        for name, feature in features.items():
            if feature.dtype == "video":
                key = f"videos/{name}"
                place = {part: take(row, f"{key}/{part}", int, path) for part in ("chunk_index", "file_index")}
                times = [float(take(row, f"{key}/{end}_timestamp", (int, float), path)) for end in ("from", "to")]
                videos[name] = VideoPart(_fill(root, video, "video_path", video_key=name, **place), *times)
        episodes.append(record)
        files.append(EpisodeFiles(table_path, next_row.get(table_path, 0), videos))
        next_row[table_path] = files[-1].first_row + record.length
    _check_unique(episodes, folder)
    _check_spans(folder, float(info["fps"]), episodes, files)
    return tasks, episodes, files


def _check_spans(folder: Path, fps: float, episodes: list[EpisodeRecord], files: list[EpisodeFiles]) -> None:
    """Raise UserError unless each episode has time for its rows in each shared video, and none lies on another."""
    spans: dict[Path, list[tuple[float, float, int, str]]] = {}
    for record, place in zip(episodes, files, strict=True):
        for name, part in place.videos.items():
            assert part.end is not None
            label = f"{folder} says that episode {record.index} lies from {part.start:g} to {part.end:g} s of {name}"
            if not (part.start >= 0 and math.isfinite(part.end)):
                raise UserError(f"{label}, which is no part of a video: mend videos/{name}/from_timestamp.")
            if (part.end - part.start) * fps < record.length - 0.5:
                raise UserError(f"{label}, which is too short for its {record.length} rows: mend these fields.")
            spans.setdefault(part.path, []).append((part.start, record.length / fps, record.index, label))
    for video in spans.values():
        for (start, duration, index, _), (following, _, _, label) in pairwise(sorted(video)):
            if following < start + duration - 0.5 / fps:
                raise UserError(f"{label}, on top of episode {index}: mend their from_timestamp and to_timestamp.")


def _record(row: Mapping[str, Any], path: Path) -> EpisodeRecord:
    index, length = take(row, "episode_index", int, path), take(row, "length", int, path)
    if not 1 <= length <= MOST:
        raise UserError(f"{path} says {length} of episode {index}'s length, which must be at least 1: mend that field.")
    if not 0 <= index <= MOST:
        raise UserError(f"{path} says {index} of episode_index, which must be 0 or more: mend that field.")
    tasks = row.get("tasks") or []
    if not isinstance(tasks, list) or not all(isinstance(words, str) for words in tasks):
        raise UserError(f"{path} says {tasks!r:.80} of episode {index}'s tasks: it must be a list of texts.")
    return EpisodeRecord(index, length, tuple(tasks))


def _tasks(rows: Iterable[Mapping[str, Any]], words: str, path: Path) -> dict[int, str]:
    """Return task_index -> words. Raises UserError where a number has two."""
    tasks: dict[int, str] = {}
    for row in rows:
        number = take(row, "task_index", int, path)
        if number in tasks:
            raise UserError(f"{path} lists task {number} twice: drop one of the two.")
        tasks[number] = take(row, words, str, path)
    return tasks


def _fill(root: Path, pattern: Any, key: str, **values: Any) -> Path:
    """Return the path that a template of info.json names: {name} or {name:03d} of ``values``, inside ``root``."""
    where = f"{root / 'meta' / 'info.json'} ({key})"
    texts = re.split(r"\{(\w+)(?::0?(\d{1,2})d)?\}", pattern) if isinstance(pattern, str) else ["{"]
    filled = texts[0]
    for name, width, text in zip(texts[1::3], texts[2::3], texts[3::3], strict=True):
        value = values.get(name, "{")
        filled += (f"{value:0{width}d}" if width and isinstance(value, int) else str(value)) + text
    if "{" in filled or "}" in filled:
        raise UserError(
            f"{where} says {pattern!r:.80} of {key}, which takes {', '.join(values)} only, as {{name}} or {{name:03d}}:"
            " mend it."
        )
    return path_inside(root, filled, where)


def _check_unique(episodes: list[EpisodeRecord], where: Path) -> None:
    for one, other in pairwise(episodes):
        if one.index == other.index:
            raise UserError(f"{where} lists episode {one.index} twice: drop one of the two lines.")
