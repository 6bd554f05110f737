"""The policies with networks on robosuite, by the real command: tiny checkpoints, few steps."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.vla_harness.groot.libero_checkpoint import write_libero_checkpoint
from tests.vla_harness.openvla.tiny_checkpoint import write_tiny_checkpoint, write_tiny_oft
from vla_harness.eval.run_robosuite import main
from vla_harness.protocols import PROTOCOLS
from vla_harness.results import read_run

STEPS = 10
KEY = ("--precision", "fp32", "--unnorm-key", "libero_spatial")
POLICIES = {
    "tformer": ("--policy", "tformer"),
    "openvla": ("--policy", "openvla", "--checkpoint", "openvla", *KEY),
    "openvla-oft": ("--policy", "openvla", "--checkpoint", "oft", *KEY),
    "groot": ("--policy", "groot", "--checkpoint", "groot", "--policy-option", "denoising_steps=1"),
}
ONE_ARM = ("--suite", "single-arm", "--tasks", "0,1")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    write_tiny_oft(write_tiny_checkpoint(folder / "openvla"), folder / "oft")
    write_libero_checkpoint(folder / "groot")
    return folder


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch, checkpoints: Path) -> None:
    card = PROTOCOLS["robosuite"]
    steps = dict.fromkeys(card.max_steps, STEPS)
    monkeypatch.setitem(PROTOCOLS, card.name, dataclasses.replace(card, max_steps=steps))
    monkeypatch.chdir(checkpoints)


def play(policy: str, out: Path, *choice: str) -> int:
    return main([*POLICIES[policy], "--device", "cpu", "--trials", "1", "--workers", "1", "--out", str(out), *choice])


@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_of_one_arm_plays(policy: str, tmp_path: Path) -> None:
    assert play(policy, tmp_path / "run", "--suite", "single-arm", "--tasks", "2") == 0
    (result,) = read_run(tmp_path / "run").results
    assert (result.outcome, result.steps, result.actions.shape) == ("failure", STEPS, (STEPS, 7))
    assert len({action.tobytes() for action in result.actions}) > 1
    looks, one_by_one = len(result.policy_ms), policy == "openvla"  # the others play chunks, and see two cameras
    assert (looks == STEPS) == one_by_one and result.frames == (1 if one_by_one else 2) * looks


@pytest.mark.parametrize(
    ("policy", "choice", "sentence"),
    [
        ("openvla", ("--suite", "two-arm"), "moves 1 arm, the environment 'robosuite/two-arm TwoArmLift' has 2 arms"),
        ("tformer", ("--suite", "two-arm"), "'tformer' reads the camera 'wrist' (cameras), which the environment"),
        ("groot", ("--suite", "single-arm"), "(state_keys), which the environment 'robosuite/single-arm Wipe' does"),
        ("openvla-oft", (*ONE_ARM, "--robot", "UR5e"), "reads the state part 'gripper_qpos' (state_keys), which"),
        *(
            (policy, (*ONE_ARM, "--controller", "JOINT_VELOCITY"), f"'{policy}' writes changes of a hand's pose, the")
            for policy in POLICIES
        ),
    ],
)
def test_one_that_does_not_fit_is_refused_before_the_first_episode(
    policy: str, choice: tuple[str, ...], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert play(policy, tmp_path / "run", *choice) == 2
    told = capsys.readouterr().err
    assert sentence in told and told.startswith("error: The policy ") and told.count("\n") == 1
    assert not (tmp_path / "run").exists()
