"""The exported files compute what torch computes, at sizes other than those of the export."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vla_harness.groot.goldens import CHECKPOINT, TOKENIZER
from vla_harness.policies.groot import onnx_export

ARGUMENTS = ["--checkpoint", CHECKPOINT, "--tokenizer", TOKENIZER, "--data-config", "so100_dualcam"]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
def test_the_command_exports_checks_and_writes_the_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One denoising step keeps the tracing short; the steps are copies of each other."""
    assert onnx_export.main([*ARGUMENTS, "--denoising-steps", "1", "--out", str(tmp_path / "engines")]) == 0
    said = capsys.readouterr().out
    for file in ("vision.onnx", "action_head.onnx"):
        assert (tmp_path / "engines" / file).stat().st_size > 0
        assert f"{file}: differs from torch by" in said
    script = (tmp_path / "engines/build_engines.sh").read_text()
    assert "--optShapes=pixels:2x3x224x224" in script
    assert "--optShapes=features:1x558x64,state:1x1x64,noise:1x16x32" in script


def test_a_file_that_differs_fails_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "export", lambda *_: {"vision.onnx": float("nan")})
    assert onnx_export.main([*ARGUMENTS, "--out", str(tmp_path)]) == 1
    assert "differs from torch by nan, more than 1e-04" in capsys.readouterr().err


def test_a_folder_that_no_export_made_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "vision.onnx").write_text("mine")
    assert onnx_export.main([*ARGUMENTS, "--out", str(tmp_path)]) == 2
    assert "exists already: choose a new folder" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["vision.onnx"]
    assert (tmp_path / "vision.onnx").read_text() == "mine"
