"""gettext catalogues: the translated messages of free software, a parallel corpus that packages carry."""

from __future__ import annotations

import ast
import gettext
import re
from pathlib import Path

from ..errors import UserError

Pair = tuple[str, str]


def read_catalogue(path: Path) -> list[Pair]:
    """Return (message, translation) for each translated message of a .mo or .po file, cleaned for learning."""
    try:
        messages = _read_mo(path) if path.suffix == ".mo" else _read_po(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError, UnicodeDecodeError):
        raise UserError(f"{path} is no readable gettext catalogue; name a .mo or .po file.") from None
    pairs = ((_clean(message), _clean(translation)) for message, translation in messages)
    return [(a, b) for a, b in pairs if a and b and a != b]


def _clean(text: str) -> str:
    """Drop what a reader does not see: markup, the mark of a shortcut key, line breaks."""
    text = re.sub(r"<[^>]*>", " ", text)
    text = re.sub(r"[&_](?=\w)(?<!\w.)", "", text)
    return re.sub(r"\s+", " ", text).strip()


def _read_mo(path: Path) -> list[Pair]:
    with path.open("rb") as file:
        catalogue: dict[str | tuple[str, int], str] = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
    pairs = []
    for key, translation in catalogue.items():
        # Plural messages are keyed (message, form); the singular form is the translation of the message.
        message, form = key if isinstance(key, tuple) else (key, 0)
        if message and form == 0:
            pairs.append((message.rpartition("\x04")[2], translation))  # \x04 ends a context
    return pairs


def _read_po(text: str) -> list[Pair]:
    """A .po file has entries between blank lines, of msgid "…" and msgstr "…", which may go on over lines."""
    pairs = []
    for entry in re.split(r"\n\s*\n", text):
        if re.search(r"^#,.*\bfuzzy\b", entry, re.MULTILINE):  # a guess that nobody has confirmed
            continue
        fields = {}
        pattern = r'^(msgid|msgstr)(?:\[0\])?\s+((?:"(?:[^"\\]|\\.)*"\s*)+)'
        for name, quoted in re.findall(pattern, entry, re.MULTILINE):
            parts = re.findall(r'"(?:[^"\\]|\\.)*"', quoted)
            fields[name] = "".join(ast.literal_eval(part) for part in parts)
        if fields.get("msgid") and fields.get("msgstr"):
            pairs.append((fields["msgid"], fields["msgstr"]))
    return pairs
