"""The four ways in which clients write arrays into messages: json_numpy, openpi's, vla-eval's and GR00T's msgpack.

Sources: json-numpy 2.1.1; openpi-client 0.1.2 ``msgpack_numpy``; vla-eval 0.8.0 ``protocol/numpy_codec``,
``image_codec``; NVIDIA/Isaac-GR00T ``gr00t/eval/service.py`` (N1.5) and ``gr00t/policy/server_client.py`` (N1.6).
Each ``unpack`` raises WireError, in one sentence, for whatever is no message; numpy scalars become plain numbers.
"""

from __future__ import annotations

import binascii
import json
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np

from .arrays import TooManyEntries, WireError, read_array, read_dtype, read_npy, read_shape, write_npy

MAX_ENTRIES = 50_000
"""Most entries of all lists and maps of a message together."""

_MAX_WIDTH = 10_000
"""Most entries of one list or map. msgpack makes room for as many as a header claims, at each level of nesting."""

_SCANNED = 2**18
"""Characters of JSON that are looked at in one go."""


def unpack_json(data: bytes | str) -> tuple[Any, bool]:
    """Return the value of JSON with json_numpy arrays in it, and whether there were any.

    ``{"__numpy__": base64, "dtype", "shape"}`` is json_numpy's array; GR00T's C++ clients say ``__ndarray__``, but
    read no arrays back, so these do not count.
    """
    found = False

    def hook(entry: dict[str, Any]) -> Any:
        nonlocal found
        key = next((key for key in ("__numpy__", "__ndarray__") if key in entry), None)
        if key is None:
            return entry
        found = found or key == "__numpy__"
        shape = read_shape(entry.get("shape"))
        array = read_array(read_base64(entry[key]), entry.get("dtype"), shape)
        return array if shape else array.item()

    try:
        # json.loads looks for other encodings than UTF-8 in bytes, at twice the cost of reading a message.
        text = data if isinstance(data, str) else data.decode("utf-8-sig")
        left = MAX_ENTRIES
        for start in range(0, len(text), _SCANNED):  # before json makes objects of them
            left -= sum(map(text[start : start + _SCANNED].count, ",[{"))
            if left < 0:
                raise TooManyEntries(f"The message has more than {MAX_ENTRIES} entries: send arrays as json_numpy.")
        return json.loads(text, object_hook=hook), found
    except WireError:
        raise
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", "") or type(error).__name__
        raise WireError(f"The message is no JSON: {reason}.") from None


def read_base64(text: Any) -> bytes:
    """Return the bytes that ``text`` holds in base64; raises WireError."""
    try:
        return binascii.a2b_base64(text)
    except (ValueError, TypeError):
        raise WireError("An array's or picture's data are no base64 text.") from None


def json_array(array: np.ndarray) -> dict[str, Any]:
    """Return what json_numpy puts into JSON for ``array``."""
    return {"__numpy__": b64encode(array.tobytes()).decode(), "dtype": array.dtype.str, "shape": list(array.shape)}


def pack_json(value: Any, compact: bool = True) -> str:
    """Return JSON of ``value`` with json_numpy arrays; compact as web servers write it, else as ``json.dumps``."""
    return json.dumps(
        value, default=json_array, allow_nan=False, separators=(",", ":") if compact else None, ensure_ascii=not compact
    )


@dataclass(frozen=True)
class Codec:
    """One dialect of msgpack: what its maps that stand for arrays look like."""

    read: Callable[[dict[Any, Any]], Any]
    write: Callable[[Any], Any]

    def pack(self, value: Any) -> bytes:
        """Return the message's bytes."""
        return msgpack.packb(value, default=self.write)

    def unpack(self, data: bytes | str) -> Any:
        """Return the message; raises WireError, also for text, which websockets may carry. Pictures stay bytes."""
        return _unpack(data, self.read)

    @staticmethod
    def peek(data: bytes | str) -> Any:
        """Return the message with its arrays as the maps they came as, which costs little; raises WireError."""
        return _unpack(data, lambda entry: entry)


