"""The commands around a run, on toy episodes that were really played."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

from tests.vla_harness.comparison.made_runs import make_run
from tests.vla_harness.runs import change_episodes
from tests.vla_harness.tools.toy_run import play_run
from vla_harness.__main__ import main
from vla_harness.data import open_dataset
from vla_harness.results import read_run
from vla_harness.tools.show import FRAME_PIXELS, FRAMES, LABEL_PIXELS


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = play_run(tmp_path_factory.mktemp("runs") / "run")
    assert {result.outcome for result in read_run(path).results} == {"success", "failure"}
    return path


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the sentence of a command that must leave with exit code 2."""
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    return said


# replay


def test_replay_ends_in_the_same_state_and_films_at_any_size(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for result in read_run(run).results:
        assert main(["replay", str(run), "--episode", str(result.key)]) == 0
        assert f"{result.key}: {result.outcome} in {result.steps} steps, to the same state" in capsys.readouterr().out
    video = tmp_path / "film.mp4"
    assert main(["replay", str(run), "--episode", "1/2", "--video", str(video), "--size", "48x64"]) == 0
    with av.open(str(video)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    (result,) = (one for one in read_run(run).results if str(one.key) == "toy/1/2/7")
    assert len(frames) == result.steps + 1 and frames[0].shape == (48, 64, 3)


def test_replay_fails_when_the_state_is_another(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = play_run(tmp_path / "other")
    change_episodes(other, lambda result: replace(result, state_sha256="00ff"))
    video = tmp_path / "film.mp4"
    assert main(["replay", str(other), "--episode", "0/0", "--video", str(video)]) == 1
    assert "toy/0/0/7: The same actions did not lead to the same state" in capsys.readouterr().err
    assert not video.exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--episode", "7/0"], "holds no episode 7/0"),
        (["--episode", "x"], "give TASK/STATE"),
        (["--episode", "0/0", "--video", "x.mp4", "--size", "9"], "pixels from 16 to 4096"),
        (["--episode", "0/0", "--video", "x.mp4", "--camera", "moon"], "the environment has agentview, wrist"),
        (["--episode", "0/0", "--assets", "auto"], "take no assets"),
        (["--episode", "0/0", "--size", "64"], "are for a video: give --video"),
        (["--episode", "0/0", "--video", "film.gif"], "end its name in .mp4"),
    ],
)
def test_replay_refuses_in_one_sentence(
    run: Path, options: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sentence in refused(["replay", str(run), *options], capsys)


def test_replay_needs_to_know_the_environment_and_a_finished_episode(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    synthetic = make_run(tmp_path / "run", ["1e"])
    assert "of an earlier version" in refused(["replay", str(synthetic), "--episode", "0/0"], capsys)
    assert "The arm fell off." in refused(["replay", str(synthetic), "--episode", "0/1"], capsys)


# show


def test_show_prints_the_table_and_draws_the_failures(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failures = [result for result in read_run(run).results if result.outcome == "failure"]
    assert main(["show", str(run), "--strips", "2", "--seconds", "0.3"]) == 0
    shown = capsys.readouterr().out
    assert "pooled" in shown and all(f"{result.key}: " in shown for result in failures)
    drawn = min(2, len(failures))
    sheet = np.array(Image.open(run / "failures.png"))
    assert sheet.shape == (drawn * (FRAME_PIXELS + LABEL_PIXELS), FRAMES * FRAME_PIXELS, 3)
    row = sheet[LABEL_PIXELS + FRAME_PIXELS // 2, FRAME_PIXELS // 2 :: FRAME_PIXELS]  # the middle of each frame
    assert len(np.unique(row, axis=0)) > 2, "the frames are of different moments"
    assert not (row == 255).all()


def test_show_without_strips_draws_nothing_and_lists_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_run(tmp_path / "run", ["10e"])
    assert main(["show", str(path), "--strips", "0"]) == 0
    shown = capsys.readouterr().out
    assert "1 failure;" in shown and "--episode TASK/STATE --video FILE.mp4` films one" in shown
    assert "spatial/0/2/7: The arm fell off." in shown
    assert not (path / "failures.png").exists()
    assert "--seconds" in refused(["show", str(path), "--seconds", "0"], capsys)
    assert "end its name in .png" in refused(["show", str(path), "--out", "strip.pgn"], capsys)


# merge


def test_merged_parts_are_the_whole_run(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = [play_run(tmp_path / f"part{task}", tasks=[task]) for task in (0, 1)]
    assert main(["merge", *map(str, parts), "--out", str(tmp_path / "merged")]) == 0
    merged, whole = read_run(tmp_path / "merged"), read_run(run)
    assert [(str(one.key), one.outcome, one.state_sha256) for one in merged.results] == [
        (str(one.key), one.outcome, one.state_sha256) for one in whole.results
    ]
    assert merged.config["tasks"] == [0, 1] and len(merged.sittings) == 2
    assert sum(one.wall_s for one in merged.sittings) == sum(
        one.wall_s for part in parts for one in read_run(part).sittings
    )
    assert (tmp_path / "merged" / "report.html").exists() and "pooled" in capsys.readouterr().out


def test_merging_brings_the_videos_along(tmp_path: Path) -> None:
    parts = [make_run(tmp_path / f"part{task}", ["-"] * task + ["11"], tasks=[task]) for task in (0, 1)]
    for part in parts:
        change_episodes(part, lambda one: replace(one, video=f"videos/{one.key.task_id}{one.key.initial_state}.mp4"))
        (part / "videos").mkdir()
        (part / "videos" / f"{part.name[-1]}0.mp4").write_text(part.name)  # the other one was deleted
    assert main(["merge", *map(str, parts), "--out", str(tmp_path / "merged")]) == 0
    videos = {str(result.key): result.video for result in read_run(tmp_path / "merged").results}
    assert list(videos.values()) == ["videos/00.mp4", "", "videos/10.mp4", ""]
    assert [(tmp_path / "merged" / video).read_text() for video in videos.values() if video] == ["part0", "part1"]


def test_merging_takes_an_episode_once_and_a_finished_one_before_an_error(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one", ["1e", "11"])
    two = make_run(tmp_path / "two", ["10"])
    assert main(["merge", str(one), str(two), "--out", str(tmp_path / "merged")]) == 0
    outcomes = [result.outcome for result in read_run(tmp_path / "merged").results]
    assert outcomes == ["success", "failure", "success", "success"]


def test_merging_a_part_without_a_finished_episode_is_refused_and_errors_are_an_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished = make_run(tmp_path / "finished", ["11"])
    for number, words in enumerate((["--"], ["ee"])):
        empty = make_run(tmp_path / f"empty{number}", words)
        message = refused(["merge", str(empty), str(finished), "--out", str(tmp_path / "merged")], capsys)
        assert f"{empty} holds no finished episode" in message and not (tmp_path / "merged").exists()
    broken = make_run(tmp_path / "broken", ["--", "1e"])
    assert main(["merge", str(finished), str(broken), "--out", str(tmp_path / "merged")]) == 1
    assert json.loads((tmp_path / "merged" / "summary.json").read_text())["errors"] == 1


def test_what_does_not_belong_together_is_not_merged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = make_run(tmp_path / "one", ["11"])
    others = {
        "differ in policy": make_run(tmp_path / "policy", ["11"], policy="other"),
        "differ in seed": make_run(tmp_path / "seed", ["11"], seed=8),
        "differ in assets digest": make_run(tmp_path / "assets", ["11"], provenance={"assets": {"digest": "x"}}),
        "ended differently": make_run(tmp_path / "end", ["10"]),
    }
    for sentence, other in others.items():
        out = tmp_path / "merged"
        assert sentence in refused(["merge", str(one), str(other), "--out", str(out)], capsys)
        assert not out.exists()
    assert "at least two" in refused(["merge", str(one), "--out", str(tmp_path / "merged")], capsys)
    assert "given twice" in refused(["merge", str(one), f"{one}/", "--out", str(tmp_path / "merged")], capsys)


# export


def test_export_holds_every_episode(run: Path, tmp_path: Path) -> None:
    results = read_run(run).results
    assert main(["export", str(run), "--out", str(tmp_path / "x" / "run.csv")]) == 0
    lines = list(csv.DictReader((tmp_path / "x" / "run.csv").open()))
    assert [line["outcome"] for line in lines] == [result.outcome for result in results]
    assert [line["action_sha256"] for line in lines] == [result.action_sha256 for result in results]
    assert main(["export", str(run), "--out", str(tmp_path / "run.parquet")]) == 0
    table = parquet.read_table(tmp_path / "run.parquet").to_pylist()
    for line, result in zip(table, results, strict=True):
        np.testing.assert_array_equal(np.array(line["actions"], np.float32), result.actions)
        assert tuple(line["policy_ms"]) == result.policy_ms and line["steps"] == result.steps


def test_export_of_successes_leaves_the_others_out_of_a_table_too(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", ["e011"])
    out = tmp_path / "run.csv"
    for options, outcomes in (([], ["error", "failure", "success", "success"]), (["--successes"], ["success"] * 2)):
        assert main(["export", str(path), "--out", str(out), *options]) == 0
        assert [line["outcome"] for line in csv.DictReader(out.open())] == outcomes


def test_export_refuses_an_unknown_ending(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "are for a dataset" in refused(["export", str(run), "--out", "run.csv", "--size", "64"], capsys)
    assert "end its name in .csv, .parquet, or give a folder" in refused(
        ["export", str(run), "--out", "run.xlsx"], capsys
    )


def test_export_makes_a_lerobot_dataset_of_what_was_seen_and_done(run: Path, tmp_path: Path) -> None:
    results = read_run(run).results
    assert main(["export", str(run), "--out", str(tmp_path / "dataset"), "--size", "16x24"]) == 0
    dataset = open_dataset(tmp_path / "dataset")
    assert [record.length for record in dataset.episodes] == [result.steps for result in results]
    for number, result in enumerate(results):
        columns = dataset.storage.columns(number)
        np.testing.assert_array_equal(columns["action"], result.actions)
        solved = np.asarray(columns["next.success"]).reshape(-1)
        assert not solved[:-1].any() and bool(solved[-1]) == (result.outcome == "success")
        motion = np.diff(np.asarray(columns["observation.state"])[:, :3], axis=0)  # the toy moves by 0.1 of an action
        assert np.abs(motion - 0.1 * result.actions[:-1, :3]).max() < 2e-3
        assert dataset.storage.images(number, "observation.images.wrist", [0]).shape == (1, 16, 24, 3)


def test_a_dataset_of_successes_leaves_the_failures_out(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "dataset"
    assert main(["export", str(run), "--out", str(out), "--successes", "--size", "16"]) == 0
    successes = [result for result in read_run(run).results if result.outcome == "success"]
    assert [record.length for record in open_dataset(out).episodes] == [result.steps for result in successes]
    assert "no empty folder" in refused(["export", str(run), "--out", str(out)], capsys)
    (tmp_path / "file").write_text("")
    assert "no empty folder" in refused(["export", str(run), "--out", str(tmp_path / "file")], capsys)
    failed = make_run(tmp_path / "failed", ["00"])
    assert "no episode" in refused(["export", str(failed), "--out", str(tmp_path / "x"), "--successes"], capsys)
