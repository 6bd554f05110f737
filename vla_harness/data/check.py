"""Reads a whole dataset and says what is wrong with it, by every field that lerobot's own readers use.

Sources: huggingface/lerobot ``LeRobotDatasetMetadata`` and ``LeRobotDataset`` at v2.1 (0.3.3) and v3.0 (0.4.4).
"""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys

    from vla_harness.launch import launch

    sys.exit(launch("vla_harness.data.__main__", ["check", *sys.argv[1:]]))

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from ..errors import UserError
from .conventions import check_gripper
from .dataset import LEROBOT_TOLERANCE_S, Dataset, Episode
from .episode_statistics import nested_statistics, statistic_shapes
from .features import BOOKKEEPING
from .files import read_json, read_json_lines, read_table, take
from .lerobot_storage import LeRobotStorage
from .validation import column_faults

INFO_FIELDS = (
    *("codebase_version", "robot_type", "fps", "total_episodes", "total_frames", "total_tasks"),
    *("chunks_size", "data_path", "video_path", "features"),
)
ROWS_AT_ONCE = 64
"""Stored images that are decoded together."""
STATISTICS = {"min", "max", "mean", "std", "count"}


def check_dataset(dataset: Dataset) -> Iterator[str]:
    """Read every value and count every frame; yield a sentence for each thing wrong or missing for lerobot."""
    if isinstance(dataset.storage, LeRobotStorage):
        try:
            yield from _check_metadata(dataset)
        except UserError as error:
            yield str(error)
    if dataset.translation:
        try:
            check_gripper(dataset)
        except UserError as error:
            yield str(error)
    if not dataset.has_instructions:
        yield f"{dataset.path} has no instructions."
    start = 0
    for position in range(len(dataset.episodes)):
        try:
            yield from _check_episode(dataset, dataset.episode(position), start)
        except UserError as error:
            yield str(error)
        start += dataset.episodes[position].length


def _check_metadata(dataset: Dataset) -> Iterator[str]:
    root, info = dataset.path, dataset.info or {}
    where = root / "meta" / "info.json"
    yield from (f"{where} has no field {name!r}." for name in INFO_FIELDS if name not in info)
    for name, feature in BOOKKEEPING.items():
        if name not in dataset.features:
            yield f"{where} does not list the feature {name}, which lerobot reads."
        elif dataset.features[name].dtype != feature.dtype or dataset.features[name].shape != feature.shape:
            yield f"{where} says {dataset.features[name].dtype} of {name}, which lerobot writes as {feature.dtype}."
    counts = {"total_frames": dataset.frames, "total_tasks": len(dataset.tasks)}
    for name, count in counts.items():
        if info.get(name) != count:
            yield f"{where} says {info.get(name)} of {name}, and the dataset has {count}."
    yield from (f"{where} lists {feature}: it is left out." for feature in dataset.left_out)
    for name, feature in dataset.features.items():
        if "/" in name:
            yield f"{where} has a slash in the feature name {name!r}, which lerobot refuses."
        if feature.is_visual and name not in dataset.cameras:
            yield f"{where} lists the camera {name}, which has no videos; lerobot would look for them."
    if [record.index for record in dataset.episodes] != list(range(len(dataset.episodes))):
        yield f"{root / 'meta'} does not number the episodes 0, 1, 2, …, as lerobot does."
    if sorted(dataset.tasks) != list(range(len(dataset.tasks))):
        yield f"{root / 'meta'} does not number the tasks 0, 1, 2, …, as lerobot does."
    assert dataset.statistics is not None  # reads meta/stats.json, or computes what it lacks
    if dataset.version == "v2.1":
        yield from _check_v2(root, dataset)
    elif dataset.version.startswith("v3."):
        yield from _check_v3(root, dataset)


def _check_v2(root: Path, dataset: Dataset) -> Iterator[str]:
    path = root / "meta" / "episodes_stats.jsonl"
    rows = {take(row, "episode_index", int, path): row.get("stats") for row in read_json_lines(path)}
    for record in dataset.episodes:
        entry = rows.get(record.index)
        if not isinstance(entry, dict):
            yield f"{path} has no stats of episode {record.index}."
        else:
            yield from _check_statistics(dataset, entry, f"{path} (episode {record.index})")


