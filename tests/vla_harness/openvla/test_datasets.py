"""The meaning of actions by unnorm key: published, joined, refused where unknown, and marked on other suites."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.vla_harness.openvla.test_policy import loaded, observations
from vla_harness import UserError
from vla_harness.checkpoints import Fields
from vla_harness.conventions import Adapter
from vla_harness.errors import CheckpointError, ConventionError
from vla_harness.eval.run_libero import main
from vla_harness.policies.openvla.datasets import BRIDGE, LIBERO, UNKNOWN, dataset_convention, trained_on
from vla_harness.protocols import PROTOCOLS
from vla_harness.servers.core.service import ActionService
from vla_harness.servers.remote.metadata import read_spec
from vla_harness.types import DELTA_EEF_POSE, EnvironmentSpec

ENVIRONMENT = EnvironmentSpec(("agentview", "wrist"), {"eef_pos": 3}, DELTA_EEF_POSE, 20.0)


@pytest.mark.parametrize(
    ("key", "convention", "learned"),
    [
        ("libero_spatial", LIBERO, ("libero_spatial",)),
        ("libero_90_no_noops", LIBERO, ("libero_90",)),
        ("bridge_orig", BRIDGE, ("bridge_orig",)),
        ("fractal20220817_data", UNKNOWN, None),
        ("my_robot", UNKNOWN, None),
    ],
)
def test_what_is_certain_of_a_key_is_known_and_nothing_else(key: str, convention: object, learned: object) -> None:
    nothing = Fields({}, "dataset_statistics.json of x", key)
    assert dataset_convention(key, nothing) is convention and trained_on(key, nothing) == learned
    assert dataset_convention(key, nothing, "libero") is LIBERO
    stated = Fields({"action_convention": "libero", "instructions": ["open it"]}, "dataset_statistics.json of x", key)
    assert dataset_convention(key, stated) is LIBERO and trained_on(key, stated) == ("open it",)
    wrong = Fields({"action_convention": "mine"}, "dataset_statistics.json of x", key)
    with pytest.raises(CheckpointError, match=f"has {key}.action_convention 'mine', and libero or bridge or unknown"):
        dataset_convention(key, wrong)
    with pytest.raises(UserError, match="no action_convention 'hers': choose one of libero, bridge, unknown"):
        dataset_convention(key, nothing, "hers")


def test_bridge_s_metres_radians_and_gripper_are_published_and_converted(
    tiny: str, goldens: Mapping[str, np.ndarray], facts: Mapping[str, Any]
) -> None:
    policy = loaded(tiny, unnorm_key="bridge_orig")
    action = policy.spec.action
    assert action == BRIDGE.action and policy.spec.image_orientation == "upright"
    assert action.mode == "delta" and (action.gripper_open, action.gripper_closed) == (1.0, 0.0)
    adapter = Adapter(ENVIRONMENT, policy.spec, "libero/spatial")
    chunk = np.array([[0.05, 0, -0.01, 0.25, 0, 0, 1.0], [0, 0, 0, 0, 0, 0, 0.1]], np.float32)
    expected: list[list[float]] = [[1, 0, -0.2, 0.5, 0, 0, -1], [0, 0, 0, 0, 0, 0, 1]]
    np.testing.assert_allclose(adapter.actions(chunk), expected, atol=1e-6)
    raw = policy.act(observations(goldens, facts)[:1])[0, 0]
    assert abs(raw[6]) != 1.0 and np.abs(raw[:3]).max() < 0.06  # the gripper as decoded, not LIBERO's -1 or 1


def test_an_unknown_meaning_is_served_and_said_and_drives_no_environment(tiny: str) -> None:
    policy = loaded(tiny, action_convention="unknown")
    service = ActionService(policy)
    try:
        said = service.metadata()
    finally:
        service.close()
    assert said["spec"]["action"]["mode"] == "unknown" and said["spec"]["action"]["gripper_open"] is None
    assert said["provenance"]["action_convention"] == "unknown" and said["raw_actions"]
    spec = read_spec(json.loads(json.dumps(said)), "http://x")
    assert spec.action.mode == "unknown" and math.isnan(spec.action.gripper_open) and spec.action.dim == 7
    for stated in (policy.spec, spec):
        with pytest.raises(ConventionError, match=r"does not know what its actions mean.*cannot drive the environment"):
            Adapter(ENVIRONMENT, stated, "libero/spatial")


def test_the_metadata_state_every_option(tiny: str) -> None:
    options = {"only_actions": True, "center_crop": False, "seed": 3, "variant": "openvla"}
    provenance = loaded(tiny, **options).provenance
    assert {name: provenance[name] for name in options} == options
    assert provenance["attn"] == "auto" and provenance["attention"] == "sdpa" and provenance["batch"] == 1
    assert provenance["device"] == "cpu" and "cameras" in provenance


@pytest.fixture
def own_key(tiny: str, tmp_path: Path) -> str:
    """Return the checkpoint with the statistics of LIBERO-Spatial under a name of the user's own."""
    shutil.copytree(tiny, tmp_path / "own")
    statistics = json.loads((tmp_path / "own/config.json").read_text())["norm_stats"]
    (tmp_path / "own/dataset_statistics.json").write_text(json.dumps({"mine": statistics["libero_spatial"]}))
    return str(tmp_path / "own")


def libero(checkpoint: str, *options: str) -> list[str]:
    return [
        *("--policy", "openvla", "--checkpoint", checkpoint, "--precision", "fp32", "--device", "cpu"),
        *("--tasks", "0", "--trials", "1", "--workers", "1", "--assets", "primitive", *options),
    ]


def test_a_key_of_unknown_meaning_is_refused_before_any_episode(
    own_key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(libero(own_key, "--suite", "spatial", "--unnorm-key", "mine")) == 2
    assert "does not know what its actions mean" in capsys.readouterr().err


def test_another_suite_and_shorter_chunks_are_marked_before_the_first_episode_and_in_the_results(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    short = dataclasses.replace(PROTOCOLS["openvla-oft"], max_steps={"goal": 2})
    monkeypatch.setitem(PROTOCOLS, "openvla-oft", short)
    options = ("--suite", "goal", "--unnorm-key", "libero_spatial", "--protocol", "openvla-oft")
    assert main(libero(tiny, *options, "--out", str(tmp_path / "run"))) == 0
    printed = capsys.readouterr().out
    untrained = "The policy was not trained on the task played, but on libero_spatial."
    assert printed.index(f"note       {untrained}") < printed.index(f"Note: {untrained}")
    assert "note       The policy returns 1 action per inference, and the protocol openvla-oft plays 8." in printed
    assert "actions per inference 1 instead of 8" in printed
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert {"kind": "untrained", "text": untrained} in summary["marks"]
    assert untrained in (tmp_path / "run/report.md").read_text()
