"""What the writer and the conversions leave, and that no kill costs more than the episode under way."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.vla_harness.data import recorded as toy
from vla_harness.data import Dataset, DatasetWriter, convert_dataset, open_dataset
from vla_harness.data.check import check_dataset
from vla_harness.errors import UserError


def assert_is_the_toy(dataset: Dataset) -> None:
    assert [record.length for record in dataset.episodes] == list(toy.LENGTHS)
    for number, length in enumerate(toy.LENGTHS):
        episode = dataset.episode(number)
        expected = [toy.frame(number, row) for row in range(length)]
        for name in ("observation.state", "grid", "action", "next.done", "note"):
            values = np.stack([np.asarray(one[name], object if name == "note" else None) for one in expected])
            np.testing.assert_array_equal(episode.column(name), values.reshape(episode.column(name).shape))
        images = episode.images(toy.IMAGE, range(length))
        np.testing.assert_array_equal(images, np.stack([np.asarray(one[toy.IMAGE]) for one in expected]))
        assert [toy.bar_row(image) for image in episode.images(toy.VIDEO, range(length))] == list(range(length))
        assert episode.instruction(0) == ("lift the cup", "open the drawer")[number % 2]


@pytest.mark.parametrize("version", ["v21", "v30"])
def test_everything_is_read_back_and_the_check_is_content(version: str, request: pytest.FixtureRequest) -> None:
    dataset = open_dataset(request.getfixturevalue(version))
    assert_is_the_toy(dataset)
    assert list(check_dataset(dataset)) == []
    assert dataset.modality == toy.MODALITY


def test_v30_becomes_v21_again_with_the_same_frames(v21: Path, v30: Path, tmp_path: Path) -> None:
    again = convert_dataset(open_dataset(v30), tmp_path / "again", "v2.1")
    assert_is_the_toy(again)
    assert list(check_dataset(again)) == []
    first = open_dataset(v21).episode(2).images(toy.VIDEO, range(9))
    np.testing.assert_array_equal(again.episode(2).images(toy.VIDEO, range(9)), first)
    # One number of an episode's statistics is a sample of frames, the others are all the same.
    for name in ("info.json", "tasks.jsonl", "episodes.jsonl", "stats.json", "modality.json"):
        assert (again.path / "meta" / name).read_text() == (v21 / "meta" / name).read_text(), name


def test_nvidias_demo_becomes_a_dataset_that_lerobot_reads(tmp_path: Path) -> None:
    source = open_dataset(toy.FIXTURES / "groot_demo_piece")
    for version in ("v2.1", "v3.0"):
        written = convert_dataset(source, tmp_path / version, version)  # type: ignore[arg-type]
        assert list(check_dataset(written)) == []
        assert written.cameras == source.cameras and written.modality == source.modality
        np.testing.assert_array_equal(written.episode(1).column("action"), source.episode(1).column("action"))
        # lerobot wants row i to show frame i; the demo's own timestamps say frame i + 1.
        np.testing.assert_array_equal(
            written.episode(1).images(source.cameras[0], [1, 20]), source.episode(1).images(source.cameras[0], [0, 19])
        )


def test_videos_of_v30_are_joined_and_named_in_seconds(v30: Path) -> None:
    assert [path.name for path in (v30 / "videos" / toy.VIDEO).glob("*/*")] == ["file-000.mp4"]
    rows = pq.read_table(v30 / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    key = f"videos/{toy.VIDEO}"
    assert [(row[f"{key}/from_timestamp"], row[f"{key}/to_timestamp"]) for row in rows] == [
        (0.0, 1.2), (1.2, 2.7), (2.7, 3.6)
    ]  # fmt: skip
    assert [(row["dataset_from_index"], row["dataset_to_index"]) for row in rows] == [(0, 12), (12, 27), (27, 36)]


def test_statistics_are_those_of_all_frames(v21: Path, v30: Path) -> None:
    actions = np.array([toy.frame(e, r)["action"] for e, n in enumerate(toy.LENGTHS) for r in range(n)], np.float64)
    for path in (v21, v30):
        found = json.loads((path / "meta/stats.json").read_text())["action"]
        np.testing.assert_allclose(found["mean"], actions.mean(axis=0), atol=1e-7)
        np.testing.assert_allclose(found["std"], actions.std(axis=0), atol=1e-7)
        np.testing.assert_allclose(found["q99"], np.quantile(actions, 0.99, axis=0), atol=1e-7)
    # GR00T's loader takes exactly these of v2, and indexes each by the parts of the state.
    assert set(json.loads((v21 / "meta/stats.json").read_text())["action"]) == {
        "max", "min", "mean", "std", "q01", "q99"
    }  # fmt: skip


def test_image_statistics_are_by_channel(v21: Path) -> None:
    (first, *_) = (json.loads(line) for line in (v21 / "meta/episodes_stats.jsonl").read_text().splitlines())
    found = first["stats"][toy.IMAGE]
    images = np.stack([np.asarray(toy.frame(0, row)[toy.IMAGE]) for row in range(12)]) / 255
    np.testing.assert_allclose(np.ravel(found["mean"]), images.mean(axis=(0, 1, 2)), atol=1e-9)
    np.testing.assert_allclose(np.ravel(found["std"]), images.std(axis=(0, 1, 2)), atol=1e-9)
    assert np.shape(found["max"]) == (3, 1, 1) and found["count"] == [12]


# Crashes.


def killed_recording(path: Path, moment: int) -> bool:
    """Record into ``path`` in another process, which dies at its ``moment``-th write to the disk. Whether it did."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    with suppress(BaseException):
        left = [moment]

        def dying(write: Callable[..., Any]) -> Callable[..., Any]:
            def counted(*arguments: Any) -> Any:
                left[0] -= 1
                if left[0] == 0:
                    os._exit(9)  # no clean-up, as with SIGKILL
                return write(*arguments)

            return counted

        os.fsync, Path.replace = dying(os.fsync), dying(Path.replace)  # type: ignore[assignment, method-assign]
        Path.rename = dying(Path.rename)  # type: ignore[method-assign]
        with DatasetWriter(path, 10, toy.FEATURES, "toy", toy.MODALITY) as writer:
            toy.write(writer, tuple(range(writer.episodes, 3)))
        os._exit(0)
    os._exit(1)


