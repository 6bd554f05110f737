"""The command on robosuite as a user meets it: the real simulator in real workers, for a few steps."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vla_harness.__main__ import main as vla_harness
from vla_harness.eval.compare import main as compare
from vla_harness.eval.run_robosuite import RunRobosuite, main
from vla_harness.policies.basic import NoopPolicy
from vla_harness.protocols import PROTOCOLS
from vla_harness.registry import POLICIES
from vla_harness.results import read_run

ROOT = Path(__file__).resolve().parents[2]
STEPS = 5


class Seeing(NoopPolicy):
    """Reads what policies trained on LIBERO read."""

    def __init__(self) -> None:
        super().__init__()
        keys = ("eef_pos", "eef_axis_angle", "gripper_qpos")
        self.spec = dataclasses.replace(self.spec, cameras=("agentview", "wrist"), state_keys=keys, image_size=(32, 32))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The protocol with fewer steps: what is tested here is the same after five."""
    card = PROTOCOLS["robosuite"]
    steps = dict.fromkeys(card.max_steps, STEPS)
    monkeypatch.setitem(PROTOCOLS, card.name, dataclasses.replace(card, max_steps=steps, image_size=(64, 64)))
    monkeypatch.setitem(POLICIES, "seeing", f"{__name__}:Seeing")


def play(path: Path, *options: str) -> int:
    return main(["--workers", "1", "--trials", "1", "--out", str(path), *options])


def substance(path: Path) -> dict[str, tuple[str, str, str]]:
    return {str(r.key): (r.outcome, r.action_sha256, r.state_sha256) for r in read_run(path).results}


