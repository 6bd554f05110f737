"""``python -m vla_harness doctor``: every check, the command's exit codes, and what mends a failure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from vla_harness import doctor
from vla_harness.__main__ import main
from vla_harness.doctor import DoctorOptions, Finding, examine


def run_doctor(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vla_harness", "doctor", *arguments],
        env={**os.environ, **environment},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
    )


def safetensors(path: Path, numbers: int) -> None:
    """Write a file with one float32 tensor, as the format's description has it."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [numbers], "data_offsets": [0, 4 * numbers]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4 * numbers))


def only(findings: Any) -> Finding:
    (finding,) = findings
    assert isinstance(finding, Finding)
    return finding


def test_a_sound_installation_passes_with_an_episode_played() -> None:
    answer = run_doctor("--assets", "primitive")  # which are there on every machine
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert answer.stderr == ""
    assert "FAIL" not in answer.stdout and "The main command can run." in answer.stdout
    for subject in ("python", "packages", "mujoco", "robosuite", "rendering", "assets", "memory", "disk", "episode"):
        assert f"ok    {subject}" in answer.stdout


def test_failures_name_their_remedy_and_set_the_exit_code(tmp_path: Path) -> None:
    answer = run_doctor("--assets", str(tmp_path), "--checkpoint", str(tmp_path / "absent"), MUJOCO_GL="glfw")
    assert answer.returncode == 1 and answer.stderr == ""
    failures = [line for line in answer.stdout.splitlines() if line.startswith("FAIL")]
    assert [line.split()[1] for line in failures] == ["rendering", "assets", "checkpoint"]
    assert "set it to egl or osmesa" in failures[0]
    assert "name the one that holds" in failures[1]
    assert "name another with --checkpoint" in failures[2]
    assert "episode" not in answer.stdout and "3 of " in answer.stdout


def test_a_hub_out_of_reach_leaves_the_stand_ins(tmp_path: Path) -> None:
    away = {"LIBERO_ASSETS": "", "HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}
    answer = run_doctor("--quick", **away)
    assert answer.returncode == 0 and "note  assets       generated stand-ins" in answer.stdout
    answer = run_doctor("--quick", "--assets", "hub", **away)
    assert answer.returncode == 1 and "LIBERO_ASSETS=PATH" in answer.stdout


def test_the_main_command_cannot_run_without_its_default_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name == "torch" or name.startswith("vla_harness.policies.tformer")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    finding = only(doctor.check_policy())
    assert finding.state == "FAIL" and finding.text.startswith("The policy 'tformer' needs torch, which is not")
    assert "pip install 'vla-harness[vla]'" in finding.text and "--policy scripted" in finding.text


def test_a_cache_of_compiled_code_that_cannot_be_written_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    finding = only(one for one in examine(DoctorOptions(quick=True, assets="primitive")) if one.subject == "compiler")
    assert finding.state == "FAIL" and "NUMBA_CACHE_DIR is" in finding.text and "unset it" in finding.text


def test_bad_usage_is_one_sentence_and_help_explains(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--what"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["surgeon"]) == 2
    assert "choose from doctor" in capsys.readouterr().err
    assert main([]) == 0
    assert "doctor" in capsys.readouterr().out
    answer = run_doctor("--help")
    assert answer.returncode == 0 and "--checkpoint" in answer.stdout and "Exit codes" in answer.stdout


def test_another_version_is_named_with_the_command_that_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    true_version = metadata.version
    versions = {"mujoco": "3.4.0", "numpy": "1.26.4"}
    monkeypatch.setattr(metadata, "version", lambda name: versions.get(name) or true_version(name))
    findings = {finding.subject: finding for finding in doctor.check_benchmark()}
    assert findings["mujoco"].state == "FAIL" and "pip install mujoco==3.3.2" in findings["mujoco"].text
    assert findings["robosuite"] == Finding("robosuite", "ok", "1.4.0")
    numpy = {finding.subject: finding for finding in doctor.check_requirements()}["numpy"]
    assert numpy.state == "FAIL" and "1.26.4" in numpy.text and "pip install 'numpy>=" in numpy.text


def test_a_missing_benchmark_is_named_with_the_command_that_adds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    findings = {finding.subject: finding for finding in doctor.check_benchmark()}
    command = "pip install --no-deps hf-libero==0.1.4 robosuite==1.4.0 bddl==1.0.1"
    assert findings["hf-libero"].state == "FAIL" and command in findings["hf-libero"].text
    assert only(finding for finding in doctor.check_devices() if finding.subject == "gpu").state == "note"


def test_a_checkpoint_is_whole_or_its_gap_is_named(tmp_path: Path) -> None:
    safetensors(tmp_path / "model-1.safetensors", 100)
    safetensors(tmp_path / "model-2.safetensors", 50)
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert only(doctor.check_checkpoint(tmp_path)).state == "ok"
    assert only(doctor.check_checkpoint(tmp_path / "model-1.safetensors")).state == "ok"

    with (tmp_path / "model-1.safetensors").open("r+b") as file:
        file.truncate(300)
    (tmp_path / "model-2.safetensors").unlink()
    finding = only(doctor.check_checkpoint(tmp_path))
    assert finding.state == "FAIL"
    assert "model-1.safetensors is cut off" in finding.text and "model-2.safetensors is absent" in finding.text


def test_too_little_room_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "WORKER_GB", 1e9)
    monkeypatch.setattr(doctor, "DISK_GB", 1e9)
    assert [finding.state for finding in doctor.check_room()] == ["FAIL", "FAIL"]


def test_a_check_that_breaks_is_a_failure_and_not_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise OSError("libsomething.so: cannot open shared object file")

    monkeypatch.setattr(doctor, "check_devices", broken)
    monkeypatch.setattr(doctor, "check_episode", lambda assets: pytest.fail("played after a failure"))
    findings = list(examine(DoctorOptions()))
    assert [finding.text for finding in findings if finding.subject == "gpu"] == [
        "OSError: libsomething.so: cannot open shared object file: `make clean eval` builds .venv anew."
    ]
