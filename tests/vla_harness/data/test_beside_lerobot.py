"""What lerobot 0.3.3, 0.4.4 and 0.6.1 need to record on in our datasets and to merge them with theirs.

Each was tried with those releases; here are the facts of the files that decided it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.vla_harness.data import recorded as toy
from vla_harness.data import DatasetWriter, Feature, convert_dataset, open_dataset
from vla_harness.data.__main__ import main
from vla_harness.data.check import check_dataset
from vla_harness.errors import UserError

NAMES = {"min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99"}
CAMERAS = ("observation.images.front", "observation.images.wrist")


def episode_rows(root: Path) -> list[dict[str, Any]]:
    return pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_feature_of_an_episode_has_the_same_statistics_in_v30(v30: Path) -> None:
    # lerobot's resume writes quantiles of every feature, and cannot join its table to one that lacks a column.
    stored = {
        key.removeprefix("stats/").rpartition("/")[::2] for key in episode_rows(v30)[0] if key.startswith("stats/")
    }
    numeric = {name for name, feature in open_dataset(v30).features.items() if feature.dtype != "string"}
    assert stored == {(name, statistic) for name in numeric for statistic in NAMES}
    assert set(json.loads((v30 / "meta/stats.json").read_text())) == numeric


def test_quantiles_of_images_are_those_of_their_pixels(v30: Path) -> None:
    images = np.stack([np.asarray(toy.frame(0, row)[toy.IMAGE]) for row in range(toy.LENGTHS[0])])
    row = episode_rows(v30)[0]
    for name, share in (("q01", 0.01), ("q50", 0.5), ("q99", 0.99)):
        expected = np.quantile(images, share, axis=(0, 1, 2), method="inverted_cdf") / 255
        np.testing.assert_allclose(np.ravel(row[f"stats/{toy.IMAGE}/{name}"]), expected, atol=1e-12)


def test_several_axes_are_summed_up_as_lerobot_does(v21: Path, v30: Path) -> None:
    grid = np.array([[toy.frame(0, row)["grid"] for row in range(12)]])[0]
    entry = lines(v21 / "meta/episodes_stats.jsonl")[0]["stats"]["grid"]
    np.testing.assert_allclose(entry["mean"], grid.mean(axis=0))  # (2, 3), as 0.3.3
    row = episode_rows(v30)[0]
    np.testing.assert_allclose(row["stats/grid/mean"], grid.mean(axis=(0, 1)))  # (3,), as 0.4.4 and 0.6.1
    np.testing.assert_allclose(row["stats/grid/std"], grid.std(axis=(0, 1)))
    assert row["stats/grid/count"] == [12]


def test_lerobots_statistics_of_several_axes_do_not_stop_anything(
    v30: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert np.shape(json.loads((v30 / "meta/stats.json").read_text())["grid"]["mean"]) == (3,)
    assert main(["summary", str(v30)]) == 0
    assert "2x3" in capsys.readouterr().out
    dataset = open_dataset(v30)
    assert dataset.statistics["grid"]["mean"].shape == (6,)  # of all frames, computed
    assert list(check_dataset(dataset)) == []


@pytest.mark.parametrize(("release", "version"), [("0.3.3", "v3.0"), ("0.4.4", "v2.1")])
def test_statistics_of_images_are_kept(release: str, version: str, tmp_path: Path) -> None:
    source = toy.FIXTURES / f"written_by_lerobot_{release}"
    written = convert_dataset(open_dataset(source), tmp_path / "out", version).path  # type: ignore[arg-type]
    if version == "v3.0":
        before = [row["stats"] for row in lines(source / "meta/episodes_stats.jsonl")]
        after = [
            {name: {one: row[f"stats/{name}/{one}"] for one in NAMES} for name in CAMERAS}
            for row in episode_rows(written)
        ]
    else:
        before = [
            {name: {one: row[f"stats/{name}/{one}"] for one in NAMES} for name in CAMERAS}
            for row in episode_rows(source)
        ]
        after = [row["stats"] for row in lines(written / "meta/episodes_stats.jsonl")]
    for old, new in zip(before, after, strict=True):
        for name in CAMERAS:
            assert set(new[name]) == NAMES
            assert {one: new[name][one] for one in old[name]} == old[name]


def test_merged_statistics_of_images_weigh_episodes_by_their_counts(tmp_path: Path) -> None:
    source = toy.FIXTURES / "written_by_lerobot_0.3.3"
    written = convert_dataset(open_dataset(source), tmp_path / "out", "v3.0").path
    stored = json.loads((written / "meta/stats.json").read_text())[CAMERAS[0]]
    entries = [row["stats"][CAMERAS[0]] for row in lines(source / "meta/episodes_stats.jsonl")]
    counts = np.array([entry["count"][0] for entry in entries])
    means, deviations = (np.array([np.ravel(entry[name]) for entry in entries]) for name in ("mean", "std"))
    mean = np.average(means, axis=0, weights=counts)
    variance = np.average(deviations**2 + (means - mean) ** 2, axis=0, weights=counts)
    np.testing.assert_allclose(np.ravel(stored["mean"]), mean)
    np.testing.assert_allclose(np.ravel(stored["std"]), np.sqrt(variance))
    assert stored["count"] == [counts.sum()] and np.shape(stored["q50"]) == (3, 1, 1)


def test_no_robot_is_null_and_a_video_says_that_it_is_no_depth(tmp_path: Path) -> None:
    camera = "observation.images.front"
    features = {camera: Feature("video", (16, 16, 3)), "action": Feature("float32", (2,))}
    for _ in range(2):  # and the recording goes on
        with DatasetWriter(tmp_path / "set", 10, features) as writer, writer.episode("wave") as episode:
            episode.add({camera: np.zeros((16, 16, 3), np.uint8), "action": np.zeros(2)})
    convert_dataset(open_dataset(tmp_path / "set"), tmp_path / "v3", "v3.0")
    for folder in ("set", "v3"):
        info = json.loads((tmp_path / folder / "meta/info.json").read_text())
        assert info["robot_type"] is None and info["total_episodes"] == 2
        told = info["features"][camera]["info"]
        assert told["is_depth_map"] is False and "video.is_depth_map" not in told  # lerobot 0.6.1 compares the keys


def test_nvidias_loader_finds_a_video_for_every_camera_that_modality_json_lists(v21: Path, v30: Path) -> None:
    for path in (v21, v30):
        content = json.loads((path / "meta/modality.json").read_text())
        assert content["video"] == {"front": {"original_key": toy.VIDEO}}
        assert content["image"] == {"wrist": {"original_key": toy.IMAGE}}
        assert open_dataset(path).modality.video == {"front": toy.VIDEO, "wrist": toy.IMAGE}


@pytest.mark.parametrize("mark", ["is_depth_map", "video.is_depth_map"])  # lerobot 0.6.1's, and earlier ones'
def test_videos_of_depth_are_kept_and_are_no_colors(mark: str, v21: Path, tmp_path: Path) -> None:
    source = tmp_path / "depth"
    shutil.copytree(v21, source)
    info = json.loads((source / "meta/info.json").read_text())
    info["features"][toy.VIDEO]["info"] = {mark: True}
    (source / "meta/info.json").write_text(json.dumps(info))
    (source / "meta/episodes_stats.jsonl").unlink()
    written = convert_dataset(open_dataset(source), tmp_path / "v3", "v3.0")
    episode = written.episode(0)
    assert not episode.has_colors(toy.VIDEO)
    with pytest.raises(UserError, match=f"{toy.VIDEO} .* is a video of depth, which is no color image"):
        episode.images(toy.VIDEO, [0])
    (first,) = episode.raw_images(toy.VIDEO, [0])
    assert first.shape == (48, 64) and first.dtype == np.uint16
    assert first[:, :4].mean() > 2 * first[:, 8:].mean()  # the bright bar
    row = episode_rows(written.path)[0]
    assert np.shape(row[f"stats/{toy.VIDEO}/mean"]) == (1, 1, 1)  # as 0.6.1 stores it: one channel, undivided
    assert row[f"stats/{toy.VIDEO}/max"][0][0][0] > 255
    assert list(check_dataset(written)) == []