def test_a_run_of_two_arms_leaves_the_same_results_and_its_tools_work_on_it(
    short: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run"
    choice = ["--suite", "two-arm", "--tasks", "0,1"]
    assert play(path, *choice, "--policy", "random", "--robot", "Panda,Sawyer", "--video", "all") == 0
    told = capfd.readouterr().out
    assert "robot      Panda,Sawyer under OSC_POSE" in told and "lift the pot by its two handles" in told
    assert "robosuite, two arms: random: 0/2" in told
    summary = json.loads((path / "summary.json").read_text())
    assert (summary["suite"], summary["trials"], summary["errors"]) == ("two-arm", 2, 0)
    environment = summary["provenance"]["environment"]
    assert environment["options"] == {"robot": "Panda,Sawyer", "controller": "OSC_POSE"}
    results = read_run(path).results
    assert [r.actions.shape for r in results] == [(STEPS, 14)] * 2 and len({r.state_sha256 for r in results}) == 2
    assert all((path / r.video).is_file() for r in results) and (path / "report.html").is_file()
    # The tools build the environment with the run's robots.
    assert vla_harness(["show", str(path), "--strips", "1"]) == 0 and (path / "failures.png").is_file()
    assert vla_harness(["replay", str(path), "--episode", "1/0"]) == 0
    assert "to the same state" in capfd.readouterr().out
    again = tmp_path / "again"
    options = [*choice, "--policy", "replay", "--checkpoint", str(path), "--robot", "Panda,Sawyer"]
    assert play(again, *options) == 0 and substance(again) == substance(path)


def test_joint_controllers_play_and_their_runs_are_not_mixed_with_others(
    short: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    joints, again, pose = (tmp_path / name for name in ("joints", "again", "pose"))
    choice = ["--suite", "single-arm", "--tasks", "0", "--robot", "UR5e"]  # six joints have as many entries as a pose
    replay = ["--policy", "replay", "--checkpoint", str(joints)]
    assert play(joints, *choice, "--policy", "random", "--controller", "JOINT_POSITION") == 0
    assert play(again, *choice, *replay, "--controller", "JOINT_POSITION") == 0
    assert substance(again) == substance(joints) and read_run(joints).results[0].actions.shape == (STEPS, 7)
    assert play(pose, *choice, "--policy", "random") == 0
    capfd.readouterr()
    assert play(tmp_path / "other", *choice, *replay) == 2
    assert play(pose, *choice, "--policy", "random", "--controller", "JOINT_TORQUE", "--resume") == 2
    assert compare([str(joints), str(pose)]) == 2
    assert vla_harness(["merge", str(joints), str(pose), "--out", str(tmp_path / "both")]) == 2
    refusals = capfd.readouterr().err.splitlines()
    assert len(refusals) == 4
    for refusal, words in zip(
        refusals,
        (
            "(action.mode is joint_delta there and delta here)",
            "was started with another controller",
            "has robot UR5e, controller JOINT_POSITION: compare runs that agree",
            "they differ in controller",
        ),
        strict=True,
    ):
        assert words in refusal


def test_a_policy_that_sees_plays_one_arm_and_its_rollouts_become_a_dataset(short: None, tmp_path: Path) -> None:
    path = tmp_path / "run"
    assert play(path, "--suite", "single-arm", "--tasks", "5", "--policy", "seeing") == 0
    (result,) = read_run(path).results
    assert (result.steps, result.frames) == (STEPS, 2 * STEPS)
    assert vla_harness(["export", str(path), "--out", str(tmp_path / "data"), "--size", "64"]) == 0
    features = json.loads((tmp_path / "data" / "meta" / "info.json").read_text())["features"]
    assert features["observation.images.wrist"]["shape"][:2] == [64, 64]
    assert features["observation.state"]["shape"] == [3 + 4 + 7 + 2] and features["action"]["shape"] == [7]


def test_the_command_solves_lift_as_it_is_published(tmp_path: Path) -> None:
    words = [sys.executable, str(ROOT / "eval" / "run_robosuite.py"), "--suite", "single-arm", "--tasks", "0"]
    words += ["--policy", "scripted", "--trials", "1", "--out", str(tmp_path / "run")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "robosuite, one arm: scripted: 1/1 = 100.0 %" in done.stdout and "at most 500 steps" in done.stdout
    assert "reads the simulator's state" in done.stdout
    (result,) = read_run(tmp_path / "run").results
    assert result.actions.dtype == np.float32 and result.outcome == "success"


BAD_USAGE = [
    (("--suite", "three-arm"), "invalid choice 'three-arm'"),
    (
        ("--suite", "two-arm"),
        "knows no task of robosuite/two-arm as it is chosen: give another --policy, such as random",
    ),
    (("--suite", "two-arm", "--policy", "scripted", "--tasks", "0"), "'scripted' moves 1 arm, the environment"),
    (("--suite", "single-arm", "--tasks", "3,4,6"), "does not know PickPlaceBread, NutAssemblySquare, Wipe"),
    (("--suite", "single-arm", "--policy", "scripted", "--tasks", "3"), "give --tasks 0,1,2,5, or another policy"),
    (("--suite", "single-arm", "--policy", "scripted", "--robot", "UR5e", "--tasks", "0"), "choose another policy"),
    (
        ("--suite", "single-arm", "--policy", "scripted", "--controller", "OSC_POSITION", "--tasks", "0"),
        "writes rotations as axis_angle",
    ),
    (
        ("--suite", "single-arm", "--policy", "scripted", "--controller", "JOINT_TORQUE", "--tasks", "0"),
        "writes changes of a hand's pose, the environment 'robosuite/single-arm' takes joint torques (action.mode)",
    ),
    (("--suite", "single-arm", "--policy", "seeing"), "the environment 'robosuite/single-arm Wipe' does not report"),
    (("--suite", "single-arm", "--policy", "seeing", "--robot", "UR5e", "--tasks", "0"), "'gripper_qpos' (state_keys)"),
    (("--suite", "two-arm", "--policy", "seeing"), "reads the camera 'wrist' (cameras)"),
    (("--suite", "two-arm", "--policy", "noop", "--robot", "Panda,Panda,Panda"), "name one for each"),
    (("--suite", "single-arm", "--policy", "noop", "--robot", "Baxter"), "choose one of Panda, Sawyer"),
    (("--suite", "single-arm", "--policy", "noop", "--controller", "IK_POSE"), "needs pybullet"),
    (("--suite", "single-arm", "--policy", "noop", "--protocol", "openvla"), "says nothing of the suite 'single-arm'"),
    (("--suite", "single-arm", "--policy", "noop", "--trials", "51"), "the tasks have 50 initial states"),
]


@pytest.mark.parametrize(("options", "advice"), BAD_USAGE)
def test_bad_usage_is_one_sentence_and_exit_code_2(
    short: None, options: tuple[str, ...], advice: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(list(options)) == 2
    told = capfd.readouterr()
    assert told.out == "" and told.err.startswith("error: ") and told.err.count("\n") == 1
    assert advice in told.err and told.err.endswith(".\n")


def test_help_explains_every_option(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    told = capfd.readouterr().out
    for field in dataclasses.fields(RunRobosuite):
        assert f"--{field.name.replace('_', '-')} " in told
    assert told.count("(default: ") == len(dataclasses.fields(RunRobosuite)) - 1 and "(required)" in told
