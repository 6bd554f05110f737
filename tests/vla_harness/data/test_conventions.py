"""Public LIBERO datasets, as they are laid out, come out in the harness's terms."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.vla_harness.data import public
from vla_harness.data import open_dataset
from vla_harness.data.__main__ import main
from vla_harness.data.check import check_dataset
from vla_harness.data.conventions import (
    ACTION_NAMES,
    EARLIER_STATE_NAMES,
    STATE,
    STATE_NAMES,
    ConventionName,
    check_gripper,
    fitting,
    translate,
)
from vla_harness.errors import UserError

VERSIONS: dict[ConventionName, str] = {"openpi": "v2.1", "lerobot": "v3.0", "openx": "v2.1"}
CAMERAS = ("observation.images.agentview", "observation.images.wrist")


@pytest.fixture(scope="module", params=VERSIONS)
def named(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[ConventionName, Path]:
    name: ConventionName = request.param
    return name, public.write(tmp_path_factory.mktemp("public") / name, name, VERSIONS[name])


def test_a_convention_is_turned_into_our_terms(named: tuple[ConventionName, Path]) -> None:
    name, path = named
    dataset = open_dataset(path, name)
    assert dataset.cameras == CAMERAS
    assert list(dataset.modality.state) == ["eef_pos", "eef_axis_angle", "gripper_qpos"]
    for number in range(public.EPISODES):
        episode = dataset.episode(number)
        state, actions = public.numbers(number)
        np.testing.assert_array_equal(episode.column("observation.state"), state)
        np.testing.assert_array_equal(episode.column("action"), actions)
        for place, camera in enumerate(CAMERAS):
            frames = episode.images(camera, range(public.ROWS))
            np.testing.assert_array_equal(frames, public.frames(number)[:, place])
    assert dataset.statistics["action"]["min"][6] == -1  # and not what meta/stats.json says of the stored ones
    assert "frames stored mirrored" in dataset.translation
    check_gripper(dataset)
    assert list(check_dataset(dataset)) == []


def test_it_is_recognised_by_its_columns_but_taken_only_when_told(named: tuple[ConventionName, Path]) -> None:
    name, path = named
    dataset = open_dataset(path)
    assert fitting(dataset) == [name]
    assert CAMERAS[0] not in dataset.cameras
    other: ConventionName = "openpi" if name != "openpi" else "openx"
    with pytest.raises(UserError, match=rf"does not follow the convention '{other}'.*--convention {name}"):
        open_dataset(path, other)


def test_it_becomes_a_dataset_in_our_terms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, path = "openx", public.write(tmp_path / "openx", "openx", "v3.0")
    assert main(["convert", str(path), str(tmp_path / "out"), "--version", "v3.0", "--convention", name]) == 0
    written = open_dataset(tmp_path / "out")
    assert list(check_dataset(written)) == []
    assert set(CAMERAS) == set(written.cameras)
    np.testing.assert_array_equal(written.episode(1).column("action"), public.numbers(1)[1])
    assert main(["summary", str(path), "--convention", name]) == 0
    assert "turned     frames stored mirrored, gripper" in capsys.readouterr().out


def test_a_gripper_that_contradicts_the_fingers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns, orientation, _, fps = public.LAYOUTS["own"]
    monkeypatch.setitem(public.LAYOUTS, "own", (columns, orientation, (1, -1), fps))
    with pytest.raises(UserError, match=r"The fingers of .* open where its actions close them .*or turn its gripper"):
        check_gripper(open_dataset(public.write(tmp_path / "swapped", "own")))
    monkeypatch.setitem(public.LAYOUTS, "own", (columns, orientation, (1, 0), fps))
    with pytest.raises(UserError, match="The fingers of"):
        check_gripper(open_dataset(public.write(tmp_path / "inverted", "own")))
    columns, orientation, _, fps = public.LAYOUTS["openx"]
    monkeypatch.setitem(public.LAYOUTS, "openx", (columns, orientation, (-1, 1), fps))
    path = public.write(tmp_path / "signed", "openx")
    with pytest.raises(UserError, match=r"goes from -1 to 3 \(read as .*gripper 1 open and 0 closed"):
        check_gripper(open_dataset(path, "openx"))
    assert any("goes from -1 to 3" in told for told in check_dataset(open_dataset(path, "openx")))


def test_the_orientation_can_be_stated_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns, _, gripper, fps = public.LAYOUTS["own"]
    monkeypatch.setitem(public.LAYOUTS, "own", (columns, "upside_down", gripper, fps))
    path = public.write(tmp_path / "own", "own")
    episode = open_dataset(path, image_orientation="upside_down").episode(2)
    np.testing.assert_array_equal(episode.images(CAMERAS[1], [5])[0], public.frames(2)[5, 1])


def test_hdf5_files_say_how_their_frames_lie_or_have_to_be_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = public.write(tmp_path / "files", "own", "hdf5")
    with h5py.File(next(path.glob("*.hdf5")), "r+") as file:
        assert file["data"].attrs["macros_image_convention"] == "opengl"
        np.testing.assert_array_equal(file["data/demo_0/obs/agentview_rgb"][3][::-1], public.frames(0)[3, 0])
        del file["data"].attrs["macros_image_convention"]
    assert main(["summary", str(path)]) == 2
    told = capsys.readouterr().err
    assert "does not say how its frames lie" in told
    assert "--image-orientation" in told
    assert main(["summary", str(path), "--image-orientation", "upside_down"]) == 0
    with h5py.File(next(path.glob("*.hdf5")), "r+") as file:
        file["data"].attrs["macros_image_convention"] = "opencv"
    frames = open_dataset(path).episode(0).images(CAMERAS[0], [3])[0]
    np.testing.assert_array_equal(frames, public.frames(0)[3, 0][::-1])
    with pytest.raises(UserError, match="have one convention: leave --convention out"):
        open_dataset(path, "openpi")


def test_the_earlier_names_of_state_and_action_are_read_as_the_present_ones(tmp_path: Path) -> None:
    path = public.write(tmp_path / "earlier", "own")
    info = json.loads((path / "meta/info.json").read_text())
    info["features"]["observation.state"]["names"] = list(EARLIER_STATE_NAMES)
    info["features"]["action"]["names"] = ["x", "y", "z", "roll", "pitch", "yaw", "gripper"]
    (path / "meta/info.json").write_text(json.dumps(info))
    dataset = open_dataset(path)
    assert dataset.features["observation.state"].names == list(STATE_NAMES)
    assert dataset.features["action"].names == list(ACTION_NAMES)
    assert {key: part.end - part.start for key, part in dataset.modality.state.items()} == {"state": 8} | STATE
    others = translate(open_dataset(public.write(tmp_path / "openpi", "openpi")), "openpi")
    assert [others.features[name].names for name in ("observation.state", "action")] == [
        dataset.features[name].names for name in ("observation.state", "action")
    ]
