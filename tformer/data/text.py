"""Texts for the character model."""

from __future__ import annotations

import sysconfig
from pathlib import Path

from ..errors import UserError


def read_text(path: Path | None) -> tuple[str, str]:
    """Return a text and its name: a file's, or without ``path`` the Python standard library's own sources.

    The standard library's are the modules directly in its folder, in the order of their names, without tests and
    packages: 4 to 5 million characters. Raises UserError for a file that is missing, empty or not UTF-8.
    """
    if path is None:
        return standard_library(), "the Python standard library"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as UTF-8 text ({error}); name another file.") from None
    if not text.strip():
        raise UserError(f"{path} is empty; name a file with text.")
    return text, path.name


def standard_library() -> str:
    """Return the sources, with characters beyond ASCII as question marks, so that the vocabulary stays small."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    text = "\n".join(file.read_text(encoding="utf-8", errors="replace") for file in files)
    return text.encode("ascii", errors="replace").decode()
