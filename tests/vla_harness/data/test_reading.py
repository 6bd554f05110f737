"""Datasets that other tools wrote open with the values that were put in."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from tests.vla_harness.data.recorded import FIXTURES
from vla_harness.data import Dataset, ModalityReader, open_dataset
from vla_harness.data.check import check_dataset
from vla_harness.data.videos import VideoFile

DEMO = FIXTURES / "groot_demo_piece"
EGO = "observation.images.ego_view"


@pytest.mark.parametrize("release", ["0.3.3", "0.4.4"])  # LeRobot v2.1 and v3.0
def test_what_lerobot_wrote_is_read_back(release: str) -> None:
    dataset = open_dataset(FIXTURES / f"written_by_lerobot_{release}")
    assert dataset.version == {"0.3.3": "v2.1", "0.4.4": "v3.0"}[release]
    assert (dataset.fps, dataset.robot_type, dataset.frames) == (10.0, "toy", 27)
    assert dataset.tasks == {0: "task 0", 1: "task 1"}
    assert [(e.index, e.length, e.tasks) for e in dataset.episodes] == [
        (0, 8, ("task 0",)), (1, 9, ("task 1",)), (2, 10, ("task 0",))
    ]  # fmt: skip
    assert dataset.features["observation.state"].names == ["a", "b", "c", "d"]
    for number in range(3):
        episode, rows = dataset.episode(number), np.arange(8 + number)
        e = np.full(len(rows), number)
        state = np.stack([e, rows, e + rows, e * rows], axis=1).astype(np.float32)
        np.testing.assert_array_equal(episode.column("observation.state"), state)
        np.testing.assert_array_equal(
            episode.column("action"), np.stack([rows / 10, e, -rows], axis=1).astype(np.float32)
        )
        np.testing.assert_array_equal(episode.column("next.done"), rows == 7 + number)
        np.testing.assert_allclose(episode.timestamps, rows / 10, atol=1e-6)
        assert episode.instruction(3) == f"task {number % 2}"
        video = episode.images("observation.images.front", rows.tolist())
        bars = video.astype(int).sum(axis=(1, 3)).reshape(len(rows), -1)[:, :90].reshape(len(rows), -1, 9).sum(axis=2)
        np.testing.assert_array_equal(bars.argmax(axis=1), rows)  # the bright bar moves with the row
        image = episode.images("observation.images.wrist", [2])[0]
        assert image.shape == (48, 48, 3) and (image[:, 18:27] == (125, 100, 45)).all()


@pytest.mark.parametrize("release", ["0.3.3", "0.4.4"])
def test_the_check_finds_nothing_wrong_with_what_lerobot_wrote(release: str) -> None:
    assert list(check_dataset(open_dataset(FIXTURES / f"written_by_lerobot_{release}"))) == []


@pytest.fixture(scope="module")
def demo() -> Dataset:
    return open_dataset(DEMO)


def test_nvidias_demo_opens_though_it_lists_a_camera_without_videos(demo: Dataset) -> None:
    assert (demo.version, demo.robot_type, demo.cameras) == ("v2.0", "GR1ArmsOnly", (EGO,))
    assert demo.episode(1).instruction(0) == "pick the sweet potato from the counter and place it in the plate"
    assert demo.modality.state["right_arm"].start == 22 and demo.modality.video == {"ego_view": EGO}
    complaints = list(check_dataset(demo))
    assert any("observation.images.egoview, which has no videos" in one for one in complaints)
    assert any("frame_index" in one for one in complaints) and any("timestamps" in one for one in complaints)


def test_a_frame_is_the_one_nearest_to_the_rows_timestamp(demo: Dataset) -> None:
    # The demo's timestamps begin at 0.05 s, so row i shows frame i + 1, and the last row the last frame.
    with av.open(str(DEMO / "videos/chunk-000" / EGO / "episode_000000.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    read = demo.episode(0).images(EGO, [38, 0, 39, 7, 7])
    np.testing.assert_array_equal(read, np.stack([frames[i] for i in (39, 1, 39, 8, 8)]))


def test_nearest_frames_stay_within_their_episode() -> None:
    video = VideoFile(FIXTURES / "written_by_lerobot_0.4.4/videos/observation.images.front/chunk-000/file-000.mp4")
    times = np.array([-5.0, 0.84, 0.86, 1.69, 99.0])
    assert video.nearest(times, 8, 16).tolist() == [8, 8, 9, 16, 16]
    assert video.nearest(times[:1], 3, 3).tolist() == [3]


# GR00T's windows.


def test_windows_repeat_edges_of_absolute_parts_and_are_zero_for_others(v21: Path) -> None:
    dataset = open_dataset(v21)
    reader, episode = ModalityReader(dataset), dataset.episode(1)
    window = reader.window(
        episode,
        13,
        {
            "state.arm": [-1, 0],
            "action.hand": range(4),
            "action.arm": range(4),
            "video.front": [0, 5],
            "annotation.human.task_description": [0],
        },
    )
    assert window["state.arm"].tolist() == [[1, 12, 12], [1, 13, 13]]
    assert window["action.hand"].ravel().tolist() == [-12, -13, -13, -13]
    np.testing.assert_allclose(window["action.arm"], [[1.3, 1.0], [1.4, 1.0], [0.0, 0.0], [0.0, 0.0]], atol=1e-6)
    np.testing.assert_array_equal(window["video.front"], episode.images("observation.images.front", [13, 14]))
    assert window["annotation.human.task_description"] == ["open the drawer"]
    first = reader.window(episode, 0, {"state.hand": [-2, -1, 0]})
    assert first["state.hand"].ravel().tolist() == [0, 0, 0] and first["state.hand"].dtype == np.float64


def test_metadata_hold_the_statistics_of_each_part(demo: Dataset) -> None:
    entry = ModalityReader(demo).metadata("gr1")
    assert entry["embodiment_tag"] == "gr1"
    assert entry["modalities"]["video"] == {"ego_view": {"resolution": [256, 256], "channels": 3, "fps": 20.0}}
    assert entry["modalities"]["action"]["waist"] == {
        "absolute": True, "rotation_type": None, "shape": [3], "continuous": True
    }  # fmt: skip
    values = np.concatenate([demo.episode(i).column("action")[:, 22:29] for i in range(2)])
    found = entry["statistics"]["action"]["right_arm"]
    expected: dict[str, np.ndarray] = {
        "min": values.min(axis=0),
        "max": values.max(axis=0),
        "mean": values.mean(axis=0),
        "std": values.std(axis=0),
        "q01": np.quantile(values, 0.01, axis=0),
        "q99": np.quantile(values, 0.99, axis=0),
    }
    for name, wanted in expected.items():
        np.testing.assert_allclose(found[name], wanted, atol=1e-12)


def test_a_dataset_without_modality_json_gets_one_part_for_each_feature() -> None:
    modality = open_dataset(FIXTURES / "written_by_lerobot_0.3.3").modality
    assert modality.keys == (
        "state.state", "action.action", "video.front", "video.wrist", "annotation.human.task_description"
    )  # fmt: skip
