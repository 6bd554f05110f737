"""LIBERO's HDF5 demonstrations open as a dataset and become LeRobot's."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from vla_harness.data import ModalityReader, convert_dataset, open_dataset
from vla_harness.data.check import check_dataset
from vla_harness.errors import UserError

LENGTHS = {"put_the_bowl_on_the_plate": (7, 5), "open_the_drawer": (6,)}


def upright(demo: int, row: int) -> np.ndarray:
    """(32, 32, 3) uint8: a bright bar at the top whose length is the row's number."""
    image = np.full((32, 32, 3), 30 * (demo + 1), np.uint8)
    image[:4, : 4 * (row + 1)] = 250
    return image


def write(folder: Path) -> Path:
    """Write files as LIBERO's ``create_dataset.py`` does; its frames are upside down."""
    folder.mkdir()
    for task, lengths in LENGTHS.items():
        with h5py.File(folder / f"{task}_demo.hdf5", "w") as file:
            data = file.create_group("data")
            data.attrs["problem_info"] = json.dumps({"language_instruction": [*task.replace("_", " ")]})
            for demo, length in enumerate(lengths):
                group = data.create_group(f"demo_{demo + 9}")  # so that 9 comes before 10
                group["actions"] = np.arange(7.0 * length).reshape(length, 7) / 100 + demo
                images = np.stack([upright(demo, row)[::-1] for row in range(length)])
                observations = group.create_group("obs")
                observations["agentview_rgb"] = images
                observations["eye_in_hand_rgb"] = images // 2
                for name, size in (("ee_pos", 3), ("ee_ori", 3), ("gripper_states", 2), ("joint_states", 7)):
                    observations[name] = np.arange(float(size * length)).reshape(length, size) + 1000 * demo
    return folder


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("hdf5") / "libero_toy")


def test_a_folder_of_files_is_one_dataset(demonstrations: Path) -> None:
    dataset = open_dataset(demonstrations)
    assert dataset.tasks == {0: "open the drawer", 1: "put the bowl on the plate"}
    assert [record.length for record in dataset.episodes] == [6, 7, 5]
    episode = dataset.episode(2)
    assert episode.instruction(0) == "put the bowl on the plate"
    state = episode.column("observation.state")[1]
    assert state.tolist() == [1003, 1004, 1005, 1003, 1004, 1005, 1002, 1003]
    np.testing.assert_allclose(episode.column("action")[4], np.arange(28, 35) / 100 + 1, atol=1e-6)
    frames = episode.images("observation.images.agentview", [3, 0])
    np.testing.assert_array_equal(frames, np.stack([upright(1, 3), upright(1, 0)]))
    window = ModalityReader(dataset).window(episode, 1, {"state.gripper_qpos": [0], "action.action": [0, 9]})
    assert window["state.gripper_qpos"].tolist() == [[1002, 1003]] and not window["action.action"][1].any()
    assert dataset.statistics["action"]["max"][6] == pytest.approx(1.34)
    assert list(check_dataset(dataset)) == []


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_it_becomes_lerobots(version: str, demonstrations: Path, tmp_path: Path) -> None:
    source = open_dataset(demonstrations)
    written = convert_dataset(source, tmp_path / "out", version)  # type: ignore[arg-type]
    assert list(check_dataset(written)) == []
    assert written.modality == source.modality and written.tasks == source.tasks
    for number in range(3):
        there, here = source.episode(number), written.episode(number)
        for name in ("observation.state", "action", "task_index"):
            np.testing.assert_array_equal(here.column(name), there.column(name))
        frames = here.images("observation.images.agentview", range(here.length)).astype(int)
        expected = there.images("observation.images.agentview", range(there.length)).astype(int)
        assert np.abs(frames - expected).mean() < 3  # H.264


def test_a_single_file_without_words_takes_its_name(demonstrations: Path, tmp_path: Path) -> None:
    path = tmp_path / "open_the_drawer_demo.hdf5"
    path.write_bytes((demonstrations / "open_the_drawer_demo.hdf5").read_bytes())
    with h5py.File(path, "r+") as file:
        del file["data"].attrs["problem_info"]
    dataset = open_dataset(path)
    assert dataset.episode(0).instruction(0) == "open the drawer" and dataset.frames == 6


def test_damage_is_named(demonstrations: Path, tmp_path: Path) -> None:
    path = tmp_path / "torn.hdf5"
    whole = (demonstrations / "open_the_drawer_demo.hdf5").read_bytes()
    for content, sentence in (
        (whole[: len(whole) // 2], "torn.hdf5 is no whole HDF5 file"),
        (b"", "torn.hdf5 is no whole HDF5 file"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=sentence):
            open_dataset(path)
    path.write_bytes(whole)
    with h5py.File(path, "r+") as file:
        del file["data/demo_9/obs/ee_ori"]
    with pytest.raises(UserError, match=r"torn\.hdf5 has no field data/demo_9/obs/ee_ori"):
        open_dataset(path).episode(0).column("observation.state")
    with h5py.File(path, "r+") as file:
        del file["data/demo_9/actions"]
    with pytest.raises(UserError, match=r"torn\.hdf5 has no field data/demo_9/actions"):
        open_dataset(path)
