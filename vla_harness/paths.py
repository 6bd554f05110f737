"""Paths that come from files of others: whether they stay inside the folder that they belong to."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import UserError
from .printing import printable

NAME_BYTES = 255
"""Longest name that file systems take."""


def path_inside(root: Path, name: str, where: str, refusal: type[UserError] = UserError) -> Path:
    """Return ``root / name``, which need not exist, where it stays inside ``root`` whatever links lie on the way.

    Files of the Hugging Face hub's cache are links from a snapshot to the repository's blobs, which count as inside.

    Args:
        root: The folder that the file belongs to.
        name: What somebody's file says: a relative path.
        where: File and field that say so, for the message: "DIR/config.json (videos)".
        refusal: The exception to raise.

    Raises:
        UserError: ``name`` is absolute, leaves ``root`` by ".." or by a link, or is no name of a file.
    """
    if not is_name(name):
        shown = printable(name[:60]) + ("…" if len(name) > 60 else "")
        raise refusal(f"{where} says {shown!r}, which is no name of a file: mend it, or get another copy.")
    path = root / name
    if not os.path.isabs(name) and ".." not in name.split("/"):
        try:
            real, top = path.resolve(), root.resolve()
        except (OSError, RuntimeError):  # links in a circle
            real = None
        if real is not None and any(real.is_relative_to(folder) for folder in (top, *_hub_blobs(top))):
            return path
    raise refusal(f"{where} says {name!r}, which leads out of {root}: mend it, or get another copy.")


def is_name(name: str) -> bool:
    """Return whether file systems take ``name`` as a path, and a terminal shows it as it is."""
    return bool(name) and printable(name) == name and all(len(p.encode()) <= NAME_BYTES for p in name.split("/"))


def _hub_blobs(top: Path) -> list[Path]:
    """Return the folder of the blobs that the links of a hub snapshot lead to, if ``top`` lies in one."""
    snapshots = [folder for folder in top.parents if folder.name == "snapshots"]
    return [folder.parent / "blobs" for folder in snapshots[:1]]
