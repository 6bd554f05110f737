"""Values that users state: which numbers a type allows, and how a value is read from text or checked.

An annotation such as ``Annotated[int, Range(1)]`` says what is allowed where the value is declared, for the fields of a
command's dataclass and for the parameters of a policy alike. No number may be infinite or NaN, whatever its range.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

LONGEST = 100
"""Characters of a wrong value that a message shows."""


class BadValue(ValueError):
    """A value that its type does not allow; the message goes on after the value's name: "is 0: give at least 1".

    path: keys and positions that lead to the value, in mappings and sequences, from the outside.
    """

    path: tuple[str, ...] = ()


class OtherType(BadValue):
    """A value of another type: "is int, and 'many' is none"."""


@dataclass(frozen=True)
class Range:
    """The numbers from ``low`` to ``high``, both included unless ``above`` or ``below`` leaves that end out.

    multiple: of what the numbers are whole multiples; 0 for any.
    """

    low: float | None = None
    high: float | None = None
    above: bool = False
    below: bool = False
    multiple: int = 0

    def __contains__(self, number: float) -> bool:
        low_enough = self.low is None or number > self.low or (number == self.low and not self.above)
        if self.multiple and number % self.multiple:
            return False
        return low_enough and (self.high is None or number < self.high or (number == self.high and not self.below))

    def __str__(self) -> str:
        if self.multiple:
            return f"a multiple of {self.multiple}, {Range(self.low, self.high, self.above, self.below)}"
        if self.low is None:
            return "a finite number" if self.high is None else f"{'less than' if self.below else 'at most'} {self.high}"
        if self.high is None:
            return f"more than {self.low}" if self.above else f"at least {self.low}"
        high = f"less than {self.high}" if self.below else f"{self.high}"
        return f"more than {self.low}, to {high}" if self.above else f"{self.low} to {high}"


NonNegativeInt = Annotated[int, Range(0)]
PositiveInt = Annotated[int, Range(1)]
Seed = Annotated[int, Range(0, 2**32 - 1)]
"""What torch, numpy and Python's own generators all take."""
Port = Annotated[int, Range(0, 2**16 - 1)]
"""A TCP port; 0 asks for any free one."""
NonNegativeFloat = Annotated[float, Range(0)]
PositiveFloat = Annotated[float, Range(0, above=True)]
Duration = Annotated[float, Range(0, 10**7)]
"""Seconds, milliseconds or hours that something may take; clocks take no number of any size."""
PositiveDuration = Annotated[float, Range(0, 10**7, above=True)]
Fraction = Annotated[float, Range(0, 1)]
Decay = Annotated[float, Range(0, 1, below=True)]
"""A momentum, a decay of a running mean, or a share of what is dropped: 1 would keep or drop everything."""


def read_value(text: str, annotation: Any) -> Any:
    """Return what ``text`` states as a value of the type ``annotation``; raises BadValue.

    Sequences have commas between their entries; an optional value that is not text may be given as "none".
    """
    kind, ranges = _unwrap(annotation)
    origin, parameters = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _first_that_takes(text, sorted(parameters, key=lambda part: part is str), read_value, kind)
    if origin is Literal:
        return _chosen({_spelled(choice): choice for choice in parameters}, text, parameters)
    if kind is bool:
        return _chosen({"true": True, "false": False}, text.lower(), ("true", "false"))
    if kind in (int, float):
        try:
            return _in_range(kind(text), ranges, text)
        except (ValueError, OverflowError) as error:
            raise error if isinstance(error, BadValue) else _another_type(kind, text) from None
    if kind is NoneType:
        if text.lower() == "none":
            return None
        raise _another_type(kind, text)
    if _is_sequence(kind):
        return check_value([read_value(entry.strip(), part) for entry, part in _entries(text, kind)], annotation)
    if kind in (str, Path):
        return kind(text)
    if kind is Any or kind is object:
        return text
    raise BadValue(f"is {describe(kind)}, which cannot be given as text: leave it out")


