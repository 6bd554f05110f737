"""The user's cache: folders that are written once and shared by every process."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from vla_harness.errors import UserError


def user_cache() -> Path | None:
    """Return the folder that the user's caches lie in, or None for a user without a home."""
    if named := os.environ.get("XDG_CACHE_HOME"):
        return Path(named)
    try:
        return Path.home() / ".cache"
    except RuntimeError:  # HOME is not set, and the system knows no user of this number
        return None


def temporary_folder() -> Path:
    """Return a new folder that goes when the process ends. Raises UserError where there is no place for one."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="vla_harness-"))
    except OSError as error:
        raise UserError(
            f"There is no place for temporary files ({error.strerror or error}): set TMPDIR to a folder that can be"
            " written."
        ) from None
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def cached_folder(name: str, fill: Callable[[Path], object]) -> Path:
    """Return the cache's folder ``name``, which ``fill`` writes into an empty folder if it is not there yet.

    Other processes see the whole folder or none, and all of them may come at once. Where the cache cannot be written
    to, the folder is a temporary one that goes when the process ends.
    """
    cache = user_cache()
    folder = cache and cache / "vla_harness" / name
    if folder and folder.is_dir():
        return folder
    try:
        if folder is None:
            raise FileNotFoundError
        folder.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
    except OSError:
        building = temporary_folder()
        fill(building)
        return building
    try:
        fill(building)
        building.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was first
            raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder
