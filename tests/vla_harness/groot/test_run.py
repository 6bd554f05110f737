"""The real command on LIBERO with the tiny checkpoint: what it plays means nothing, that it plays all of it does."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from tests.vla_harness.groot.libero_checkpoint import write_libero_checkpoint
from vla_harness import ActionConvention, Observation
from vla_harness.eval.run_libero import main
from vla_harness.policies.groot.policy import GrootPolicy
from vla_harness.protocols import PROTOCOLS


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_libero_checkpoint(tmp_path_factory.mktemp("groot") / "libero"))


def test_libero_observations_enter_as_the_reference_feeds_them(checkpoint: str) -> None:
    """Frames raw[::-1, ::-1], position, axis and angle, both fingers; the gripper comes out as 1 open, 0 closed."""
    policy = GrootPolicy(checkpoint, precision="fp32", device="cpu")
    raw = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    upright = raw[::-1]  # the simulator's raw frames are upside down
    state = np.linspace(-0.8, 0.8, 8, dtype=np.float32)
    look = Observation({"agentview": upright, "wrist": upright}, state, "open the drawer", "e", 0)
    example = policy._modalities(look)
    assert np.array_equal(example["video.image"], raw[::-1, ::-1])
    assert np.array_equal(example["video.wrist_image"], raw[::-1, ::-1])
    assert example["state.yaw"].tolist() == [[state[5]]] and example["state.gripper"].tolist() == [state[6:].tolist()]
    assert example["annotation.human.action.task_description"] == "open the drawer"
    inputs = policy.parts.transforms.inputs(example)
    np.testing.assert_allclose(inputs.state[0, :8], state, rtol=0, atol=1e-6)
    actions = policy.act([look])
    assert actions.shape == (1, 16, 7) and np.isfinite(actions).all()
    convention = policy.spec.action
    assert isinstance(convention, ActionConvention)
    assert (convention.gripper_open, convention.gripper_closed, convention.gripper_binary) == (1.0, 0.0, True)


def test_run_libero_plays_it(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    short = dataclasses.replace(PROTOCOLS["groot"], max_steps={"spatial": 12}, actions_per_inference=8)
    monkeypatch.setitem(PROTOCOLS, "groot", short)
    arguments = ["--suite", "spatial", "--policy", "groot", "--checkpoint", checkpoint, "--precision", "fp32"]
    arguments += ["--protocol", "groot", "--tasks", "0", "--trials", "1", "--workers", "1", "--assets", "primitive"]
    arguments += ["--policy-option", "denoising_steps=2", "--policy-option", "prompt=train"]
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 0
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert (summary["policy"], summary["trials"], summary["errors"]) == ("groot", 1, 0)
    assert summary["provenance"]["statistics_sha256"] and summary["provenance"]["precision"] == "fp32"
    assert (summary["provenance"]["denoising_steps"], summary["provenance"]["prompt"]) == (2, "train")
    assert "which sees agentview, wrist" in capsys.readouterr().out
