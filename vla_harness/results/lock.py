"""The writer's lock on a run: held on the folder itself, which stays while its files come and go."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from ..errors import UserError
from .files import explain_write_errors


class WriterLock:
    """Lets one process write a run. The system drops it with the process, also on kill -9.

    As a context manager it is dropped at the end of the block, unless a run has taken it over by ``keep``.
    """

    def __init__(self, path: Path) -> None:
        """Take the lock on the folder ``path``; raises UserError if another process has it."""
        with explain_write_errors(path):
            self._folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.held, self._kept = True, False
        try:
            fcntl.flock(self._folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise UserError(
                f"{path} is being written by another process: wait for it, or choose another --out."
            ) from None
        except OSError:
            pass  # some cluster file systems have no locks; a run without one is better than none

    def keep(self) -> Self:
        """Hold the lock beyond the block, until ``close``."""
        self._kept = True
        return self

    def close(self) -> None:
        """Drop the lock; may be called twice."""
        if self.held:
            self.held = False
            os.close(self._folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None or not self._kept:
            self.close()
