"""The evaluation command as a user meets it: real processes, kills included, on a toy and on LIBERO itself."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from vla_harness.envs.assets import resolve_assets
from vla_harness.eval.run_libero import RunLibero, main
from vla_harness.results import read_run
from vla_harness.types import EpisodeResult

ROOT = Path(__file__).resolve().parents[2]
LIBERO = [sys.executable, str(ROOT / "eval" / "run_libero.py")]
TOY = [sys.executable, "-m", "tests.eval.toy_command", "--policy", "random"]
EPISODES = 16  # of the toy: two tasks with eight initial states


def environment(toy: dict[str, Any] | None = None) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "TOY": json.dumps(toy or {})}


def run(command: list[str], *options: object, cwd: Path = ROOT, **toy: Any) -> subprocess.CompletedProcess[str]:
    words = [*command, *map(str, options)]
    return subprocess.run(words, cwd=cwd, env=environment(toy), capture_output=True, text=True, timeout=300)


@contextmanager
def started(command: list[str], *options: object, cwd: Path = ROOT, **toy: Any) -> Iterator[subprocess.Popen[str]]:
    """Start a command; it is killed at the latest when the block is left."""
    with subprocess.Popen(
        [*command, *map(str, options)],
        cwd=cwd,
        env=environment(toy),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def substance(path: Path) -> dict[str, tuple[str, str, str]]:
    return {str(r.key): (r.outcome, r.action_sha256, r.state_sha256) for r in read_run(path).results}


def by_key(path: Path) -> dict[str, EpisodeResult]:
    return {str(result.key): result for result in read_run(path).results}


def rows(path: Path) -> set[tuple[Any, ...]]:
    """Every column of every episode, times included: a row that was played again is another one."""
    file = path / "episodes.sqlite"
    if not file.exists():
        return set()
    with closing(sqlite3.connect(file)) as database:
        try:
            return set(database.execute("SELECT * FROM episodes"))
        except sqlite3.OperationalError:  # killed before the tables were made
            return set()


def workers_of(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if b"resource_tracker" not in Path(f"/proc/{child}/cmdline").read_bytes()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy run that nothing disturbed."""
    path = tmp_path_factory.mktemp("toy") / "whole"
    done = run(TOY, "--trials", 8, "--workers", 2, "--out", path)
    assert done.returncode == 0, done.stderr
    return path


# What a run leaves.


def test_a_run_leaves_its_folder_and_prints_its_choices_and_its_table(whole: Path, tmp_path: Path) -> None:
    assert {file.name for file in whole.iterdir()} >= {
        "config.json", "episodes.sqlite", "summary.json", "report.md", "report.html"
    }  # fmt: skip
    config = json.loads((whole / "config.json").read_text())
    assert (config["suite"], config["tasks"], config["trials"], config["seed"]) == ("spatial", [0, 1], 8, 7)
    assert config["protocol"]["name"] == "openvla" and config["protocol"]["max_steps"]["spatial"] == 220
    summary = json.loads((whole / "summary.json").read_text())
    assert (summary["trials"], summary["errors"], summary["complete"]) == (EPISODES, 0, True)
    done = run(TOY, "--trials", 2, "--out", tmp_path / "run", "--tasks", "1", "--protocol", "openpi", "--seed", 3)
    assert done.returncode == 0
    for line in ("policy .*random, which sees nothing", "protocol .*openpi: 1 task x 2 episodes", "workers .*[12]"):
        assert re.search(rf"^{line}", done.stdout, re.MULTILINE)
    assert "reach target 1" in done.stdout and f"Report: {tmp_path / 'run' / 'report.html'}" in done.stdout
    assert re.search(r"^ +pooled +\d/2 ", done.stdout, re.MULTILINE)
    assert [str(result.key) for result in read_run(tmp_path / "run").results] == ["spatial/1/0/3", "spatial/1/1/3"]


