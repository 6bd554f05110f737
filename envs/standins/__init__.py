"""Stand-ins for LIBERO's assets, generated on the user's machine where nothing can be downloaded.

The physics is the benchmark's own: bodies, joints, regions and collision boxes are its numbers, so tasks, initial
states, success checks and trajectories are the same to the last bit. What is drawn is not: simple shapes in its place,
in like colours and sizes, and a robot of fewer triangles. Rates of policies that see are therefore no LIBERO results.

Data: ``objects.toml``, ``arenas.toml``, ``materials.toml``, ``collision.txt``.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..cache import cached_folder

MARK = "STAND-INS"
"""File in a generated folder, with its digest: what tells it from the benchmark's own."""


def standin_assets() -> Path:
    """Return the folder of the stand-ins in the user's cache; generates it, in seconds, where it is not there."""
    digest = _digest()

    def fill(folder: Path) -> None:
        from .generate import generate

        generate(folder)
        (folder / MARK).write_text(digest, encoding="utf-8")

    return cached_folder(f"standins-{digest[:16]}", fill)


def standin_digest(folder: Path) -> str | None:
    """Return which stand-ins ``folder`` holds, a sha256 of their tables and generator; None for other assets."""
    mark = folder / MARK
    return mark.read_text(encoding="utf-8") if mark.is_file() else None


def _digest() -> str:
    """Return a sha256 of this package's files: other tables or another generator make another folder."""
    total = hashlib.sha256()
    for path in sorted(Path(__file__).parent.iterdir()):
        if path.suffix in (".py", ".toml", ".txt"):
            total.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()
