"""``episodes.sqlite``: opening it, reading it, and its errors as sentences."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..types import EpisodeResult
from .episode_rows import SCHEMA, SCHEMA_VERSION, from_row
from .files import disk_full

DATABASE = "episodes.sqlite"


@dataclass(frozen=True)
class Sitting:
    """One start of the command: when (ISO 8601, UTC), for how long (seconds), with which options and where."""

    started_at: str
    wall_s: float
    config: Mapping[str, Any]
    provenance: Mapping[str, Any]


def connect(path: Path, create: bool = False) -> sqlite3.Connection:
    """Open the database, with its tables if ``create``; raise UserError unless it is one of ours."""
    file = path / DATABASE
    if not create and not file.exists():
        raise UserError(f"{path} is damaged: its {DATABASE} is missing, so put back a copy, or choose another --out.")
    with explain_database_errors(path):
        database = sqlite3.connect(f"{file.absolute().as_uri()}?mode={'rwc' if create else 'rw'}", uri=True, timeout=30)
        try:
            database.execute("PRAGMA synchronous = EXTRA")  # a commit is on the disk, directory entry included
            if create:
                with database:
                    database.executescript(SCHEMA)
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if version != SCHEMA_VERSION:
                raise UserError(f"{file} has layout {version}, and this version reads {SCHEMA_VERSION}: use its own.")
        except BaseException:
            database.close()
            raise
    return database


def read_results(database: sqlite3.Connection) -> list[EpisodeResult]:
    """Return all episodes, in the order of (suite, task, initial state, seed)."""
    cursor = database.execute("SELECT * FROM episodes ORDER BY suite, task_id, initial_state, seed")
    names = [column[0] for column in cursor.description]
    return [from_row(dict(zip(names, row, strict=True))) for row in cursor]


def read_sittings(database: sqlite3.Connection) -> list[Sitting]:
    """Return the sittings, first to last."""
    rows = database.execute("SELECT started_at, wall_s, config, provenance FROM sittings ORDER BY id")
    return [Sitting(at, wall, json.loads(config), json.loads(provenance)) for at, wall, config, provenance in rows]


@contextmanager
def explain_database_errors(path: Path) -> Iterator[None]:
    """Turn a full disk, a damaged file and one that cannot be written into a UserError."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        file, code = path / DATABASE, getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            raise UserError(disk_full(path, "run the same command with --resume")) from error
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise UserError(f"{file} is damaged: put back a copy, or choose another --out.") from error
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR):
            raise UserError(f"{file} cannot be written ({error}): mend that, or choose another --out.") from error
        raise
