"""The commands that run OpenVLA: the benchmark, and the evaluation's refusal of statistics that are not there."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from vla_harness.eval.bench import openvla as bench
from vla_harness.eval.run_libero import main
from vla_harness.protocols import PROTOCOLS


def test_the_bench_runs_and_the_plain_loop_finds_the_same_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--size", "tiny", "--device", "cpu", "--precision", "fp32", "--batch", "1", "--repeats", "1"]
    assert bench.main(arguments) == 0
    printed = capsys.readouterr().out
    assert all(f"| 1 | {phase} | " in printed for phase in ("vision", "prefill", "decode"))
    assert "tokens agree" in printed


@pytest.mark.parametrize(
    ("options", "wanted"), [(["--suite", "goal"], "libero_goal"), (["--suite", "spatial", "--unnorm-key", "x"], "x")]
)
def test_the_evaluation_asks_for_the_suite_s_statistics_before_any_episode(
    tiny: str, options: list[str], wanted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*options, "--policy", "openvla", "--checkpoint", tiny, "--device", "cpu"]) == 2
    assert f"no statistics for '{wanted}': give --unnorm-key, one of bridge_orig, libero_sp" in capsys.readouterr().err


def test_the_evaluation_plays_it_in_four_bits(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    short = dataclasses.replace(PROTOCOLS["openvla"], max_steps={"spatial": 3})
    monkeypatch.setitem(PROTOCOLS, "openvla", short)
    arguments = ["--suite", "spatial", "--policy", "openvla", "--checkpoint", tiny, "--precision", "4bit"]
    arguments += ["--device", "cpu", "--tasks", "0", "--trials", "1", "--workers", "1", "--assets", "primitive"]
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 0
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert (summary["policy"], summary["trials"], summary["errors"]) == ("openvla", 1, 0)
    provenance = summary["provenance"]
    assert (provenance["precision"], provenance["unnorm_key"]) == ("4bit", "libero_spatial")
    assert summary["policy_latency_ms"]["p50"] > 0
    assert "which sees agentview" in capsys.readouterr().out