def _check_v3(root: Path, dataset: Dataset) -> Iterator[str]:
    yield from _check_statistics(dataset, read_json(root / "meta" / "stats.json"), str(root / "meta" / "stats.json"))
    path = root / "meta" / "tasks.parquet"
    pandas = (pq.read_schema(path).pandas_metadata or {}).get("index_columns", [])
    if len(pandas) != 1 or not isinstance(pandas[0], str):
        yield f"{path} does not have the task in words as its pandas index, which lerobot looks tasks up by."
    start = 0
    for path in sorted((root / "meta" / "episodes").glob("*/*.parquet")):
        for row in read_table(path).to_pylist():
            label = f"{path} (episode {row.get('episode_index')})"
            if (row.get("dataset_from_index"), row.get("dataset_to_index")) != (start, start + row.get("length", 0)):
                yield f"{label} has other dataset_from_index and dataset_to_index than {start} and on."
            start += row.get("length", 0)
            yield from _check_statistics(dataset, nested_statistics(row), label)


def _check_statistics(dataset: Dataset, entry: dict[str, Any], where: str) -> Iterator[str]:
    for name, feature in dataset.features.items():
        if feature.dtype in ("string", "language") or (feature.is_visual and name not in dataset.cameras):
            continue
        found = entry.get(name)
        if not isinstance(found, dict) or not set(found) >= STATISTICS:
            yield f"{where} lacks {', '.join(sorted(STATISTICS))} of {name}."
            continue
        wanted = statistic_shapes(feature, dataset.version)
        shapes = {one: _shape(found[one]) for one in ("min", "max", "mean", "std", "count")}
        wrong = [one for one, shape in shapes.items() if shape not in (((1,),) if one == "count" else wanted)]
        if wrong:
            yield f"{where} has {name}.{wrong[0]} of the shape {shapes[wrong[0]]} instead of {wanted[0]}."
        elif not all(_is_finite(found[one]) for one in shapes):
            yield f"{where} has statistics of {name} that are no finite numbers."


def _shape(value: Any) -> tuple[int, ...] | None:
    try:
        return np.shape(value)
    except ValueError:  # lists of several lengths
        return None


def _is_finite(value: Any) -> bool:
    try:
        return bool(np.isfinite(np.asarray(value, np.float64)).all())
    except (TypeError, ValueError):
        return False


def _check_episode(dataset: Dataset, episode: Episode, start: int) -> Iterator[str]:
    label = f"Episode {episode.index} of {dataset.path}"
    columns = dataset.storage.columns(episode.position)
    rows = np.arange(episode.length)
    for name, feature in dataset.features.items():
        if feature.is_visual:
            continue
        if name not in columns:
            yield f"{label} has no column {name}, which meta/info.json lists."
    yield from column_faults(episode, columns)
    wanted = {"frame_index": rows, "episode_index": np.full(episode.length, episode.index), "index": rows + start}
    for name, values in wanted.items():
        if name in columns and (columns[name] != values).any():
            yield f"{label} has values of {name} other than {values[0]}, … {values[-1]}."
    if np.abs(episode.timestamps - rows / dataset.fps).max() > LEROBOT_TOLERANCE_S:
        yield f"{label} has timestamps other than the row's number over fps, which lerobot refuses."
    for camera in dataset.cameras:
        try:
            yield from _check_camera(dataset, episode, camera, label)
        except UserError as error:  # the columns and the other cameras are looked at all the same
            yield str(error)


def _check_camera(dataset: Dataset, episode: Episode, camera: str, label: str) -> Iterator[str]:
    storage = dataset.storage
    if not isinstance(storage, LeRobotStorage) or dataset.features[camera].dtype == "image":
        for first in range(0, episode.length, ROWS_AT_ONCE):
            frames = episode.raw_images(camera, range(first, min(first + ROWS_AT_ONCE, episode.length)))
        size = frames[-1].shape[:2]
    else:
        storage.check_frames(episode.position, camera)
        part = storage.layout.files[episode.position].videos[camera]
        video = storage.video(part.path)
        end = video.times[-1] if part.end is None else part.end - 1 / dataset.fps
        count = round((min(end, video.times[-1]) - part.start) * dataset.fps) + 1
        if count != episode.length:
            yield f"{label} has {episode.length} rows and {count} frames of {camera} in {part.path}."
        storage.raw_images(episode.position, camera, [episode.length - 1])
        size = (video.height, video.width)
    if size != dataset.features[camera].shape[:2]:
        yield f"{label} has frames {size} of {camera}, and meta/info.json says {dataset.features[camera].shape[:2]}."
