"""Damaged datasets are refused, or found by the check, in one sentence that names file and field."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.vla_harness.data import public
from tests.vla_harness.data import recorded as toy
from vla_harness.data import convert_dataset, open_dataset
from vla_harness.data.__main__ import main as data_main
from vla_harness.data.check import check_dataset
from vla_harness.data.episode_writer import png_bytes
from vla_harness.data.writer import DatasetWriter
from vla_harness.errors import UserError
from vla_harness.eval import offline
from vla_harness.train import groot, openvla, tformer

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


def cell(column: str, row: int, value: Any, kind: pa.DataType | None = None) -> Damage:
    """Change one row of episode 1. kind: of the column from then on."""

    def change(rows: pa.Table) -> pa.Table:
        values = rows[column].to_pylist()
        values[row] = value
        array = pa.array(values, kind or rows.schema.field(column).type)
        return rows.set_column(rows.column_names.index(column), column, array)

    return table(TABLE, change)


def statistic(name: str, value: float) -> Damage:
    """Change the first number of one of the action's statistics."""

    def damage(root: Path) -> None:
        content = json.loads((root / "meta/stats.json").read_text())
        content["action"][name][0] = value
        (root / "meta/stats.json").write_text(json.dumps(content))

    return damage


def png(size: tuple[int, int]) -> bytes:
    """An image of (height, width) pixels, of noise."""
    return png_bytes(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))


def span(episode: int, **seconds: float) -> Damage:
    """Move an episode's part of the shared video, in meta/episodes."""

    def change(rows: pa.Table) -> pa.Table:
        for name, shift in seconds.items():
            column = f"videos/{toy.VIDEO}/{name}_timestamp"
            values = rows[column].to_pylist()
            values[episode] += shift
            rows = rows.set_column(rows.column_names.index(column), column, pa.array(values))
        return rows

    return table(EPISODES_V3, change)


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
    (
        table(TABLE, other_action([[1.0, 2.0, float("nan")]] * 15)),
        r"values of action that are no finite numbers \(nan in row 0, entry 2\)",
    ),
    (cell("timestamp", 7, float("nan")), r"Episode 1 of .* values of timestamp that are .* \(nan in row 7\)"),
    (cell("timestamp", 7, 0.6), r"Episode 1 of .* a timestamp of 0.6 s in row 7 after 0.6 s in row 6"),
    (cell("timestamp", 7, 0.1), r"timestamps must rise"),
    (cell("timestamp", 14, 99.0), r"row 14 of .*front, has the timestamp 99 s, for which .* has no frame"),
    (cell("task_index", 3, -1), r"Episode 1 of .* no task of the dataset \(-1 in row 3; it has 0, 1\)"),
    (cell("task_index", 3, None), r"column task_index of .* 1 missing values, the first in row 3 of episode 1"),
    (cell("grid", 3, [[0.0, None, 0.0]] * 2), r"column grid of .* 2 missing values, the first in row 3 of episode 1"),
    (cell("action", 3, [0.0, 0.0, 1e300], pa.list_(pa.float64())), r"values of action .* \(inf in row 3, entry 2\)"),
    (cell("frame_index", 3, float("inf"), pa.float64()), "frame_index .* the first in row 3 of episode 1"),
    (
        text("meta/tasks.jsonl", "open the drawer", " "),
        r"Episode 1 .* in row 0 the task_index 1, whose words are empty",
    ),
    (cell(toy.IMAGE, 7, None), r"Episode 1 of .*, row 7 of .*wrist, has no image"),
    (cell(toy.IMAGE, 7, {"bytes": b"no", "path": None}), r"row 7 of .*wrist, has an image that cannot be read"),
    (
        cell(toy.IMAGE, 7, {"bytes": png((8, 24))[:-30], "path": None}),
        r"an image of 8 x 24 pixels, and .* says 16 x 24",
    ),
    (cell(toy.IMAGE, 7, {"bytes": png((16, 24))[:-30], "path": None}), "row 7 of .*wrist, has an image that cannot be"),
    (statistic("max", float("nan")), r"meta/stats.json \(action.max\) has values that are no finite"),
    (statistic("std", -1.0), r"meta/stats.json has a min of action above its max, or a std below 0"),
    (text("meta/episodes_stats.jsonl", "0.0,", "NaN,"), "has statistics of .* that are no finite numbers"),
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
    *((span(1, **{"from": by, "to": by}), "says that episode . lies .* on top of episode") for by in (-1.2, -0.5, 0.5)),
    (span(0, **{"from": -0.5, "to": -0.5}), "says that episode 0 lies from -0.5 .* no part of a video"),
    (span(1, **{"from": float("nan")}), "says that episode 1 lies from nan .* no part of a video"),
    (span(2, **{"from": 0.5, "to": 0.5}), "Episode 2 of .* has 9 rows and 4 frames of"),
    (span(1, to=-0.5), "says that episode 1 lies .* too short for its 15 rows"),
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


