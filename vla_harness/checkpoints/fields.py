"""Typed reading of a checkpoint's JSON files: a missing or odd value becomes one sentence with the file and the key."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from ..errors import CheckpointError

LARGEST = 2**20
"""Largest whole number that a size may be unless a caller says otherwise; real sizes stay far below it."""
SHOWN = 60
"""Characters of an unexpected value that a message quotes."""


class Fields:
    """One JSON object of a checkpoint's file, read key by key, each with the type that it must have.

    Every method raises CheckpointError, which names the file, the dotted key and what was expected, when the key is
    missing and no ``default`` is given, or its value has another type or lies out of range.
    """

    def __init__(self, content: Mapping[str, Any], where: str, path: str = "") -> None:
        """Wrap ``content``; where: "config.json of NAME", for messages. path: dotted key of this object in the file."""
        self.content = content
        self.where = where
        self.path = path

    def has(self, key: str) -> bool:
        """Return whether the key is there with a value other than null."""
        return self.content.get(key) is not None

    def integer(self, key: str, default: int | None = None, *, least: int = 1, most: int = LARGEST) -> int:
        """Return a whole number from ``least`` to ``most``."""
        expected = f"a whole number from {least} to {most}"
        value = self._value(key, default, expected)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self.refuse(key, expected)
        return value

    def number(self, key: str, default: float | None = None, *, above: float = -math.inf) -> float:
        """Return a finite number, larger than ``above``."""
        expected = "a finite number" + (f" above {above:g}" if math.isfinite(above) else "")
        value = _finite(self._value(key, default, expected))
        if value is None or value <= above:
            self.refuse(key, expected)
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """Return a text that is not empty."""
        value = self._value(key, default, "a text")
        if not isinstance(value, str) or not value:
            self.refuse(key, "a text")
        return value

    def flag(self, key: str, default: bool | None = None) -> bool:
        """Return true or false."""
        value = self._value(key, default, "true or false")
        if not isinstance(value, bool):
            self.refuse(key, "true or false")
        return value

    def section(self, key: str, *, optional: bool = False) -> Fields:
        """Return the object under ``key``; an empty one where it is ``optional`` and missing or null."""
        if optional and not self.has(key):
            return Fields({}, self.where, self._dotted(key))
        value = self._value(key, None, "an object")
        if not isinstance(value, Mapping):
            self.refuse(key, "an object")
        return Fields(value, self.where, self._dotted(key))

    def sections(self, key: str, count: int) -> list[Fields]:
        """Return the ``count`` objects of a list."""
        expected = f"a list of {count} objects"
        value = self._list(key, None, expected, count)
        if not all(isinstance(one, Mapping) for one in value):
            self.refuse(key, expected)
        return [Fields(one, self.where, f"{self._dotted(key)}[{i}]") for i, one in enumerate(value)]

    def numbers(self, key: str, count: int | None = None) -> tuple[float, ...]:
        """Return a list of finite numbers, of length ``count`` unless that is None."""
        expected = f"a list of {'' if count is None else f'{count} '}finite numbers"
        value = [_finite(one) for one in self._list(key, None, expected, count)]
        finite = tuple(one for one in value if one is not None)
        if len(finite) < len(value):
            self.refuse(key, expected)
        return finite

    def integers(self, key: str, count: int | None = None, *, least: int = 1, most: int = LARGEST) -> tuple[int, ...]:
        """Return a list of whole numbers from ``least`` to ``most``, of length ``count`` unless that is None."""
        expected = f"a list of {'' if count is None else f'{count} '}whole numbers from {least} to {most}"
        value = self._list(key, None, expected, count)
        if not all(type(one) is int and least <= one <= most for one in value):
            self.refuse(key, expected)
        return tuple(value)

    def flags(self, key: str, count: int, default: Sequence[bool] | None = None) -> tuple[bool, ...]:
        """Return a list of ``count`` entries, each true or false."""
        expected = f"a list of {count} entries that are true or false"
        value = self._list(key, default, expected, count)
        if not all(isinstance(one, bool) for one in value):
            self.refuse(key, expected)
        return tuple(value)

    def texts(self, key: str, count: int | None = None) -> tuple[str, ...]:
        """Return a list of texts, of length ``count`` unless that is None."""
        expected = f"a list of {'' if count is None else f'{count} '}texts"
        value = self._list(key, None, expected, count)
        if not all(isinstance(one, str) for one in value):
            self.refuse(key, expected)
        return tuple(value)

    def supported(self, key: str, *values: Any) -> None:
        """Refuse a value that changes the numbers and is not implemented: the key is absent or holds one of ``values``.

        A ``True`` or ``1`` in ``values`` matches its own type only.
        """
        if key not in self.content:
            return
        value = self.content[key]
        if not any(type(value) is type(known) and value == known for known in values):
            known = " or ".join(_shown(one) for one in values)
            raise CheckpointError(
                f"{self.where} has {self._dotted(key)} {_shown(value)}, and only {known} is implemented:"
                " give a checkpoint that has it."
            )

    def only(self, *keys: str) -> None:
        """Refuse every key but ``keys``: what a newer version wrote there, this one would pass over."""
        if unknown := sorted(self.content.keys() - set(keys)):
            raise CheckpointError(
                f"{self.where} has {self._dotted(unknown[0])}, which this version does not know: use a newer version,"
                " or fetch the checkpoint again."
            )

    def refuse(self, key: str, expected: str) -> NoReturn:
        """Raise the CheckpointError that says what is expected of the value under ``key``."""
        raise CheckpointError(
            f"{self.where} has {self._dotted(key)} {_shown(self.content.get(key))}, and {expected} is expected:"
            " correct the file or fetch the checkpoint again."
        )

    def _value(self, key: str, default: Any, expected: str) -> Any:
        if key in self.content:
            return self.content[key]
        if default is None:
            raise CheckpointError(
                f"{self.where} lacks {self._dotted(key)}, {expected}: give a complete checkpoint of this model."
            )
        return default

    def _list(self, key: str, default: Sequence[Any] | None, expected: str, count: int | None) -> list[Any]:
        value = self._value(key, default, expected)
        if not isinstance(value, list | tuple) or (count is not None and len(value) != count):
            self.refuse(key, expected)
        return list(value)

    def _dotted(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key


def _finite(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}" if len(repr(value)) > SHOWN else repr(list(value))
    if isinstance(value, Mapping):
        return "an object"
    text = "null" if value is None else repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
