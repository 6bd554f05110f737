"""Writing a LeRobot v2.1 dataset episode by episode, so that a kill at any moment loses at most the one under way.

The line in meta/episodes.jsonl makes an episode part of the dataset; its table and videos are whole by then. What lies
there without such a line is dropped when the folder is opened again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import UserError
from ..results.files import UNFINISHED, explain_write_errors, new_file, new_folder, remove_unfinished, write_text
from ..video import VideoWriter
from .conventions import present_names
from .dataset import Episode
from .episode_statistics import image_statistics, numeric_statistics
from .episode_writer import EpisodeWriter
from .features import (
    BOOKKEEPING,
    Feature,
    arrow_column,
    check_name,
    feature_entry,
    huggingface_metadata,
    parse_features,
)
from .files import read_json, read_whole_lines, take
from .joining import GAP_BETWEEN_KEYFRAMES, extract_video
from .lerobot import CHUNK, V2_DATA, V2_VIDEO
from .lerobot_storage import LeRobotStorage
from .modality import Modality, default_modality, modality_json
from .opening import open_dataset
from .statistics import compute_statistics
from .validation import require_valid


class DatasetWriter:
    """Writes a LeRobot v2.1 dataset with GR00T's meta/modality.json into ``path``, or goes on with the one there.

    fps: whole frames a second. features: the dataset's own columns; the bookkeeping ones are added. modality: the parts
    of state and action; by default one for each feature. tasks: task_index -> words that are to keep their numbers.
    Raises UserError for a folder that holds something else.
    """

    def __init__(
        self,
        path: str | Path,
        fps: int,
        features: Mapping[str, Feature],
        robot_type: str = "",
        modality: Modality | None = None,
        tasks: Mapping[int, str] | None = None,
    ) -> None:
        self.path = Path(path)
        self.fps, self.robot_type = fps, robot_type
        self.features = {n: _with_info(f, fps) for n, f in features.items() if n not in BOOKKEEPING} | BOOKKEEPING
        for name, feature in self.features.items():
            check_name(name, str(self.path))
            if "/" in name:
                raise UserError(
                    f"The feature {name!r} has a slash in its name, which LeRobot does not allow: rename it."
                )
            if feature.dtype == "video" and (feature.shape[0] % 2 or feature.shape[1] % 2):
                raise UserError(
                    f"The video {name} is {feature.shape}: height and width must be even, or use dtype image."
                )
        self.tasks = dict(tasks or {})
        self.lengths: list[int] = []
        meta = self.path / "meta"
        if (meta / "info.json").exists():
            self._check_same(read_json(meta / "info.json"))
            self._recover()
            if self.lengths:
                require_valid(open_dataset(self.path))
        else:
            with explain_write_errors(self.path):
                # What a kill left before the dataset was begun is no content.
                if self.path.exists() and not all(UNFINISHED.fullmatch(entry.name) for entry in self.path.iterdir()):
                    raise UserError(f"{self.path} holds something else than a dataset: choose an empty folder.")
                remove_unfinished(self.path)
            cameras = [name for name, feature in self.features.items() if feature.is_visual]
            chosen = modality or default_modality(self.features, cameras)
            with new_folder(meta) as folder:
                write_text(folder / "modality.json", json.dumps(modality_json(chosen, self.features), indent=4))
                _rewrite(folder / "tasks.jsonl", [_task_line(*item) for item in self.tasks.items()])
                for name in ("episodes_stats.jsonl", "episodes.jsonl"):
                    _rewrite(folder / name, [])
                self._write_info(folder)

    @property
    def episodes(self) -> int:
        """Number of complete episodes."""
        return len(self.lengths)

    @contextmanager
    def episode(self, task: str) -> Iterator[EpisodeWriter]:
        """Record one episode of ``task``; leaving the block completes it, an exception drops it."""
        with ExitStack() as stack:
            videos = {}
            for name in self._videos:
                height, width, _ = self.features[name].shape
                path = self.path / self._place(V2_VIDEO, name)
                videos[name] = stack.enter_context(VideoWriter(path, height, width, self.fps, GAP_BETWEEN_KEYFRAMES))
            episode = EpisodeWriter(self.features, task, videos)
            yield episode
            if not episode.length:
                raise UserError("An episode needs at least one frame: add some, or leave by an exception.")
        columns, statistics = episode.contents()
        words = [*dict.fromkeys(episode.words)]
        numbers = self._task_numbers(words)
        columns["task_index"] = np.array([numbers[word] for word in episode.words])
        self._complete(columns, words, statistics)

    def copy_episode(self, source: Episode) -> None:
        """Append an episode of a LeRobot dataset with the same features and tasks; videos are not encoded anew."""
        storage = source.dataset.storage
        assert isinstance(storage, LeRobotStorage)
        for name in source.dataset.cameras:
            storage.check_frames(source.position, name)
        columns: dict[str, Any] = {n: c for n, c in source.columns.items() if n in self.features}
        statistics = {}
        for name, feature in self.features.items():
            if feature.is_visual:
                statistics[name] = image_statistics(source, name)
                if feature.dtype == "image":
                    columns[name] = storage.cells(source.position, name, range(source.length))
        for name in self._videos:
            part = storage.layout.files[source.position].videos[name]
            extract_video(part, self.path / self._place(V2_VIDEO, name), self.fps)
        columns["timestamp"] = source.regular_timestamps
        columns["task_index"] = source.task_numbers
        self._complete(columns, list(source.tasks), statistics)

    def finish(self) -> None:
        """Write the statistics over all frames to meta/stats.json."""
        if not self.lengths:
            return
        dataset = open_dataset(self.path)
        names = [name for name, f in self.features.items() if not f.is_visual and f.dtype != "string"]
        found = compute_statistics(dataset, names)
        content = {name: {key: value.tolist() for key, value in one.items()} for name, one in found.items()}
        write_text(self.path / "meta" / "stats.json", json.dumps(content, indent=4))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()

    @property
    def _videos(self) -> list[str]:
        return [name for name, feature in self.features.items() if feature.dtype == "video"]

    def _place(self, pattern: str, camera: str = "") -> str:
        number = self.episodes
        return pattern.format(episode_chunk=number // CHUNK, episode_index=number, video_key=camera)

    def _task_numbers(self, words: Sequence[str]) -> dict[str, int]:
        """Return the number of each task, new ones included; these are in tasks.jsonl before they are used."""
        known = {text: number for number, text in self.tasks.items()}
        for word in words:
            if word not in known:
                known[word] = max(self.tasks, default=-1) + 1
                self.tasks[known[word]] = word
                _append(self.path / "meta" / "tasks.jsonl", _task_line(known[word], word))
        return known

    def _complete(self, columns: Mapping[str, Any], tasks: list[str], images: Mapping[str, Any]) -> None:
        length = len(columns["task_index"])
        start, number = sum(self.lengths), self.episodes
        content = dict(columns)
        content.setdefault("timestamp", np.arange(length) / self.fps)
        content["frame_index"] = np.arange(length)
        content["episode_index"] = np.full(length, number)
        content["index"] = np.arange(start, start + length)
        stored = {name: f for name, f in self.features.items() if f.dtype != "video"}
        table = pa.table([arrow_column(content[name], f) for name, f in stored.items()], names=list(stored))
        table = table.replace_schema_metadata(huggingface_metadata(self.features))
        meta = self.path / "meta"
        try:
            with explain_write_errors(self.path):
                (meta / "stats.json").unlink(missing_ok=True)  # of fewer episodes
                _write_table(self.path / self._place(V2_DATA), table)
            found = numeric_statistics({n: content[n] for n, f in stored.items() if f.dtype != "image"}, "v2.1")
            _append(meta / "episodes_stats.jsonl", {"episode_index": number, "stats": found | dict(images)})
            _append(meta / "episodes.jsonl", {"episode_index": number, "tasks": tasks, "length": length})
        except BaseException:
            self._recover()
            raise
        self.lengths.append(length)
        self._write_info()

    def _write_info(self, meta: Path | None = None) -> None:
        count, videos = self.episodes, self._videos
        info = {
            "codebase_version": "v2.1",
            "robot_type": self.robot_type or None,  # as lerobot writes it
            "total_episodes": count,
            "total_frames": sum(self.lengths),
            "total_tasks": len(self.tasks),
            "total_videos": count * len(videos),
            "total_chunks": -(-count // CHUNK),
            "chunks_size": CHUNK,
            "fps": self.fps,
            "splits": {"train": f"0:{count}"},
            "data_path": V2_DATA,
            "video_path": V2_VIDEO if videos else None,
            "features": {name: feature_entry(feature) for name, feature in self.features.items()},
        }
        write_text((meta or self.path / "meta") / "info.json", json.dumps(info, indent=4))

    def _check_same(self, info: Mapping[str, Any]) -> None:
        where = self.path / "meta" / "info.json"
        stored = present_names(parse_features(info.get("features"), str(where)))
        wanted = parse_features({n: feature_entry(f) for n, f in self.features.items()}, "the wanted features")
        same = {
            "codebase_version": (info.get("codebase_version"), "v2.1"),
            "fps": (info.get("fps"), self.fps),
            "robot_type": (info.get("robot_type") or "", self.robot_type),
            # Not info, which says how others' videos were encoded.
            "features": tuple({n: replace(f, info={}) for n, f in one.items()} for one in (stored, wanted)),
            "data_path": (info.get("data_path"), V2_DATA),
            "video_path": (info.get("video_path"), V2_VIDEO if self._videos else None),
            "chunks_size": (info.get("chunks_size"), CHUNK),
        }
        for field, (there, here) in same.items():
            if there != here:
                raise UserError(f"{self.path} holds a dataset with another {field}: choose another folder.")

    def _recover(self) -> None:
        """Take in what is complete, drop what was cut short, and put the metadata in order."""
        meta = self.path / "meta"
        episodes = read_whole_lines(meta / "episodes.jsonl")
        if [row.get("episode_index") for row in episodes] != list(range(len(episodes))):
            raise UserError(f"{meta / 'episodes.jsonl'} does not number its episodes 0, 1, 2, …: convert the dataset.")
        self.lengths = [take(row, "length", int, meta / "episodes.jsonl") for row in episodes]
        tasks, where = read_whole_lines(meta / "tasks.jsonl"), meta / "tasks.jsonl"
        self.tasks = {take(row, "task_index", int, where): take(row, "task", str, where) for row in tasks}
        _rewrite(meta / "tasks.jsonl", tasks)
        _rewrite(meta / "episodes_stats.jsonl", read_whole_lines(meta / "episodes_stats.jsonl")[: self.episodes])
        _rewrite(meta / "episodes.jsonl", episodes)
        remove_unfinished(meta)
        for place in (self._place(V2_DATA), *(self._place(V2_VIDEO, name) for name in self._videos)):
            remove_unfinished((self.path / place).parent)
            (self.path / place).unlink(missing_ok=True)
        self._write_info()


def _with_info(feature: Feature, fps: int) -> Feature:
    if feature.dtype != "video" or feature.info:
        return feature
    height, width, channels = feature.shape
    info = {
        "video.height": height,
        "video.width": width,
        "video.codec": "h264",
        "video.pix_fmt": "yuv420p",
        "is_depth_map": False,
        "video.fps": fps,
        "video.channels": channels,
        "has_audio": False,
    }
    return Feature(feature.dtype, feature.shape, feature.names, info)


def _write_table(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as unfinished, unfinished.open("wb") as file:
        pq.write_table(table, file)
        file.flush()
        os.fsync(file.fileno())


def _task_line(number: int, words: str) -> dict[str, Any]:
    return {"task_index": number, "task": words}


def _append(path: Path, row: Mapping[str, Any]) -> None:
    with explain_write_errors(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _rewrite(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
