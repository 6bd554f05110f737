"""Writing whole files: either the old content or the new one is there, never a part."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import UserError


@contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Turn a full disk and a place that cannot be written into a UserError that names ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(disk_full(path)) from error
        reason = error.strerror or str(error)
        raise UserError(f"{path} cannot be written ({reason}): mend that, or choose another --out.") from error


def disk_full(path: Path) -> str:
    """Return the sentence for a full disk."""
    return f"The disk that holds {path} is full: free some space and run the same command with --resume."


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 under a temporary name and rename it, so that a kill leaves no half file.

    Raises UserError for a full disk or a path that cannot be written.
    """
    temporary = path.with_name(path.name + ".tmp")
    with explain_write_errors(path):
        try:
            with temporary.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
