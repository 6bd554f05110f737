"""Writing whole files and folders: either the old content or the new one is there, never a part.

Unfinished content lies beside its place under a random name, so that nothing of another's is ever overwritten or
removed.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import UserError

UNFINISHED = re.compile(r"\..*\.[0-9a-f]{16}\.unfinished", re.DOTALL)
"""Names of unfinished files and folders; a kill leaves them."""


@contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Turn a full disk and a place that cannot be written into a UserError that names ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error):
            raise UserError(disk_full(path)) from error
        reason = error.strerror or str(error)
        raise UserError(f"{path} cannot be written ({reason}): mend that, or choose another --out.") from error


def disk_full(path: Path, again: str = "run the same command again") -> str:
    """Return the sentence for a full disk. again: what to do once there is space."""
    return f"The disk that holds {path} is full: free some space and {again}."


def unfinished_path(path: Path) -> Path:
    """Return a new random name beside ``path``, for what is to become ``path``."""
    stem = path.name.encode()[:150].decode(errors="ignore")  # file systems take names of 255 bytes
    return path.with_name(f".{stem}.{secrets.token_hex(8)}.unfinished")


def remove_unfinished(folder: Path) -> None:
    """Remove the unfinished files and folders that a killed process left in ``folder``, which is ours."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        if UNFINISHED.fullmatch(entry.name):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a name to write to; the file there becomes ``path`` when the block ends and is removed when it fails.

    Raises UserError for a full disk or a path that cannot be written.
    """
    unfinished = unfinished_path(path)
    with explain_write_errors(path):
        try:
            yield unfinished
            unfinished.replace(path)
        except BaseException:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise


def check_new_folder(path: Path) -> None:
    """Raise UserError unless ``path`` is free to become a folder: nothing is there, or an empty folder."""
    with explain_write_errors(path):
        if path.is_symlink():
            raise UserError(f"{path} exists already and is a link: choose a new folder.")
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UserError(f"{path} exists already: choose a new folder.")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder; it becomes ``path`` when the block ends and is removed with its content when it fails.

    Raises UserError for a full disk, a path that cannot be written, and where something else is at ``path``, before
    and after the block.
    """
    check_new_folder(path)
    unfinished = unfinished_path(path)
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.mkdir()
        try:
            yield unfinished
            check_new_folder(path)
            unfinished.rename(path)  # takes the place of an empty folder, and of nothing else
        except BaseException as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            if isinstance(error, UserError) and str(unfinished) in str(error):
                raise type(error)(str(error).replace(str(unfinished), str(path))) from error
            raise


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 under a temporary name and rename it, so that a kill leaves no half file.

    Raises UserError for a full disk or a path that cannot be written.
    """
    with new_file(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
