"""HDF5 files: reading nothing but the file itself, and writing on disks that may become full."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..errors import UserError
from ..system_memory import require_memory


@contextmanager
def opened_hdf5(file: Path) -> Iterator[h5py.Group]:
    """Open a file of LIBERO's demonstrations and yield its group "data". Raises UserError."""
    try:
        if file.exists() and not file.is_file():  # reading a device or a pipe may never end
            raise UserError(f"{file} is no ordinary file: copy it again.")
        opened = h5py.File(file, "r")
    except FileNotFoundError:
        raise UserError(f"There is no {file}: name an .hdf5 file of LIBERO's demonstrations.") from None
    except OSError as error:
        reason = str(error).split("(", 1)[-1].rstrip(")")
        raise UserError(f"{file} is no whole HDF5 file ({reason}): copy the file again.") from None
    with opened:
        data = hdf5_item(file, opened, "data")
        if not isinstance(data, h5py.Group):
            raise UserError(f'{file} has no group "data": name an .hdf5 file of LIBERO\'s demonstrations.')
        yield data


def hdf5_item(file: Path, group: h5py.Group, key: str) -> h5py.Group | h5py.Dataset | None:
    """Return what lies at ``key`` in ``group``, if anything does. Raises UserError for links, which may leave it."""
    item: Any = group
    for part in key.split("/"):
        link = item.get(part, getlink=True) if isinstance(item, h5py.Group) else None
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise UserError(f"{file} has a link at {key}, which may lead out of the file: copy what it leads to.")
        item = item.get(part)
    return item


def hdf5_field(file: Path, data: h5py.Group, key: str) -> h5py.Dataset:
    """Return the array ``key`` of the group "data". Raises UserError where there is none in this file."""
    field = hdf5_item(file, data, key)
    if not isinstance(field, h5py.Dataset):
        raise UserError(f"{file} has no field data/{key}: name an .hdf5 file of LIBERO's demonstrations.")
    if field.external or field.is_virtual:
        raise UserError(f"{file} keeps data/{key} in another file, which is not read: copy it into this one.")
    return field


def hdf5_rows(file: Path, data: h5py.Group, key: str, length: int, size: int) -> np.ndarray:
    """Return (length, size) float64. Raises UserError for another shape."""
    field = hdf5_field(file, data, key)
    if field.shape != (length, size):
        raise UserError(f"{file} has {field.shape} in data/{key} instead of {(length, size)}: copy the file again.")
    require_memory(8 * length * size, f"{file} with {length:,} rows of data/{key}")
    try:
        return np.asarray(field[()], np.float64)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{file} (data/{key}) cannot be read ({error}): copy the file again.") from None


class _Sink(io.FileIO):
    """A file that keeps its first error for itself: libhdf5 crashes the process where closing a file fails."""

    error: OSError | None = None

    def write(self, data: Any, /) -> int:
        view, done = memoryview(data).cast("B"), 0
        try:
            while self.error is None and done < len(view):
                done += super().write(view[done:]) or 0
        except OSError as error:
            self.error = error
        return len(view)

    def truncate(self, size: int | None = None, /) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0


@contextmanager
def new_hdf5(path: Path) -> Iterator[h5py.File]:
    """Yield the new HDF5 file ``path``. Raises OSError after the block where the disk became full within."""
    with _Sink(path, "x+") as sink:
        try:
            with h5py.File(sink, "w") as file:
                yield file
        finally:
            if sink.error is not None:
                raise sink.error
