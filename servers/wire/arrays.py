"""Arrays from bytes that strangers sent: the dtype is one of a list, and the size is exactly that of the bytes."""

from __future__ import annotations

import io
import math
import re
from typing import Any

import numpy as np

_DTYPE = re.compile(r"[<>=|]?(?:b1|[iu][1248]|f[248]|U[1-9]\d{0,5})|bool|u?int(?:8|16|32|64)|float(?:16|32|64)")
_MAX_DIMENSIONS = 8
_MAX_TEXTS = 1000
_NPY_HEADER = 4096  # bytes; numpy's own headers of plain arrays take 128


class WireError(ValueError):
    """The bytes are no message of the protocol. The message is one sentence."""


class TooManyEntries(WireError):
    """The message may be one of the protocol, but is not read to its end."""


def read_dtype(name: Any) -> np.dtype:
    """Return the dtype called ``name``: bool, int, uint, float or text; raises WireError for objects, records, …"""
    if not isinstance(name, str) or not _DTYPE.fullmatch(name):
        raise WireError(
            f"An array has the dtype {_short(name)}: send bool, int, uint or float, such as '<f4' or '|u1'."
        )
    return np.dtype(name)


def read_shape(shape: Any) -> tuple[int, ...]:
    """Return ``shape``, a sequence of at most 8 sizes, as a tuple; raises WireError."""
    if not isinstance(shape, list | tuple) or len(shape) > _MAX_DIMENSIONS:
        raise WireError(f"An array has the shape {_short(shape)}: send a list of at most {_MAX_DIMENSIONS} sizes.")
    if not all(type(size) is int and size >= 0 for size in shape):
        raise WireError(f"An array has the shape {_short(shape)}: sizes are integers of at least 0.")
    return tuple(shape)


def read_array(data: Any, dtype: Any, shape: Any, order: str = "C") -> Any:
    """Return the writable array of ``shape`` that ``data`` holds, in the machine's byte order; raises WireError.

    An array of texts comes back as nested lists of str, or as one str.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise WireError(f"An array's data are {type(data).__name__}: send bytes.")
    kind, sizes = read_dtype(dtype), read_shape(shape)
    wanted = math.prod(sizes) * kind.itemsize  # integers of Python: this cannot overflow
    if wanted != len(data):
        raise WireError(f"An array of shape {list(sizes)} and dtype {kind.str} has {wanted} bytes, not {len(data)}.")
    if kind.kind == "b" and np.frombuffer(data, np.uint8).max(initial=0) > 1:
        raise WireError("A bool array holds bytes other than 0 and 1.")
    if kind.kind == "U":
        _check_texts(data, kind, sizes)
    array = np.frombuffer(data, kind).reshape(sizes, order="F" if order == "F" else "C")
    return array.tolist() if kind.kind == "U" else np.array(array, kind.newbyteorder("="), order="C")


def _check_texts(data: bytes | bytearray | memoryview, kind: np.dtype, sizes: tuple[int, ...]) -> None:
    if math.prod(sizes) > _MAX_TEXTS:
        raise WireError(f"An array holds more than {_MAX_TEXTS} texts.")
    points = np.frombuffer(data, np.dtype("u4").newbyteorder(kind.byteorder))
    if ((points >= 0x110000) | ((points >= 0xD800) & (points < 0xE000))).any():
        raise WireError("An array of texts holds what is no character.")


def read_npy(data: Any) -> Any:
    """Return the array of ``np.save``'s bytes without pickle, and without believing sizes the bytes do not back."""
    if not isinstance(data, bytes):
        raise WireError(f"An array's as_npy is {type(data).__name__}: send the bytes that np.save writes.")
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file, max_header_size=_NPY_HEADER)
    except Exception:  # numpy parses the header as Python text, and raises whatever that raises
        raise WireError("An array's as_npy is not what np.save writes.") from None
    return read_array(data[file.tell() :], dtype.str, shape, "F" if fortran else "C")


def write_npy(array: np.ndarray) -> bytes:
    """Return ``np.save``'s bytes of ``array``."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
