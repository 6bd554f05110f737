"""The user's cache: folders that are written once and shared by every process."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def cached_folder(name: str, fill: Callable[[Path], object]) -> Path:
    """Return the cache's folder ``name``, which ``fill`` writes into an empty folder if it is not there yet.

    Other processes see the whole folder or none, and all of them may come at once. Where the cache cannot be written
    to, the folder is a temporary one that goes when the process ends.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vla_harness" / name
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
    except OSError:
        building = Path(tempfile.mkdtemp(prefix="vla_harness-"))
        atexit.register(shutil.rmtree, building, ignore_errors=True)
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
