"""Writing HDF5 files on disks that may become full."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py


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
