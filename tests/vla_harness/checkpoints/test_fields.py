"""Typed values of a checkpoint's JSON: what is read, and the sentence for what cannot be."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from vla_harness.checkpoints import Fields
from vla_harness.errors import CheckpointError

Read = Callable[[Fields], object]


def fields(**content: Any) -> Fields:
    return Fields(content, "config.json of tiny")


def test_values_of_their_type_are_read_and_absent_ones_have_their_default() -> None:
    stored = fields(n=3, x=1, on=True, name="a", inner={"low": [0, 1.5], "mask": [True, False]}, two=[{"a": 1}, {}])
    assert stored.integer("n") == 3 and stored.number("x") == 1.0 and stored.flag("on") and stored.text("name") == "a"
    assert stored.integer("absent", 4) == 4 and stored.flag("absent", False) is False
    assert stored.section("inner").numbers("low", 2) == (0.0, 1.5)
    assert stored.section("inner").flags("mask", 2) == (True, False)
    assert stored.section("absent", optional=True).flags("mask", 1, [True]) == (True,)
    assert stored.sections("two", 2)[0].integer("a") == 1
    stored.supported("name", "a", "b")
    stored.supported("absent", "a")


@pytest.mark.parametrize(
    ("content", "read", "sentence"),
    [
        ({}, lambda f: f.integer("n"), "config.json of tiny lacks n, a whole number from 1 to"),
        ({"n": "3"}, lambda f: f.integer("n"), "has n '3', and a whole number from 1 to"),
        ({"n": True}, lambda f: f.integer("n"), "has n True, and"),
        ({"n": None}, lambda f: f.integer("n", 5), "has n null, and"),
        ({"n": 3.0}, lambda f: f.integer("n"), "has n 3.0, and"),
        ({"n": 10**30}, lambda f: f.integer("n"), "and a whole number from 1 to 1048576 is expected"),
        ({"x": float("nan")}, lambda f: f.number("x"), "has x nan, and a finite number is expected"),
        ({"x": 10**400}, lambda f: f.number("x"), "and a finite number is expected"),
        ({"x": 0}, lambda f: f.number("x", above=0), "and a finite number above 0 is expected"),
        ({"on": 1}, lambda f: f.flag("on"), "has on 1, and true or false is expected"),
        ({"s": ""}, lambda f: f.text("s"), "and a text is expected"),
        ({"s": [1]}, lambda f: f.section("s"), r"has s \[1\], and an object is expected"),
        ({"s": {"q": [1, 2]}}, lambda f: f.section("s").numbers("q", 3), r"has s.q \[1, 2\], and a list of 3 finite"),
        ({"s": {"q": [1, None]}}, lambda f: f.section("s").numbers("q"), "a list of finite numbers is expected"),
        ({"m": [1]}, lambda f: f.flags("m", 1), "a list of 1 entries that are true or false is expected"),
        ({"s": "abc"}, lambda f: f.texts("s"), "has s 'abc', and a list of texts is expected"),
        ({"s": [{}, 1]}, lambda f: f.sections("s", 2), "and a list of 2 objects is expected"),
        ({"s": "letterbox"}, lambda f: f.supported("s", "a"), "has s 'letterbox', and only 'a' is implemented"),
        ({"s": 1}, lambda f: f.supported("s", True), "has s 1, and only True is implemented"),
    ],
)
def test_anything_else_is_a_sentence_with_file_key_and_what_is_expected(
    content: dict[str, Any], read: Read, sentence: str
) -> None:
    with pytest.raises(CheckpointError, match=sentence) as caught:
        read(fields(**content))
    assert re.fullmatch(r"config\.json of tiny [^\n]+\.", str(caught.value))
