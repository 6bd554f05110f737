"""Bad usage is one sentence, whatever the terminal can show."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from tyro.conf import Positional, UseAppendAction

from vla_harness.command import command_line, parse_options, run_command
from vla_harness.errors import UserError


@dataclass(frozen=True)
class Options:
    """What the toy takes."""

    source: Positional[Path]
    """A file that ends in .hdf5 or .toml."""
    steps: int = 3
    """Steps."""
    size: Literal["small", "large"] = "small"
    """Size."""


@pytest.mark.parametrize("encoding", ["utf-8", "UTF-8", "latin-1", "ascii"])
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Missing from toy: PATH A file that ends in .hdf5 or .toml. (required)"),
        (["a", "--steps"], "Missing value for argument '--steps'. Expected 1 values"),
        (["a", "--size", "huge"], "invalid choice 'huge' for argument '--size'. Expected one of ('small', 'large')"),
        (["a", "--stpes", "4"], "Unrecognized options: --stpes, 4"),
    ],
)
def test_bad_usage_is_the_same_sentence_with_and_without_a_box(
    encoding: str, arguments: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))  # tyro looks at its encoding
    with pytest.raises(UserError) as error:
        parse_options(Options, arguments, "toy")
    assert str(error.value) == f"{sentence}; `toy --help` explains every option."


@dataclass(frozen=True)
class Repeatable:
    """Options of which two take several values."""

    dataset: tuple[Path, ...] = ()
    """Datasets."""
    tasks: tuple[int, ...] | None = None
    """Tasks."""
    seed: int = 0
    """Seed."""
    option: UseAppendAction[tuple[str, ...]] = ()
    """Of which each occurrence takes one value."""


@pytest.mark.parametrize(
    ("arguments", "datasets", "tasks"),
    [
        (["--dataset", "a", "--seed", "1", "--dataset", "b"], ("a", "b"), None),
        (["--dataset=a", "--dataset=b", "--dataset", "c", "d"], ("a", "b", "c", "d"), None),
        (["--tasks", "1", "--tasks=-2", "--dataset", "a"], ("a",), (1, -2)),
    ],
)
def test_a_repeated_sequence_option_keeps_all_its_values(
    arguments: list[str], datasets: tuple[str, ...], tasks: tuple[int, ...] | None
) -> None:
    parsed = parse_options(Repeatable, arguments, "toy")
    assert parsed.dataset == tuple(map(Path, datasets)) and parsed.tasks == tasks


def test_an_appended_option_takes_one_value_each_time() -> None:
    assert parse_options(Repeatable, ["--option", "a=1", "--option=b=2"], "toy").option == ("a=1", "b=2")


def test_of_a_repeated_option_of_one_value_the_last_counts_and_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_options(Repeatable, ["--seed", "1", "--seed=2"], "toy").seed == 2
    assert capsys.readouterr().out == "--seed is given twice: the last one counts, --seed=2\n"
    assert parse_options(Repeatable, ["--seed=-5"], "toy").seed == -5
    assert capsys.readouterr().out == ""


TOY = """
import sys
from dataclasses import dataclass
from tformer.command import parse_options, run_command

@dataclass
class Toy:
    '''A toy.'''

def command():
    parse_options(Toy, None, "toy")
    print("done " * 30_000)

sys.exit(run_command(command))
"""


@pytest.mark.parametrize("arguments", [["--help"], []])
def test_a_reader_that_leaves_costs_no_traceback(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", TOY, *arguments], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_full_disk_under_the_output_is_one_sentence() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", TOY], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("failed: no space is left on the disk") and done.stderr.count("\n") == 1


def test_closed_streams_are_none_of_the_commands_files(tmp_path: Path) -> None:
    """A file that is opened while stderr is closed gets its number, and what is written to stderr."""
    code = TOY.replace('print("done " * 30_000)', 'open("out", "w").write(str(open("in").fileno()))')
    (tmp_path / "in").touch()
    line = [sys.executable, "-c", "import os, sys; os.close(2); os.execv(sys.executable, sys.argv[1:])"]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run([*line, sys.executable, "-c", code], cwd=tmp_path, env=environment)
    assert done.returncode == 0 and int((tmp_path / "out").read_text()) > 2


def test_what_the_disk_refuses_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(lambda: len((tmp_path / ("x" * 300)).read_text())) == 2
    said = capsys.readouterr().err
    assert "cannot be used (File name too long): mend that, or give another path." in said and said.count("\n") == 1
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: 1 // 0)


def test_a_command_line_can_be_typed_again_without_its_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--server", "ws://h:1/?token=s3cret&x=1", "--out", "my runs"]
    monkeypatch.setattr(sys, "argv", ["eval/run_libero.py", *words])
    typed = "python eval/run_libero.py --server 'ws://h:1/?token=***&x=1' --out 'my runs'"
    assert command_line("x", None) == command_line("x", words) == typed
    monkeypatch.setattr(sys, "argv", ["/usr/bin/vla-libero", "--suite", "goal"])
    assert command_line("x", None) == "vla-libero --suite goal"
    assert command_line("run_libero.py", ["--suite", "10"]) == "run_libero.py --suite 10"
