"""Memory that this machine has left, asked before much of it is taken."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import UserError

GIB = 2**30
MEMINFO = Path("/proc/meminfo")


def available_bytes() -> int | None:
    """Return the bytes of memory that are free; None where this machine does not say."""
    try:
        lines = MEMINFO.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def require_memory(needed: int, what: str) -> None:
    """Raise UserError where ``what``, whose size a file states, needs more memory than there is."""
    if needed < GIB // 64:  # not worth asking
        return
    free = available_bytes()
    if free is None:
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > free:
        raise UserError(
            f"{what} takes {needed / GIB:,.1f} GiB of memory, and {free / GIB:,.1f} are free: check the sizes that it"
            " states."
        )