def test_replay_repeats_a_run_and_films_it(whole: Path, tmp_path: Path) -> None:
    done = run(
        [*TOY[:-1], "replay"], "--checkpoint", whole, "--trials", 2, "--video", "all", "--out", tmp_path / "again"
    )
    assert done.returncode == 0, done.stderr
    assert len(rows(tmp_path / "again")) == 4 and substance(tmp_path / "again").items() <= substance(whole).items()
    assert all((tmp_path / "again" / result.video).is_file() for result in read_run(tmp_path / "again").results)


# Kills and resumes.


def test_killing_the_parent_at_any_moment_loses_and_repeats_nothing(whole: Path, tmp_path: Path) -> None:
    path, moments = tmp_path / "run", random.Random()
    for sitting in range(30):
        kept = rows(path)
        order = ["--round", 3] if sitting % 2 else []
        with started(TOY, "--trials", 8, "--workers", 2, "--out", path, "--resume", *order, step_s=0.002) as process:
            try:
                process.wait(moments.uniform(0.5, 4.0 + sitting))  # a slow machine gets there in the end
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
        assert kept <= rows(path), sitting  # all that was there is there unchanged
        if process.returncode == 0:
            break
    assert process.returncode == 0 and len(rows(path)) == EPISODES
    assert substance(path) == substance(whole)
    assert json.loads((path / "summary.json").read_text())["complete"]


def test_killing_a_worker_at_any_moment_changes_nothing(whole: Path, tmp_path: Path) -> None:
    path, killed = tmp_path / "run", 0
    with started(TOY, "--trials", 8, "--workers", 2, "--out", path, step_s=0.005) as process:
        while process.poll() is None:
            time.sleep(random.uniform(0.5, 3.0))
            for worker in workers_of(process.pid)[:1] if killed < 2 else []:
                os.kill(worker, signal.SIGKILL)
                killed += 1
        assert process.returncode == 0, process.stderr and process.stderr.read()
    assert killed == 2 and substance(path) == substance(whole)
    attempts = [result.attempts for result in read_run(path).results]
    assert sum(attempts) - len(attempts) <= killed and "killed by SIGKILL" in (path / "errors.log").read_text()