def check_value(value: Any, annotation: Any) -> Any:
    """Return ``value`` as the type ``annotation`` has it, such as a tuple for a list; raises BadValue.

    Of a TypedDict, keys that it does not name are left as they are. Types that have no reading here, such as callables,
    are checked by their class alone.
    """
    kind, ranges = _unwrap(annotation)
    origin, parameters = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, UnionType):
        return _first_that_takes(value, parameters, check_value, kind)
    if origin is Literal:
        if not any(type(value) is type(choice) and value == choice for choice in parameters):
            raise BadValue(f"is {_shown(value)}: choose one of {', '.join(map(_spelled, parameters))}")
        return value
    if kind is int and isinstance(value, Integral) and not isinstance(value, bool):
        return _in_range(int(value), ranges, value)
    if kind is float and isinstance(value, Real) and not isinstance(value, bool):
        return _in_range(float(value), ranges, value)
    if kind is str and isinstance(value, os.PathLike):
        return os.fspath(value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is NoneType and value is None:
        return None
    if is_typeddict(kind):
        return _checked_fields(value, kind)
    if _is_sequence(kind):
        return _checked_sequence(value, kind)
    if kind in (int, float, NoneType) or (isinstance(kind, type) and not isinstance(value, kind)):
        raise _another_type(kind, value)
    if isinstance(origin, type) and not isinstance(value, origin):
        raise _another_type(kind, value)
    if isinstance(value, Mapping) and len(parameters) == 2:
        return {check_value(key, parameters[0]): _inside(key, entry, parameters[1]) for key, entry in value.items()}
    return value


def describe(annotation: Any, ranges: bool = False) -> str:
    """Return what users are told of a type: "int", "int or None", "one of nvidia, lerobot", "several of str".

    ranges: with the numbers it allows, as in "int (at least 1) or None".
    """
    kind, allowed = _unwrap(annotation)
    origin, parameters = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return " or ".join(describe(part, ranges) for part in parameters)
    if origin is Literal:
        return f"one of {', '.join(map(_spelled, parameters))}"
    if _is_sequence(kind):
        return " and ".join(map(describe, parameters)) if _is_fixed(kind) else f"several of {describe(_entry(kind))}"
    if kind is NoneType:
        return "None"
    name = getattr(kind, "__name__", str(kind))
    return f"{name} ({', '.join(map(str, allowed))})" if ranges and allowed else name


def _unwrap(annotation: Any) -> tuple[Any, list[Range]]:
    if get_origin(annotation) is not Annotated:
        return annotation, []
    kind, *notes = get_args(annotation)
    return kind, [note for note in notes if isinstance(note, Range)]


def _in_range(number: Any, ranges: Sequence[Range], shown: Any) -> Any:
    if isinstance(number, float) and not math.isfinite(number):
        raise BadValue(f"is {str(shown)[:LONGEST]}: give {ranges[0] if ranges else Range()}")
    for allowed in ranges:
        if number not in allowed:
            raise BadValue(f"is {str(shown)[:LONGEST]}: give {allowed}")
    return number


def _first_that_takes(value: Any, kinds: Sequence[Any], take: Any, union: Any) -> Any:
    """Return the value as the first of ``kinds`` that takes it; what is wrong within a fitting type is said first."""
    problem: BadValue = _another_type(union, value)
    for kind in kinds:
        try:
            return take(value, kind)
        except BadValue as error:
            if error.path or not isinstance(error, OtherType):
                problem = error
    raise problem


def _inside(key: Any, value: Any, annotation: Any) -> Any:
    try:
        return check_value(value, annotation)
    except BadValue as error:
        error.path = (str(key), *error.path)
        raise


def _checked_fields(value: Any, kind: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _another_type(dict, value)
    checked = dict(value)
    for name, annotation in get_type_hints(kind, include_extras=True).items():
        if name in checked:
            checked[name] = _inside(name, checked[name], annotation)
        elif name in kind.__required_keys__:
            error = BadValue("is missing")
            error.path = (name,)
            raise error
    return checked


def _chosen(choices: Mapping[str, Any], text: str, shown: Sequence[Any]) -> Any:
    if text not in choices:
        raise BadValue(f"is {_shown(text)}: choose one of {', '.join(map(_spelled, shown))}")
    return choices[text]


def _spelled(choice: Any) -> str:
    return str(choice).lower() if isinstance(choice, bool) or choice is None else str(choice)


def _another_type(kind: Any, value: Any) -> OtherType:
    return OtherType(f"is {describe(kind)}, and {_shown(value)} is none")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _is_sequence(kind: Any) -> bool:
    base = get_origin(kind) or kind
    return isinstance(base, type) and issubclass(base, Collection) and not issubclass(base, str | bytes | Mapping)


def _is_fixed(kind: Any) -> bool:
    parameters = get_args(kind)
    return get_origin(kind) is tuple and bool(parameters) and parameters[-1] is not Ellipsis


def _entry(kind: Any) -> Any:
    return (get_args(kind) or (Any,))[0]


def _entries(text: str, kind: Any) -> list[tuple[str, Any]]:
    entries = text.split(",")
    if not all(map(str.strip, entries)):
        raise BadValue(f"is {_shown(text)}, which has an empty entry: give values with commas between")
    if not _is_fixed(kind):
        return [(entry, _entry(kind)) for entry in entries]
    parts = get_args(kind)
    if len(entries) != len(parts):
        raise BadValue(f"is {_shown(text)}: give {len(parts)} values with commas between")
    return list(zip(entries, parts, strict=True))


def _checked_sequence(value: Any, kind: Any) -> Any:
    base = get_origin(kind) or kind
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Collection):
        raise _another_type(kind, value)
    parts = get_args(kind) if _is_fixed(kind) else (_entry(kind),) * len(value)
    if len(parts) != len(value):
        raise BadValue(f"is {_shown(value)}: give {len(parts)} values")
    entries = [_inside(n, entry, part) for n, (entry, part) in enumerate(zip(value, parts, strict=True))]
    if issubclass(base, Set):
        return frozenset(entries)
    return entries if base is list else tuple(entries)
