"""Bad usage is one sentence, whatever the terminal can show."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from tyro.conf import Positional, UseAppendAction

from vla_harness.command import parse_options
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


def test_a_repeated_option_of_one_value_is_refused() -> None:
    with pytest.raises(UserError, match=r"^--seed is given twice; give it once\.$"):
        parse_options(Repeatable, ["--seed", "1", "--seed=2"], "toy")
    assert parse_options(Repeatable, ["--seed=-5"], "toy").seed == -5