# Every command refuses what the check finds, before it trains or writes anything.

COMMANDS: dict[str, Callable[[str, Path], int]] = {
    "summary": lambda data, out: data_main(["summary", data]),
    "convert": lambda data, out: data_main(["convert", data, str(out), "--version", "v3.0"]),
    "hdf5": lambda data, out: data_main(["convert", data, str(out), "--version", "hdf5"]),
    "offline": lambda data, out: offline.main(["--policy", "noop", "--dataset", data, "--out", str(out)]),
    "tformer": lambda data, out: tformer.main(["--dataset", data, "--out", str(out), "--device", "cpu"]),
    "openvla": lambda data, out: openvla.main(["--dataset", data, "--out", str(out), "--checkpoint", "unread"]),
    "groot": lambda data, out: groot.main(
        ["--dataset", data, "--out", str(out), "--checkpoint", "unread", "--data-config", "libero"]
    ),
}
REFUSED: dict[str, tuple[Damage, str]] = {
    "action": (cell("action", 5, [float("nan")] * 7), "Episode 1 of .* values of action"),
    "state": (cell("observation.state", 5, [float("inf")] * 8), "Episode 1 of .* values of observation.state"),
    "statistics": (statistic("mean", float("inf")), r"stats.json \(action.mean\) .* no finite numbers"),
    "timestamp": (cell("timestamp", 7, 0.3), "Episode 1 of .* timestamps must rise"),
    "task": (cell("task_index", 7, 7), "Episode 1 of .* no task of the dataset"),
    "image": (cell("observation.images.wrist", 7, None), "Episode 1 of .* row 7 of observation.images.wrist"),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("damage", REFUSED)
def test_every_command_refuses_what_the_check_finds(
    command: str, damage: str, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, (spoil, sentence) = tmp_path / "damaged", REFUSED[damage]
    shutil.copytree(own, root)
    spoil(root)
    assert COMMANDS[command](str(root), tmp_path / "out") == 2
    told = capsys.readouterr().err
    assert re.search(f"error: .*{sentence}", told) and not (tmp_path / "out").exists()


def test_a_short_video_is_refused_and_never_shows_the_next_episode(v21: Path, tmp_path: Path) -> None:
    root = tmp_path / "short"
    shutil.copytree(v21, root)
    shutil.copy(root / VIDEO.replace("01.", "02."), root / VIDEO)  # 9 frames
    for used in (
        lambda: open_dataset(root).episode(1).images(toy.VIDEO, [0]),
        lambda: convert_dataset(open_dataset(root), tmp_path / "v3", "v3.0"),
        lambda: DatasetWriter(root, 10, toy.FEATURES, "toy", toy.MODALITY),
    ):
        with pytest.raises(UserError, match=r"Episode 1 of .* has 15 rows and 9 frames of observation.images.front"):
            used()
    assert not (tmp_path / "v3").exists()


def test_a_dataset_without_instructions_is_said_to_be_one(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "wordless"
    shutil.copytree(own, root)
    text("meta/tasks.jsonl", public.WORDS, "")(root)
    assert open_dataset(root).episode(0).instruction(0) == ""
    assert COMMANDS["summary"](str(root), tmp_path) == 0
    assert COMMANDS["offline"](str(root), tmp_path / "off") == 0
    assert capsys.readouterr().out.count("has no instructions") == 2
    assert data_main(["check", str(root)]) == 1
    for command in ("tformer", "openvla", "groot"):
        assert COMMANDS[command](str(root), tmp_path / "out") == 2
        assert "has no instructions, which are needed here" in capsys.readouterr().err
