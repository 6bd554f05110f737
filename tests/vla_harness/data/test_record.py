"""Recording demonstrations with the real expert on the real simulator, drawn with stand-in assets."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from vla_harness.data import open_dataset, record
from vla_harness.data.check import check_dataset
from vla_harness.data.conventions import STATE, STATE_NAMES
from vla_harness.data.demonstrations import FRAME_IS_NEW, JOINT, PRIVILEGED, _attempt, _simulator, features
from vla_harness.data.jitter import Jitter
from vla_harness.errors import UserError

CAMERA = "observation.images.agentview"
OPTIONS = record.Record(
    suite="goal", tasks=("1",), episodes=2, assets="primitive", image_size=32, frame_every=10, workers=1,
    out=Path("unused"), format="v2.1",
)  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two demonstrations of "put the bowl on the stove", recorded in one go."""
    out = tmp_path_factory.mktemp("record") / "whole"
    assert record.record(replace(OPTIONS, out=out)) == 0
    return out


def test_records_what_the_expert_did(whole: Path) -> None:
    dataset = open_dataset(whole)
    assert [len(dataset.episodes), dataset.version, dataset.fps] == [2, "v2.1", 20]
    assert list(check_dataset(dataset)) == []
    assert set(features(32)) <= set(dataset.features)
    assert {key: part.end - part.start for key, part in dataset.modality.state.items()}.items() >= STATE.items()
    assert dataset.features["observation.state"].names == list(STATE_NAMES)
    lengths = {key: part.end - part.start for key, part in dataset.modality.state.items()}
    assert lengths.items() >= {"eef_pos": 3, "eef_axis_angle": 3, "gripper_qpos": 2, "joint": 7}.items()
    first, second = dataset.episode(0), dataset.episode(1)
    assert first.instruction(0) == "put the bowl on the stove"
    # Other placements, and an end where the bowl is where it should be.
    assert np.abs(first.column(PRIVILEGED)[0] - second.column(PRIVILEGED)[0]).max() > 0.002
    for episode in (first, second):
        subject, goal = np.split(episode.column(PRIVILEGED)[-1], 2)
        assert np.linalg.norm((subject - goal)[:2]) < 0.1
        assert np.abs(episode.column("action")).max() <= 1
        assert 30 < episode.length < 300


def test_draws_frames_when_it_is_asked_to_and_repeats_them_between(whole: Path) -> None:
    episode = open_dataset(whole).episode(0)
    new = np.flatnonzero(episode.column(FRAME_IS_NEW))
    assert new[0] == 0
    assert (np.diff(new[1:]) == 10).all()
    images = episode.images(CAMERA, range(episode.length)).astype(int)
    assert images.shape[1:] == (32, 32, 3)
    changes = np.abs(np.diff(images, axis=0)).mean(axis=(1, 2, 3))
    drawn = np.zeros(len(changes), bool)
    drawn[new[1:] - 1] = True
    assert np.median(changes[~drawn]) == 0  # some change a little: they are keyframes of the video
    assert changes[drawn].min() > 1


