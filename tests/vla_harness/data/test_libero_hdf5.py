"""LIBERO's HDF5 demonstrations open as a dataset and become LeRobot's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from vla_harness.data import (
    Dataset,
    DatasetWriter,
    Feature,
    ModalityReader,
    convert_dataset,
    libero_hdf5_writer,
    open_dataset,
)
from vla_harness.data.__main__ import main
from vla_harness.data.check import check_dataset
from vla_harness.errors import UserError
from vla_harness.eval import offline

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
            data.attrs["macros_image_convention"] = "opengl"
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


def test_actions_are_paired_with_the_rows_before_them_where_that_is_asked_for(
    demonstrations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored, shifted = open_dataset(demonstrations), open_dataset(demonstrations, shift_observations=True)
    assert [record.length for record in shifted.episodes] == [5, 6, 4] and not shifted.notices
    for position in range(3):
        here, there = shifted.episode(position), stored.episode(position)
        for name, rows in (
            ("action", slice(1, None)),
            ("observation.state", slice(0, -1)),
            ("timestamp", slice(0, -1)),
        ):
            np.testing.assert_array_equal(here.column(name), there.column(name)[rows])
        camera = "observation.images.wrist"
        np.testing.assert_array_equal(here.images(camera, range(len(here))), there.images(camera, range(len(here))))
    assert list(check_dataset(shifted)) == []
    # Who trains or evaluates on rows as they are stored is told so; what is written here says how it is.
    out = str(tmp_path / "offline")
    assert offline.main(["--policy", "noop", "--dataset", str(demonstrations), "--out", out]) == 0
    assert "note       LIBERO's own HDF5 files hold in row i what was seen after" in capsys.readouterr().out
    again = convert_dataset(record(tmp_path / "lerobot"), tmp_path / "hdf5", "hdf5")
    assert not again.notices
    for path, sentence in ((again.path, "leave --shift-observations out"), (tmp_path / "lerobot", "is no HDF5 file")):
        with pytest.raises(UserError, match=sentence):
            open_dataset(path, shift_observations=True)


def test_a_disk_without_room_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, room = record(tmp_path / "lerobot"), shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(libero_hdf5_writer.shutil, "disk_usage", lambda path: room)
    with pytest.raises(UserError, match=r"take about (\S+) MB, and 0\.001 MB are free at .*out: ") as refusal:
        convert_dataset(source, tmp_path / "out", "hdf5")
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    written = convert_dataset(source, tmp_path / "out", "hdf5").path
    truth = sum(file.stat().st_size for file in written.iterdir()) / 1e6
    assert truth / 2 < float(str(refusal.value).split("about ")[1].split()[0]) < truth * 2


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


# Writing.

WORDS = ("put the bowl on the plate", "Open the drawer!", "put the bowl on the plate")
FEATURES = {
    "observation.images.agentview": Feature("image", (32, 32, 3)),
    "observation.images.wrist": Feature("image", (32, 32, 3)),
    "observation.state": Feature("float32", (8,)),
    "observation.light": Feature("float32", (1,)),
    "action": Feature("float32", (7,)),
}


def record(path: Path, fps: int = 20, **changes: Feature) -> Dataset:
    """A LeRobot dataset as demonstrations of LIBERO are recorded: no joints, something that LIBERO has no name for."""
    features = FEATURES | changes
    draw = np.random.default_rng(0)
    with DatasetWriter(path, fps, features, "panda") as writer:
        for demo, words in enumerate(WORDS):
            with writer.episode(words) as episode:
                for row in range(4 + demo):
                    values = {
                        name: upright(demo, row) if f.is_visual else draw.random(f.shape).astype(np.float32)
                        for name, f in features.items()
                    }
                    episode.add(values)
    return open_dataset(path)


def same_values(here: Dataset, there: Dataset, order: list[int]) -> None:
    """Compare episode by episode; order: the places that ``here``'s episodes have in ``there``."""
    for place, number in enumerate(order):
        one, other = here.episode(place), there.episode(number)
        assert (one.length, one.instruction(0)) == (other.length, other.instruction(0))
        for name in ("observation.state", "action"):
            np.testing.assert_array_equal(one.column(name), other.column(name))