def test_a_kill_at_any_write_costs_at_most_the_episode_under_way(v21: Path, tmp_path: Path) -> None:
    path, seen, moment = tmp_path / "data", 0, 0
    while killed_recording(path, moment := moment + 1):  # each sitting gets one write further than the last
        listed = path / "meta/episodes.jsonl"
        complete = len(listed.read_text().splitlines()) if listed.exists() else 0
        assert complete >= seen
        seen = complete
    assert moment > 10
    assert_is_the_toy(open_dataset(path))
    assert list(check_dataset(open_dataset(path))) == []
    files = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}
    assert files == {str(file.relative_to(v21)) for file in v21.rglob("*") if file.is_file()}


def test_torn_metadata_are_put_in_order(v21: Path, tmp_path: Path) -> None:
    path = tmp_path / "torn"
    shutil.copytree(v21, path)
    with (path / "meta/episodes.jsonl").open("r+") as file:
        file.truncate(len(file.read()) - 10)  # the third line is cut short; its table and video are there
    with DatasetWriter(path, 10, toy.FEATURES, "toy", toy.MODALITY) as writer:
        assert writer.episodes == 2 and open_dataset(path).frames == 27
        assert not (path / "data/chunk-000/episode_000002.parquet").exists()
        toy.write(writer, (2,))
    assert_is_the_toy(open_dataset(path))


def test_rows_without_a_task_index_keep_the_task_of_their_episode(v21: Path, tmp_path: Path) -> None:
    path = tmp_path / "partly"
    shutil.copytree(v21, path)
    table = pq.read_table(path / "data/chunk-000/episode_000001.parquet").drop_columns(["task_index"])
    pq.write_table(table, path / "data/chunk-000/episode_000001.parquet")
    for written in (
        convert_dataset(open_dataset(path), tmp_path / "v30", "v3.0"),
        convert_dataset(open_dataset(tmp_path / "v30"), tmp_path / "v21", "v2.1"),
    ):
        assert [written.episode(i).instruction(0) for i in range(3)] == [
            "lift the cup",
            "open the drawer",
            "lift the cup",
        ]
    lines = path / "meta/episodes.jsonl"
    lines.write_text(lines.read_text().replace("open the drawer", "fly"))
    with pytest.raises(UserError, match=r"Episode 1 of .* has the task 'fly', which is none of the dataset's"):
        convert_dataset(open_dataset(path), tmp_path / "no", "v3.0")