def test_ctrl_c_keeps_what_has_finished_and_says_how_to_go_on(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    with started(TOY, "--trials", 8, "--workers", 2, "--out", path, step_s=0.005) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        workers = workers_of(process.pid)
        for pid in (process.pid, *workers):  # as a terminal does it
            os.kill(pid, signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait() == 130
    assert first.startswith("[ 1/16]") and "Traceback" not in rest
    kept = len(rows(path))
    last = f"interrupted: {kept} of 16 episodes are kept; go on with --resume --out {path}"
    assert rest.splitlines()[-1] == last and 0 < kept < EPISODES
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert "not played yet" in (path / "report.md").read_text()
    assert run(TOY, "--trials", 8, "--out", path, "--resume").returncode == 0
    assert substance(path) == substance(whole)


def test_resume_without_out_goes_on_with_the_newest_run_of_the_same_settings(tmp_path: Path) -> None:
    assert run(TOY, "--trials", 1, cwd=tmp_path).returncode == 0
    (first,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"toy-spatial-random-\d{8}-\d{6}", first.name)
    again = run(TOY, "--trials", 1, "--resume", "--workers", 2, cwd=tmp_path)
    assert again.returncode == 0 and f"{Path('runs', first.name)} (resumed)" in again.stdout
    assert len(read_run(first).sittings) == 2 and [r.attempts for r in read_run(first).results] == [1, 1]
    other = run(TOY, "--trials", 1, "--resume", "--seed", 8, cwd=tmp_path)
    assert other.returncode == 0 and "(new; there was no run to resume)" in other.stdout
    assert len(list((tmp_path / "runs").iterdir())) == 2


# Errors.


def test_errors_are_no_failures_and_a_resume_plays_them_again(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    trouble = {"kind": "raise", "initial_state": 5, "step": 30}
    broken = run(TOY, "--trials", 8, "--out", path, trouble=trouble)
    assert broken.returncode == 1
    assert broken.stderr.splitlines()[-1].startswith(f"{path / 'errors.log'} explains the errors")
    assert "the toy broke" in (path / "errors.log").read_text()
    before = by_key(path)
    assert [key for key, result in before.items() if result.outcome == "error"] == ["spatial/0/5/7", "spatial/1/5/7"]
    (path / "errors.log").unlink()
    (path / "errors.log").mkdir()  # no file can be written there
    silent = run(
        TOY, "--trials", 8, "--out", path, "--resume", trouble={"kind": "raise", "initial_state": 5, "step": 30}
    )
    assert silent.returncode == 1 and "errors.log cannot be written (Is a directory): " in silent.stderr
    assert "the toy broke" in silent.stderr and "Traceback (most" not in silent.stderr.splitlines()[-1]
    mended = run(TOY, "--trials", 8, "--out", path, "--resume")
    assert mended.returncode == 0 and substance(path) == substance(whole)
    assert {key for key, result in by_key(path).items() if result.wall_s != before[key].wall_s} == {
        "spatial/0/5/7", "spatial/1/5/7"
    }  # fmt: skip


def test_a_broken_policy_fails_the_run_and_keeps_what_has_finished(tmp_path: Path) -> None:
    path = tmp_path / "run"
    done = run([*TOY[:-1], "broken"], "--trials", 8, "--workers", 1, "--out", path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert re.fullmatch(
        r"failed: The policy failed on 3 episodes in a row: ConnectionError: the server is gone\. "
        rf"\d+ of 16 episodes are kept; go on with --resume --out {path}",
        done.stderr.splitlines()[-1],
    )
    outcomes = {result.outcome for result in read_run(path).results}
    assert outcomes and "error" not in outcomes
    assert "server is gone" in (path / "errors.log").read_text()


BAD_USAGE = [
    ((), "--suite"),
    (("--suite", "nowhere"), "invalid choice 'nowhere'"),
    (("--suite", "10", "--trial", "3"), "Unrecognized options: --trial"),
    (("--suite", "10", "--trials", "many"), "--trials"),
    (("--suite", "10", "--policy", "nobody"), "choose one of tformer, scripted, noop, random, replay"),
    (("--suite", "10", "--policy", "noop", "--checkpoint", "here"), "has no option 'checkpoint'"),
    (("--suite", "10", "--policy", "replay"), "give --checkpoint"),
    (("--suite", "10", "--policy", "replay", "--checkpoint", "/nowhere"), "/nowhere is not a run"),
    (("--suite", "10", "--protocol", "ours"), "choose one of openvla"),
    (("--suite", "10", "--policy", "noop", "--tasks", "0,10"), "give numbers from 0 to 9 with commas between"),
    (("--suite", "90", "--policy", "noop", "--tasks", "0-3"), "give numbers from 0 to 89 with commas between"),
    (("--suite", "10", "--policy", "noop", "--trials", "51"), "the tasks have 50 initial states"),
    (("--suite", "10", "--policy", "noop", "--trials", "51"), "give 1 to 50"),
    (("--suite", "10", "--policy", "noop", "--workers", "0"), "give at least 1"),
    (("--suite", "10", "--policy", "noop", "--seed", "-1"), "--seed is -1: give 0 to"),
    (("--suite", "10", "--policy", "noop", "--assets", "/nowhere"), "There is no asset folder /nowhere"),
]


@pytest.mark.parametrize(("options", "advice"), BAD_USAGE)
def test_bad_usage_is_one_sentence_and_exit_code_2(
    options: tuple[str, ...], advice: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(list(options)) == 2
    told = capfd.readouterr()
    assert told.out == "" and told.err.startswith("error: ") and told.err.count("\n") == 1
    assert advice in told.err and told.err.endswith(".\n")


def test_a_run_is_not_overwritten_nor_mixed(whole: Path, tmp_path: Path) -> None:
    for options, advice in (
        ((), "holds a run already: add --resume"),
        (("--resume", "--seed", 9), "was started with another seed"),
    ):
        done = run(TOY, "--trials", 8, "--out", whole, *options)
        assert done.returncode == 2 and advice in done.stderr and done.stderr.count("\n") == 1
    (tmp_path / "file").touch()
    done = run(TOY, "--trials", 8, "--out", tmp_path / "file" / "run")
    assert done.returncode == 2 and "choose another --out" in done.stderr


def test_help_explains_every_option() -> None:
    done = run(LIBERO, "--help")
    assert done.returncode == 0 and done.stderr == ""
    for field in dataclasses.fields(RunLibero):
        assert f"--{field.name.replace('_', '-')} " in done.stdout
    assert done.stdout.count("(default: ") == len(dataclasses.fields(RunLibero)) - 1 and "(required)" in done.stdout


def test_a_reader_that_leaves_is_no_crash(whole: Path) -> None:
    words = " ".join([*TOY, "--trials", "8", "--resume", "--out", str(whole)])
    done = subprocess.run(
        ["bash", "-c", f"{words} | head -n 1; exit ${{PIPESTATUS[0]}}"],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


def test_a_finished_run_is_extended_by_the_same_command_with_more_trials(tmp_path: Path) -> None:
    first = run(TOY, "--trials", 1, "--workers", 1, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    (path,) = (tmp_path / "runs").iterdir()
    kept = rows(path)
    done = run(TOY, "--trials", 2, "--workers", 1, "--resume", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "(resumed, and extended from 1 trial)" in done.stdout and "Extended from 1 to 2 trials a task" in done.stdout
    assert [path] == list((tmp_path / "runs").iterdir()) and kept < rows(path) and len(rows(path)) == 4
    config, summary = (json.loads((path / f"{name}.json").read_text()) for name in ("config", "summary"))
    assert (config["trials"], summary["planned"], summary["complete"]) == (2, 4, True)
    assert len(summary["sessions"]) == 2


# LIBERO itself.


def test_libero_episodes_survive_kills_and_are_the_same_on_any_number_of_workers(tmp_path: Path) -> None:
    assets = resolve_assets("auto")
    choice = ["--suite", "spatial", "--tasks", "0,4", "--trials", "2", "--assets", assets.path]
    path = tmp_path / "run"
    with started(LIBERO, *choice, "--policy", "random", "--workers", 2, "--out", path) as process:
        assert process.stderr is not None
        for line in process.stderr:  # a fresh installation says first that it compiles the simulator's loops
            if line.startswith("[1/4]"):
                break
        os.kill(workers_of(process.pid)[0], signal.SIGKILL)
        time.sleep(random.uniform(0.0, 3.0))
        process.send_signal(signal.SIGKILL)
    kept = rows(path)
    assert kept
    done = run(LIBERO, *choice, "--policy", "random", "--workers", 2, "--out", path, "--resume")
    assert done.returncode == 0, done.stderr
    assert kept <= rows(path) and len(rows(path)) == 4
    again = run(LIBERO, *choice, "--policy", "replay", "--checkpoint", path, "--workers", 1, "--out", tmp_path / "b")
    assert again.returncode == 0, again.stderr
    assert substance(tmp_path / "b") == substance(path)
    summary = json.loads((path / "summary.json").read_text())
    assert summary["trials"] == 4 and summary["provenance"]["versions"]["mujoco"] == "3.3.2"
    assert summary["provenance"]["assets"]["digest"] == assets.digest
    assert summary["gl_backend"] in ("egl", "osmesa")


def test_without_a_policy_the_one_of_the_package_plays_and_knows_its_task(tmp_path: Path) -> None:
    """One seeded episode that it solves, by looking: 8 actions from each look at two cameras."""
    choice = ["--suite", "spatial", "--tasks", "3", "--trials", "1", "--assets", "primitive", "--workers", "1"]
    done = run(LIBERO, *choice, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "tformer" in done.stdout and "vla-harness: 1 task x 1 episode" in done.stdout
    assert "(the policy's own)" in done.stdout and "all of the policy's 8 of each inference" in done.stdout
    (result,) = read_run(tmp_path / "run").results
    assert result.outcome == "success"
    assert len(result.policy_ms) == -(-result.steps // 8)
    assert result.frames == 2 * len(result.policy_ms)