def test_lerobots_becomes_it_and_lerobots_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = record(tmp_path / "lerobot")
    assert main(["convert", str(source.path), str(tmp_path / "hdf5"), "--version", "hdf5"]) == 0
    told = capsys.readouterr().out
    assert "left out, as LIBERO's files have no place for it: observation.light\n" in told
    assert told.endswith("hdf5: 3 episodes, LIBERO's HDF5 demonstrations\n")
    written = open_dataset(tmp_path / "hdf5")
    assert [file.name for file in sorted(written.path.iterdir())] == [
        "Open_the_drawer_demo.hdf5", "put_the_bowl_on_the_plate_demo.hdf5"
    ]  # fmt: skip
    assert list(check_dataset(written)) == [] and "observation.state.joint" not in written.features
    order = [1, 0, 2]  # LIBERO's have one file for each task
    same_values(written, source, order)
    for place, number in enumerate(order):
        for camera in source.cameras:
            rows = range(4 + number)
            frames = written.episode(place).images(camera, rows)
            np.testing.assert_array_equal(frames, source.episode(number).images(camera, rows))
    again = convert_dataset(written, tmp_path / "again", "v3.0")
    assert list(check_dataset(again)) == []
    same_values(again, source, order)


def test_the_files_are_laid_out_as_liberos(demonstrations: Path, tmp_path: Path) -> None:
    """By the names and kinds of LIBERO's ``create_dataset.py``; read as its users do, not by our reader."""
    middle = convert_dataset(open_dataset(demonstrations), tmp_path / "v21", "v2.1")
    convert_dataset(middle, tmp_path / "hdf5", "hdf5")
    with h5py.File(tmp_path / "hdf5/put_the_bowl_on_the_plate_demo.hdf5") as file:
        data = file["data"]
        assert (data.attrs["num_demos"], data.attrs["total"]) == (2, 12) and sorted(data) == ["demo_0", "demo_1"]
        assert json.loads(data.attrs["problem_info"])["language_instruction"] == "put the bowl on the plate"
        demo, observations = data["demo_1"], data["demo_1/obs"]
        assert demo.attrs["num_samples"] == 5
        shapes = {name: (field.shape, str(field.dtype)) for name, field in observations.items()}
        assert shapes == {
            "agentview_rgb": ((5, 32, 32, 3), "uint8"),
            "eye_in_hand_rgb": ((5, 32, 32, 3), "uint8"),
            "ee_pos": ((5, 3), "float64"),
            "ee_ori": ((5, 3), "float64"),
            "ee_states": ((5, 6), "float64"),
            "gripper_states": ((5, 2), "float64"),
            "joint_states": ((5, 7), "float64"),
        }
        assert observations["ee_states"][1].tolist() == [1003, 1004, 1005, 1003, 1004, 1005]
        assert observations["joint_states"][0].tolist() == [1000, 1001, 1002, 1003, 1004, 1005, 1006]
        assert demo["rewards"][:].tolist() == demo["dones"][:].tolist() == [0, 0, 0, 0, 1]
        np.testing.assert_allclose(demo["actions"][4], np.arange(28, 35) / 100 + 1, atol=1e-6)
        frame = observations["agentview_rgb"][3].astype(int)  # upside down: the bar is at the bottom
        assert frame[-3, :14].min() > 200 > frame[:20].max()


@pytest.mark.parametrize(
    ("fps", "changes", "sentence"),
    [
        (10, {}, "has 10 frames a second, and LIBERO's files have 20"),
        (20, {"action": Feature("float32", (6,))}, "has no action of 7 numbers"),
        (20, {"observation.state": Feature("float32", (9,))}, r"has no state.eef_pos of 3 numbers.*modality\.json"),
        (20, {"observation.images.wrist": Feature("float32", (1,))}, r"has no camera 'wrist'.*\(frames upright\)"),
    ],
)
def test_what_liberos_files_need_is_named(fps: int, changes: dict[str, Feature], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        convert_dataset(record(tmp_path / "lerobot", fps, **changes), tmp_path / "hdf5", "hdf5")
    assert not (tmp_path / "hdf5").exists()
