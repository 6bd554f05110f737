"""Sentences in two languages: reading them from files, and splitting them for training and testing."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from .catalogues import read_catalogue

Pair = tuple[str, str]


@dataclass(frozen=True)
class Corpus:
    """(source, target) sentences in three parts that share none, and where they are from."""

    name: str
    train: list[Pair]
    validation: list[Pair]
    test: list[Pair]

    def __post_init__(self) -> None:
        for part in ("train", "validation", "test"):
            if not getattr(self, part):
                raise UserError(f"the {part} part of {self.name} is empty; give a corpus with more sentences.")


def read_corpus(path: Path, source: str, target: str, test: str) -> Corpus:
    """Return the corpus that ``path`` holds.

    path: a folder with train.de, val.de and test files per language (also with .gz), or one file: .tsv (two columns),
    .jsonl (objects with keys ``source`` and ``target``, by their language codes, or below ``translation`` as in
    opus_books), .po or .mo (a gettext catalogue). source, target: language codes. test: name of a folder's test file.
    Raises UserError where something is missing or empty.
    """
    if path.is_dir():
        parts = [read_lines(path, part, source, target) for part in ("train", "val", test)]
        return Corpus(path.name, *parts)
    return split_pairs(path.name, read_pairs(path, source, target))


def read_pairs(path: Path, source: str, target: str) -> list[Pair]:
    """Return the pairs of one file; see ``read_corpus``."""
    if not path.is_file():
        raise UserError(f"there is no corpus {path}; name a folder, or a .tsv, .jsonl, .po or .mo file.")
    if path.suffix in (".po", ".mo"):
        return read_catalogue(path)
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".tsv":
            rows = csv.reader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
            return [(row[0], row[1]) for row in rows if row]
        if path.suffix == ".jsonl":
            return [json_pair(json.loads(line), source, target) for line in text.splitlines() if line.strip()]
    except (UnicodeDecodeError, ValueError, IndexError, KeyError, TypeError) as error:
        raise UserError(f"{path} has a line without two sentences ({error}); mend or remove it.") from None
    raise UserError(f"{path} is of an unknown kind; give a folder, or a .tsv, .jsonl, .po or .mo file.")


def json_pair(row: dict[str, str | dict[str, str]], source: str, target: str) -> Pair:
    """Return the pair of one JSON object."""
    inner = row.get("translation", row)
    assert isinstance(inner, dict)
    a, b = ("source", "target") if "source" in inner else (source, target)
    return str(inner[a]), str(inner[b])


def read_lines(folder: Path, part: str, source: str, target: str) -> list[Pair]:
    """Return the pairs of two files of parallel lines, such as train.en and train.de."""
    sides = []
    for language in (source, target):
        path = folder / f"{part}.{language}"
        packed = folder / f"{part}.{language}.gz"
        if packed.is_file():
            text = gzip.decompress(packed.read_bytes()).decode("utf-8")
        elif path.is_file():
            text = path.read_text(encoding="utf-8")
        else:
            raise UserError(
                f"{folder} lacks {path.name}; it needs train, val and a test file (see --test) per language."
            )
        sides.append(text.strip("\n").split("\n"))
    if len(sides[0]) != len(sides[1]):
        counts = f"{len(sides[0])} lines of {source} and {len(sides[1])} of {target}"
        raise UserError(f"the {part} files of {folder} have {counts}; they must match line by line.")
    return [(a.strip(), b.strip()) for a, b in zip(*sides, strict=True) if a.strip() and b.strip()]


def split_pairs(name: str, pairs: Iterable[Pair]) -> Corpus:
    """Return the pairs in parts of about 90, 5 and 5 percent, without repetitions.

    Where a source goes depends on its text alone, so no source is both learned and tested, whatever its translations.
    """
    parts: tuple[list[Pair], list[Pair], list[Pair]] = ([], [], [])
    for pair in dict.fromkeys(pairs):
        draw = hashlib.sha256(pair[0].casefold().encode()).digest()[0]
        parts[1 if draw < 13 else 2 if draw < 26 else 0].append(pair)
    return Corpus(name, *parts)