def test_metadata_that_no_kill_leaves_are_not_put_in_order(v21: Path, tmp_path: Path) -> None:
    """Else whole episodes would be dropped."""
    for number, (name, old, new, sentence) in enumerate((
        ("episodes.jsonl", '"length": 12}', '"length": 12', "Line 1 of .* is no valid JSON"),
        ("episodes.jsonl", '{"episode_index": 2', '{"episode_index": 3', "does not number its episodes"),
        ("info.json", "episode_{episode_index:06d}.parquet", "{episode_index:06d}.parquet", "another data_path"),
    )):  # fmt: skip
        path = tmp_path / str(number)
        shutil.copytree(v21, path)
        file = path / "meta" / name
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))
        before = {entry: entry.read_bytes() for entry in path.rglob("*") if entry.is_file()}
        with pytest.raises(UserError, match=sentence):
            DatasetWriter(path, 10, toy.FEATURES, "toy", toy.MODALITY)
        assert {entry: entry.read_bytes() for entry in path.rglob("*") if entry.is_file()} == before


def test_an_episode_left_by_an_exception_leaves_nothing(tmp_path: Path) -> None:
    writer = DatasetWriter(tmp_path / "data", 10, toy.FEATURES, "toy", toy.MODALITY)
    with pytest.raises(RuntimeError), writer.episode("lift the cup") as episode:
        episode.add(toy.frame(0, 0))
        raise RuntimeError("the robot fell over")
    assert writer.episodes == 0 and not list((tmp_path / "data").rglob("*.mp4*"))
    toy.write(writer)
    writer.finish()
    assert_is_the_toy(open_dataset(tmp_path / "data"))


def test_statistics_of_fewer_episodes_do_not_outlive_a_new_one(v21: Path, tmp_path: Path) -> None:
    path = tmp_path / "grown"
    shutil.copytree(v21, path)
    writer = DatasetWriter(path, 10, toy.FEATURES, "toy", toy.MODALITY)
    toy.write(writer, (0,))
    assert not (path / "meta/stats.json").exists()  # and so they are computed anew
    assert open_dataset(path).statistics["index"]["max"] == 47


# Refusals.


def test_another_datasets_folder_is_not_written_into(v21: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="another fps"):
        DatasetWriter(v21, 20, toy.FEATURES, "toy")
    with pytest.raises(UserError, match="another features"):
        DatasetWriter(v21, 10, {"action": toy.FEATURES["action"]}, "toy")
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="something else than a dataset"):
        DatasetWriter(tmp_path, 10, toy.FEATURES)
    with pytest.raises(UserError, match="exists already"):
        convert_dataset(open_dataset(v21), tmp_path, "v3.0")
    with pytest.raises(UserError, match=r"is a v2\.1 dataset already"):
        convert_dataset(open_dataset(v21), tmp_path / "new", "v2.1")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"action": np.zeros(4, np.float32)}, r"action is \(4,\) in a frame"),
        ({"action": np.array([0, np.nan, 0])}, "action holds nan in a frame"),
        ({toy.IMAGE: np.zeros((16, 24, 3), np.float32)}, "wrist is"),
        ({"reward": 1.0}, r"other features than the dataset \(reward\)"),
    ],
)
def test_frames_that_do_not_fit_are_refused(change: dict[str, object], sentence: str, tmp_path: Path) -> None:
    writer = DatasetWriter(tmp_path / "data", 10, toy.FEATURES, "toy")
    with pytest.raises(UserError, match=sentence), writer.episode("lift the cup") as episode:
        episode.add(toy.frame(0, 0) | change)
    with pytest.raises(UserError, match="at least one frame"), writer.episode("lift the cup"):
        pass
    assert writer.episodes == 0
