"""How a command starts: packages that are absent, Ctrl-C while it is imported, streams that are closed or full."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tformer import command
from tformer.errors import refused_path
from tformer.launch import dispatch, missing_package
from vla_harness.command import run_command
from vla_harness.launch import launch as launch_harness

ROOT = Path(__file__).parents[2]
START = "import sys; from tformer.launch import launch; sys.exit(launch('toy', 'data'))"


def start(folder: Path, source: str, shell: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
    """Launch a module of this source from the folder. shell: redirections."""
    (folder / "toy.py").write_text(source)
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{folder}", "PYTHONUNBUFFERED": ""}
    line = f'exec "{sys.executable}" -c "{START}" {shell}'
    return subprocess.run(
        ["sh", "-c", line], env=environment, cwd=folder, text=True, capture_output=True, timeout=60, **options
    )


def test_an_absent_package_is_named_with_its_extra(tmp_path: Path) -> None:
    answer = start(tmp_path, "import pyarrow_that_is_not_there.parquet")
    told = "error: This command needs pyarrow_that_is_not_there, which is not installed: run `pip install "
    assert (answer.returncode, answer.stderr) == (2, f"{told}'vla-harness[data]'`.\n")
    with pytest.raises(ModuleNotFoundError):
        missing_package(ModuleNotFoundError("…", name="vla_harness.gone"), "server")
    assert missing_package(ModuleNotFoundError("…", name="scipy"), "").endswith("`pip install vla-harness`.")


def test_ctrl_c_while_it_is_imported_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_text("import time; print('importing', flush=True); time.sleep(60)")
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
    with subprocess.Popen(
        [sys.executable, "-c", START], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
    assert (process.returncode, told) == (130, "interrupted\n")


FILE = """
import sys

def main(arguments):
    print('table')
    with open('result', 'w') as file:
        file.write(str(file.fileno()))
    print('progress', file=sys.stderr, flush=True)
    return 0
"""


@pytest.mark.parametrize(
    ("shell", "code", "told"),
    [
        ("2>&-", 0, ""),
        (">&- 2>&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
        ("2>/dev/full", 0, ""),
        (">/dev/full", 1, "progress\nfailed: the output cannot be written (No space left on device).\n"),
        ("| true", 0, "progress\n"),
    ],
)
def test_streams_that_are_closed_or_full_cost_no_result(tmp_path: Path, shell: str, code: int, told: str) -> None:
    answer = start(tmp_path, FILE, shell)
    assert (answer.returncode, answer.stderr) == (code, told)
    assert int((tmp_path / "result").read_text()) > 2  # what goes to a closed stream does not go there


def test_a_reader_that_leaves_is_no_failure_to_tell(tmp_path: Path) -> None:
    many = "def main(arguments):\n    for _ in range(100000):\n        print('line')\n    return 0\n"
    answer = start(tmp_path, many, "| head -1")
    assert answer.stderr == "" and answer.stdout == "line\n"


def test_a_current_folder_that_is_gone_is_said(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    line = f'rmdir ../gone; exec "{sys.executable}" -c "{START}"'
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    answer = subprocess.run(["sh", "-c", line], env=environment, cwd=gone, text=True, capture_output=True, timeout=60)
    assert (answer.returncode, answer.stderr) == (
        2,
        "error: the current folder is gone: change to one that is there.\n",
    )


@pytest.mark.parametrize("run", [command.run_command, run_command])
def test_a_path_that_the_system_refuses_is_one_sentence(
    run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert run(lambda: Path("a" * 300).read_text()) == 2
    told = f"error: {'a' * 60}…{'a' * 30} cannot be used (File name too long): mend that, or give another path.\n"
    assert capsys.readouterr().err == told
    assert run(lambda: (tmp_path / "file" / "below").mkdir()) == 2
    assert f"{tmp_path}/file/below cannot be used (Not a directory)" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError):
        run(lambda: (tmp_path / "absent").read_text())
    assert refused_path(ValueError("no path")) == ""


def test_a_command_without_a_name_prints_its_usage(capsys: pytest.CaptureFixture[str]) -> None:
    commands = {"one": ("some.module", "do one thing")}
    started: list[tuple[str, list[str]]] = []
    assert dispatch("toy", commands, [], launch_harness) == 2
    assert "one                do one thing" in capsys.readouterr().err
    assert dispatch("toy", commands, ["--help"], launch_harness) == 0

    def start_one(module: str, arguments: list[str]) -> int:
        started.append((module, arguments))
        return 7

    assert dispatch("toy", commands, ["one", "--x"], start_one) == 7
    assert started == [("some.module", ["--x"])]