def _unpack(data: bytes | str, read: Callable[[dict[Any, Any]], Any]) -> Any:
    if isinstance(data, str):
        raise WireError("The message is text: send msgpack, as a binary message.")
    left = MAX_ENTRIES

    def count(entries: int) -> None:
        nonlocal left
        left -= entries + 1
        if left < 0:
            raise TooManyEntries(f"The message has more than {MAX_ENTRIES} entries.")

    def whole_map(entry: dict[Any, Any]) -> Any:
        count(len(entry))
        return read(entry)

    def whole_list(entries: list[Any]) -> list[Any]:
        count(len(entries))
        return entries

    try:
        return msgpack.unpackb(
            data,
            object_hook=whole_map,
            list_hook=whole_list,
            max_array_len=_MAX_WIDTH,
            max_map_len=_MAX_WIDTH,
            max_ext_len=64,
        )
    except WireError:
        raise
    except Exception as error:  # msgpack raises ValueError, its own types, OverflowError and KeyError
        raise WireError(f"The message is no msgpack: {type(error).__name__}.") from None


def _field(entry: dict[Any, Any], key: str | bytes) -> Any:
    if key not in entry:
        name = key.decode() if isinstance(key, bytes) else key
        raise WireError(f"An array's map has no entry {name!r}.")
    return entry[key]


def _read_openpi(entry: dict[Any, Any]) -> Any:
    if b"__ndarray__" in entry:
        return read_array(_field(entry, b"data"), _field(entry, b"dtype"), _field(entry, b"shape"))
    if b"__npgeneric__" in entry:
        kind, value = read_dtype(_field(entry, b"dtype")), _field(entry, b"data")
        if type(value) not in (bool, int, float):
            raise WireError(f"A numpy scalar's data are {type(value).__name__}: send a number.")
        try:
            return kind.type(value).item()
        except (ValueError, OverflowError):
            raise WireError(f"The number {value} does not fit the dtype {kind.str}.") from None
    return entry


def _write_openpi(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        shape = value.shape
        return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": shape}
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    raise TypeError(f"{type(value).__name__} cannot be sent")


def _read_vla_eval(entry: dict[Any, Any]) -> Any:
    if "__image__" in entry:
        form, data = _field(entry, "format"), _field(entry, "data")
        if form == "raw":
            return read_array(data, entry.get("dtype", "|u1"), _field(entry, "shape"))
        if form not in ("png", "jpeg") or not isinstance(data, bytes):
            raise WireError("An image's format is none of png, jpeg and raw, or its data are no bytes.")
        return data
    if "__ndarray__" in entry:
        return read_array(_field(entry, "data"), _field(entry, "dtype"), _field(entry, "shape"))
    return entry


def _write_vla_eval(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {"__ndarray__": True, "data": value.tobytes(), "dtype": value.dtype.str, "shape": list(value.shape)}
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be sent")


def _read_groot(entry: dict[Any, Any]) -> Any:
    if "__ndarray_class__" in entry:
        return read_npy(_field(entry, "as_npy"))
    if "__ModalityConfig_class__" in entry:
        config = _field(entry, "as_json")
        return unpack_json(config)[0] if isinstance(config, str) else config
    return entry


def _write_groot(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {"__ndarray_class__": True, "as_npy": write_npy(value)}
    return _write_vla_eval(value)


OPENPI = Codec(_read_openpi, _write_openpi)
"""Arrays are maps with bytes keys."""

VLA_EVAL = Codec(_read_vla_eval, _write_vla_eval)
"""Arrays are maps with text keys, images may be PNG or JPEG, which stay bytes. Our own HTTP clients use it too."""

GROOT = Codec(_read_groot, _write_groot)
"""Arrays are ``np.save`` files; modality configurations are marked maps."""
