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
    if not os.path.isabs(name) and ".." not in name.split("/"):
        top = os.path.realpath(root)
        # Strings, because a dataset names tens of thousands of files.
        if os.path.realpath(os.path.join(top, name)).startswith((os.path.join(top, ""), *_hub_blobs(top))):
            return root / name
    raise refusal(f"{where} says {name!r}, which leads out of {root}: mend it, or get another copy.")


def is_name(name: str) -> bool:
    """Return whether file systems take ``name`` as a path, and a terminal shows it as it is."""
    plain = (name.isascii() and name.isprintable()) or printable(name) == name
    return bool(name) and plain and all(len(os.fsencode(part)) <= NAME_BYTES for part in name.split("/"))


def _hub_blobs(top: str) -> list[str]:
    """Return the folder of the blobs that the links of a hub snapshot lead to, if ``top`` lies in one."""
    repository, found, _ = (top + os.sep).partition(f"{os.sep}snapshots{os.sep}")
    return [os.path.join(repository, "blobs", "")] if found else []
