"""Showing text that comes from files of others on a terminal."""

from __future__ import annotations

import unicodedata

JOINERS = "\u200c\u200d"
"""Invisible, but part of ordinary words in some scripts."""


def printable(text: str) -> str:
    r"""Return ``text`` with what steers a terminal or reorders a line spelled out: escape becomes \x1b, a break \n."""
    return "".join(one if _is_plain(one) else one.encode("unicode_escape").decode() for one in text)


def _is_plain(character: str) -> bool:
    return character in JOINERS or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
