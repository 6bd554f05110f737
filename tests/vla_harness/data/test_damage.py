"""Damaged datasets are refused, or found by the check, in one sentence that names file and field."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.vla_harness.data import recorded as toy
from vla_harness.data import open_dataset
from vla_harness.data.check import check_dataset
from vla_harness.errors import UserError

Damage = Callable[[Path], object]
VIDEO = f"videos/chunk-000/{toy.VIDEO}/episode_000001.mp4"
TABLE = "data/chunk-000/episode_000001.parquet"
EPISODES_V3 = "meta/episodes/chunk-000/file-000.parquet"


def info(**changes: Any) -> Damage:
    """Change fields of info.json; None drops one."""

    def damage(root: Path) -> None:
        path = root / "meta/info.json"
        content = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))

    return damage


def cut(name: str, part: float = 0.5) -> Damage:
    """Keep the first part of a file."""

    def damage(root: Path) -> None:
        data = (root / name).read_bytes()
        (root / name).write_bytes(data[: int(len(data) * part)])

    return damage


def drop(name: str) -> Damage:
    return lambda root: (root / name).unlink()


def text(name: str, old: str, new: str) -> Damage:
    return lambda root: (root / name).write_text((root / name).read_text().replace(old, new, 1))


def table(name: str, change: Callable[[pa.Table], pa.Table]) -> Damage:
    return lambda root: pq.write_table(change(pq.read_table(root / name)), root / name)


def other_action(lists: list[list[float]]) -> Callable[[pa.Table], pa.Table]:
    return lambda rows: rows.set_column(rows.column_names.index("action"), "action", pa.array(lists))


def explore(root: Path) -> list[str]:
    """What opening and checking the dataset says."""
    try:
        return list(check_dataset(open_dataset(root)))
    except UserError as error:
        return [str(error)]


V21_DAMAGES: list[tuple[Damage, str]] = [
    (drop("meta/info.json"), "is no dataset: name a folder with meta/info.json"),
    (cut("meta/info.json"), "meta/info.json is no valid JSON"),
    (info(fps=None), "meta/info.json has no field 'fps'"),
    (info(fps="ten"), "says 'ten' of fps, which must be int or float"),
    (info(fps=0), "says 0 of fps, which must be positive"),
    (info(codebase_version="v1.6"), "says 'v1.6' of codebase_version"),
    (info(features={}), 'has no "features" object'),
    (info(features={"action": {"dtype": "float33", "shape": [3]}}), "says 'float33' of features.action.dtype"),
    (info(features={"action": {"dtype": "float32"}}), "says None of features.action.shape"),
    (info(data_path="data/{chunk}.parquet"), "says 'data/{chunk}.parquet' of data_path"),
    (info(total_episodes=4), "says 4 of total_episodes, and .*meta lists 3"),
    (info(total_frames=99), "says 99 of total_frames, and the dataset has 36"),
    (cut("meta/episodes.jsonl", 0.9), "Line 3 of .*meta/episodes.jsonl is no valid JSON"),
    (text("meta/episodes.jsonl", '"length"', '"steps"'), "meta/episodes.jsonl has no field 'length'"),
    (text("meta/episodes.jsonl", '"length": 12', '"length": 0'), "says 0 of episode 0's length"),
    (text("meta/episodes.jsonl", '"length": 12', '"length": 11'), "has 12 rows, and the metadata says 11"),
    (text("meta/episodes.jsonl", '"episode_index": 1', '"episode_index": 0'), "lists episode 0 twice"),
    (text("meta/tasks.jsonl", '"task": "lift', '"todo": "lift'), "meta/tasks.jsonl has no field 'task'"),
    (drop("meta/episodes_stats.jsonl"), "There is no .*meta/episodes_stats.jsonl"),
    (text("meta/episodes_stats.jsonl", '"std"', '"deviation"'), "lacks count, max, mean, min, std of"),
    (cut("meta/stats.json"), "meta/stats.json is no valid JSON"),
    (cut("meta/modality.json"), "meta/modality.json is no valid JSON"),
    (text("meta/modality.json", '"end": 3', '"end": 30'), r"modality.json \(state.arm\) takes the entries 0 to 30"),
    (text("meta/modality.json", "observation.state", "state"), "takes its values from 'state', which"),
    (drop(TABLE), f"There is no .*{TABLE}"),
    (cut(TABLE), f"{TABLE} is no whole parquet file"),
    (table(TABLE, lambda rows: rows.drop_columns(["action"])), "Episode 1 of .* has no column action"),
    (table(TABLE, other_action([[1.0, 2.0]] * 15)), f"The column action of .*{TABLE} holds lists of 2 entries"),
    (table(TABLE, other_action([[1.0]] * 7 + [[1.0] * 3] * 8)), "holds lists of 1 and 3 entries"),
    (table(TABLE, other_action([[1.0, 2.0, float("nan")]] * 15)), "values of action that are no finite numbers"),
    (drop(VIDEO), f"There is no .*{VIDEO}"),
    (cut(VIDEO), f"{VIDEO} (is no whole video|ends or skips)"),
    (lambda root: (root / VIDEO).write_bytes(b""), f"{VIDEO} is no whole video"),
    (lambda root: shutil.copy(root / VIDEO.replace("01.", "00."), root / VIDEO), "15 rows and 12 frames"),
]
V30_DAMAGES: list[tuple[Damage, str]] = [
    (drop("meta/tasks.parquet"), "There is no .*meta/tasks.parquet"),
    (cut("meta/tasks.parquet"), "meta/tasks.parquet is no whole parquet file"),
    (drop(EPISODES_V3), "meta/episodes holds no parquet file"),
    (table(EPISODES_V3, lambda rows: rows.drop_columns(["data/file_index"])), "has no field 'data/file_index'"),
    (table(EPISODES_V3, lambda rows: rows.slice(0, 2)), "says 3 of total_episodes, and .*meta lists 2"),
    (cut("meta/stats.json"), "meta/stats.json is no valid JSON"),
    (cut("data/chunk-000/file-000.parquet"), "file-000.parquet is no whole parquet file"),
    (table("data/chunk-000/file-000.parquet", lambda rows: rows.slice(0, 20)), "has 20 rows, and the metadata says 15"),
    (table("data/chunk-000/file-000.parquet", lambda rows: rows.slice(12)), "holds other rows than episode 0's"),
    (cut(f"videos/{toy.VIDEO}/chunk-000/file-000.mp4"), "file-000.mp4 is no whole video|ends"),
]


@pytest.mark.parametrize(("damage", "sentence"), V21_DAMAGES)
def test_damaged_v21_datasets(damage: Damage, sentence: str, v21: Path, tmp_path: Path) -> None:
    find(damage, sentence, v21, tmp_path / "damaged")


@pytest.mark.parametrize(("damage", "sentence"), V30_DAMAGES)
def test_damaged_v30_datasets(damage: Damage, sentence: str, v30: Path, tmp_path: Path) -> None:
    find(damage, sentence, v30, tmp_path / "damaged")


def find(damage: Damage, sentence: str, source: Path, root: Path) -> None:
    shutil.copytree(source, root)
    damage(root)
    said = explore(root)
    assert any(re.search(sentence, one) for one in said), said
    assert all("\n" not in one and one.endswith(".") for one in said)


def test_asking_for_what_is_not_there(v21: Path) -> None:
    episode = open_dataset(v21).episode(0)
    with pytest.raises(UserError, match=r"Episode 0 of .* has no column 'force' \(it has: .*observation.state"):
        episode.column("force")
    with pytest.raises(UserError, match=r"has no camera 'top' \(it has: observation.images.front"):
        episode.images("top", [0])
