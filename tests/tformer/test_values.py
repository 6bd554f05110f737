"""Values from text and from Python, by the types that options declare."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest

from tformer.values import (
    BadValue,
    Decay,
    Fraction,
    NonNegativeFloat,
    Port,
    PositiveFloat,
    PositiveInt,
    Range,
    Seed,
    check_value,
    read_value,
)

Style = Literal["policy", "train"]


@pytest.mark.parametrize(
    ("text", "annotation", "value"),
    [
        ("8", int, 8),
        ("-1.5", float, -1.5),
        ("8", float, 8.0),
        ("false", bool, False),
        ("True", bool, True),
        ("8", PositiveInt | None, 8),
        ("none", PositiveInt | None, None),
        ("none", str | None, None),
        ("agentview", str | None, "agentview"),
        ("a=b", str, "a=b"),
        ("7", int | str, 7),
        ("seven", int | str, "seven"),
        ("train", Style, "train"),
        ("train", Style | None, "train"),
        ("2", Literal[1, 2], 2),
        ("agentview", Sequence[str], ("agentview",)),
        ("agentview, wrist", tuple[str, ...], ("agentview", "wrist")),
        ("1,2", list[int], [1, 2]),
        ("3,0.5", tuple[int, float], (3, 0.5)),
        ("1,2", tuple[int, ...] | None, (1, 2)),
        ("here", Path, Path("here")),
        ("65535", Port, 65535),
        ("anything", Any, "anything"),
    ],
)
def test_a_value_is_read_by_its_type(text: str, annotation: Any, value: Any) -> None:
    read = read_value(text, annotation)
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "annotation", "problem"),
    [
        ("banana", int, "is int, and 'banana' is none"),
        ("1.5", PositiveInt | None, "is int or None, and '1.5' is none"),
        ("0", PositiveInt | None, "is 0: give at least 1"),
        ("nan", float, "is nan: give a finite number"),
        ("inf", NonNegativeFloat | None, "is inf: give at least 0"),
        ("1e999", float, "is 1e999: give a finite number"),
        ("0", PositiveFloat, "is 0: give more than 0"),
        ("1", Decay, "is 1: give 0 to less than 1"),
        ("-0.1", Fraction, "is -0.1: give 0 to 1"),
        ("65536", Port, "is 65536: give 0 to 65535"),
        ("4294967296", Seed, "is 4294967296: give 0 to 4294967295"),
        ("perhaps", bool, "is 'perhaps': choose one of true, false"),
        ("loud", Style | None, "is 'loud': choose one of policy, train"),
        ("1,x", tuple[int, ...], "is int, and 'x' is none"),
        ("1", tuple[int, int], "is '1': give 2 values with commas between"),
        ("x", dict[str, int], "is dict, which cannot be given as text: leave it out"),
        ("9", Annotated[int, Range(high=8)], "is 9: give at most 8"),
    ],
)
def test_a_wrong_text_says_what_is_allowed(text: str, annotation: Any, problem: str) -> None:
    with pytest.raises(BadValue) as error:
        read_value(text, annotation)
    assert str(error.value) == problem


@pytest.mark.parametrize(
    ("given", "annotation", "value"),
    [
        (np.int64(3), PositiveInt, 3),
        (3, float, 3.0),
        (["a", "b"], Sequence[str], ("a", "b")),
        (("a",), list[str], ["a"]),
        (Path("here"), str, "here"),
        (Path("here"), str | None, "here"),
        ("here", Path, Path("here")),
        (None, int | None, None),
        ({"a": 1}, dict[str, int], {"a": 1}),
        ({"a": [1]}, dict[str, Any], {"a": [1]}),
        (Range(0), Range, Range(0)),
    ],
)
def test_a_value_of_python_is_taken(given: Any, annotation: Any, value: Any) -> None:
    taken = check_value(given, annotation)
    assert taken == value and type(taken) is type(value)


@pytest.mark.parametrize(
    ("given", "annotation", "problem"),
    [
        ("agentview", Sequence[str], "is several of str, and 'agentview' is none"),
        ("8", int, "is int, and '8' is none"),
        (True, int, "is int, and True is none"),
        (1, bool, "is bool, and 1 is none"),
        (None, int, "is int, and None is none"),
        (math.nan, float | None, "is nan: give a finite number"),
        (0, PositiveInt, "is 0: give at least 1"),
        ("loud", Style, "is 'loud': choose one of policy, train"),
        ((1, "b"), tuple[int, ...], "is int, and 'b' is none"),
        ([], dict[str, int], "is dict, and [] is none"),
        ({"a": "b"}, dict[str, float], "is float, and 'b' is none"),
        ("x", Range, "is Range, and 'x' is none"),
    ],
)
def test_a_wrong_value_of_python_says_what_is_allowed(given: Any, annotation: Any, problem: str) -> None:
    with pytest.raises(BadValue) as error:
        check_value(given, annotation)
    assert str(error.value) == problem
