"""Reads one field of a request: what a policy can take, or a Refusal that names the field and what was expected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..wire.arrays import WireError
from ..wire.codecs import read_base64
from ..wire.pictures import PixelBudget, read_picture
from .refusal import bad_field

_MAX_TEXT = 4096
_MAX_STATE = 1024
MAX_NUMBER = 1e6
"""Largest magnitude of a number of the state: no robot's is larger in metres and radians, and networks overflow."""


def entry(message: Mapping[str, Any], key: str, kind: str, field: str = "") -> Any:
    """Return ``message[key]``; refuses a message without it.

    kind: what is expected there, in words. field: its name in the refusal, if that is not ``key``.
    """
    if key not in message:
        raise bad_field(field or key, f"missing; send {kind}.")
    return message[key]


def text(message: Mapping[str, Any], key: str, default: str | None = None) -> str:
    """Return a text of at most 4096 characters; ``default`` when it is missing, if there is one."""
    if default is not None and message.get(key) is None:
        return default
    value = entry(message, key, "a text")
    return checked_text(value[0] if isinstance(value, list) and len(value) == 1 else value, key)


def checked_text(value: Any, field: str) -> str:
    """Return ``value`` if it is a text of at most 4096 characters that UTF-8 can hold; raises Refusal."""
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        raise bad_field(field, f"expected a text of at most {_MAX_TEXT} characters, got {describe(value)}.")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise bad_field(field, "expected a text, got half a character (a lone surrogate).")
    return value


def count(message: Mapping[str, Any], key: str) -> int:
    """Return an integer of at least 0; 0 when it is missing."""
    value = message.get(key, 0)
    if type(value) is not int or not 0 <= value < 2**31:
        raise bad_field(key, f"expected an integer of at least 0, got {describe(value)}.")
    return value


def table(message: Any, key: str) -> Mapping[str, Any]:
    """Return a map whose keys are text."""
    value = entry(message, key, "a map")
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise bad_field(key, f"expected a map with text keys, got {describe(value)}.")
    return value


def image(message: Mapping[str, Any], key: str, field: str = "", pixels: PixelBudget | None = None) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB.

    Taken are uint8 arrays (H, W), (H, W, 3) and (H, W, 4), whose last channel is dropped, and PNG or JPEG files, as
    bytes or in base64, also as a data: URL. field: its name in a refusal, if that is not ``key``. pixels: what all
    images of the message may have together.
    """
    field, pixels = field or key, pixels or PixelBudget()
    value = entry(message, key, "an image", field)
    try:
        if isinstance(value, str):
            value = read_picture(read_base64(value.partition(",")[2] if value.startswith("data:") else value), pixels)
        elif isinstance(value, bytes):
            value = read_picture(value, pixels)
        elif isinstance(value, np.ndarray) and value.ndim > 1:
            pixels.spend(value.shape[1], value.shape[0])
    except WireError as error:
        raise bad_field(field, str(error)) from None
    if not (
        isinstance(value, np.ndarray)
        and value.dtype == np.uint8
        and (value.ndim == 2 or (value.ndim == 3 and value.shape[2] in (3, 4)))
        and value.size
    ):
        raise bad_field(field, f"expected an image, (H, W, 3) uint8 or a PNG or JPEG file, got {describe(value)}.")
    if value.ndim == 2:
        return np.repeat(value[:, :, None], 3, axis=2)
    return np.ascontiguousarray(value[:, :, :3])


def vector(message: Mapping[str, Any], key: str, length: int | None) -> np.ndarray:
    """Return (length,) float32 of an array or a list of finite numbers; any length up to 1024 when it is None."""
    size = f"{length}" if length is not None else "some"
    value = entry(message, key, f"{size} numbers")
    array = numbers(value)
    if array is None or array.ndim != 1 or len(array) > _MAX_STATE or (length is not None and len(array) != length):
        raise bad_field(key, f"expected {size} finite numbers, none beyond a million, got {describe(value)}.")
    return array.astype(np.float32)


def numbers(value: Any) -> np.ndarray | None:
    """Return an array of float64 numbers, none beyond a million, or None when ``value`` is none."""
    if not isinstance(value, np.ndarray) and not (isinstance(value, list) and _plain(value, depth=4)):
        return None
    try:
        array = np.asarray(value, np.float64)
    except (ValueError, TypeError, OverflowError):
        return None
    return array if (np.abs(array) <= MAX_NUMBER).all() else None  # false for nan, too


def _plain(value: Any, depth: int) -> bool:
    if isinstance(value, list):
        return depth > 0 and all(_plain(part, depth - 1) for part in value)
    return type(value) in (int, float)


def describe(value: Any) -> str:
    """Return a few words for a value that was not expected."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {list(value.shape)} and dtype {value.dtype}"
    if value is None:
        return "null"
    if isinstance(value, str | bytes | list | dict):
        return f"{type(value).__name__} of length {len(value)}"
    return type(value).__name__