def test_a_recording_that_was_cut_short_goes_on_to_the_same_dataset(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "resumed"
    write, written = record._write, []

    def stop_at_the_second(demonstration: object, writer: object) -> None:
        written.append(demonstration)
        if len(written) == 2:
            raise KeyboardInterrupt
        write(demonstration, writer)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(record, "_write", stop_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            record.record(replace(OPTIONS, out=out))
    with pytest.raises(UserError, match=r"begun with --noise 0\.5, and this is 0\.1"):
        record.record(replace(OPTIONS, out=out, noise=0.1))
    record.record(replace(OPTIONS, out=out, workers=2))
    assert "holds 1 episode already" in capsys.readouterr().out
    resumed, reference = open_dataset(out), open_dataset(whole)
    assert len(resumed.episodes) == 2
    for position in range(2):
        for name in ("observation.state", "action", FRAME_IS_NEW, PRIVILEGED):
            ours, theirs = (d.episode(position).column(name) for d in (resumed, reference))
            np.testing.assert_array_equal(ours, theirs)


def test_liberos_format_holds_the_same_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = replace(OPTIONS, episodes=1, frame_every=50)
    for version in ("v3.0", "hdf5"):
        assert record.record(replace(few, format=version, out=tmp_path / version)) == 0  # type: ignore[arg-type]
        estimate = re.search(r"estimate: (\S+) MB", capsys.readouterr().err)
        assert estimate and 0.5 < float(estimate[1]) / (record._size(tmp_path / version) / 1e6) < 2
    (file,) = (tmp_path / "hdf5").iterdir()
    assert file.name == "put_the_bowl_on_the_stove_demo.hdf5"
    ours, theirs = open_dataset(tmp_path / "hdf5"), open_dataset(tmp_path / "v3.0")
    assert [ours.version, theirs.version] == ["hdf5", "v3.0"]
    assert list(check_dataset(ours)) == []
    here, there = ours.episode(0), theirs.episode(0)
    assert (here.length, here.instruction(0)) == (there.length, there.instruction(0))
    for name in ("observation.state", JOINT, "action", "timestamp"):
        np.testing.assert_array_equal(here.column(name), there.column(name))
    for camera in (CAMERA, "observation.images.wrist"):
        frames, expected = (episode.images(camera, range(here.length)) for episode in (here, there))
        apart, turned = (np.abs(seen.astype(int) - expected).mean() for seen in (frames, frames[:, ::-1]))
        assert apart < 5 < turned  # two encodings of one recording may differ a little
    with h5py.File(tmp_path / "hdf5" / file.name) as opened:  # what LIBERO's get_dataset and robomimic look for
        demo = opened["data/demo_0"]
        assert json.loads(opened["data"].attrs["env_args"])["type"] == 1
        assert demo["obs/joint_states"].shape == (here.length, 7) and demo.attrs["num_samples"] == here.length
        assert np.ptp(demo["obs/joint_states"], axis=0).max() > 0.1  # radians


def test_refuses_what_cannot_be_recorded(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert record._numbers(("0,1", "7", "1")) == record._numbers(("0", "1", "7")) == [0, 1, 7]
    for change, told in (
        ({"tasks": ("0;1",)}, "--tasks is '0;1': give numbers with commas between, such as 0,3"),
        ({"episodes": 0}, "--episodes is 0: give at least 1"),
        ({"image_size": 33}, "--image-size is 33: give a multiple of 2, at least 16"),
        ({"tasks": ("10",)}, "--tasks has 10: LIBERO's suite goal has tasks 0 to 9"),
        ({"out": whole}, "exists already: choose a new folder"),
    ):
        with pytest.raises(UserError, match=told):
            record.record(replace(OPTIONS, **({"out": tmp_path / "new"} | change)))  # type: ignore[arg-type]
    for name, content in (("letter.txt", "dear"), ("meta/recording.json", '{"suite": "10"}')):
        place = tmp_path / f"{name[:4]}.recording" / name
        place.parent.mkdir(parents=True)
        place.write_text(content)
        with pytest.raises(UserError, match=r"is in the way|was begun with --suite 10"):
            record.record(replace(OPTIONS, out=tmp_path / name[:4]))
        assert place.read_text() == content
    room = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(record.shutil, "disk_usage", lambda path: room)
    with pytest.raises(UserError, match=r"need about .* are free"):
        record.record(replace(OPTIONS, out=tmp_path / "full"))


def test_jitter_changes_the_picture_for_one_demonstration_and_no_physics() -> None:
    job = record._jobs(OPTIONS)[0]
    simulator = _simulator(job.suite, job.task, job.assets)
    simulator.reset(options={"placement_seed": 5})
    plain = simulator.render_camera("agentview", 64, 64).astype(int)
    with Jitter(simulator.model, 1.0, np.random.default_rng(0)):  # type: ignore[attr-defined]
        changed = simulator.render_camera("agentview", 64, 64).astype(int)
    assert np.abs(changed - plain).mean() > 5
    np.testing.assert_array_equal(simulator.render_camera("agentview", 64, 64), plain)
    calm, varied = (_attempt(simulator, replace(job, jitter=strength), 0) for strength in (0.0, 1.0))
    assert calm is not None
    assert varied is not None
    np.testing.assert_array_equal(calm["action"][:30], varied["action"][:30])
    assert np.abs(calm[CAMERA][0].astype(int) - varied[CAMERA][0]).mean() > 5
