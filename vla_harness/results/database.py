"""``episodes.sqlite``: opening it, reading it, and its errors as sentences."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..paths import path_inside
from ..printing import printable
from ..types import EpisodeResult
from .configuration import to_json
from .episode_rows import CHECKSUM, SCHEMA, SCHEMA_VERSION, WITHOUT_CHECKSUMS, DamagedRow, checksum, from_row
from .files import disk_full
from .stored import read_json

DATABASE = "episodes.sqlite"
LOCK_WAIT_S = 20.0
"""How long another process may keep the database locked before that is said."""
UNREADABLE = (sqlite3.DatabaseError, UnicodeDecodeError)
"""What reading a damaged file raises: sqlite3 words its messages, and the names of columns, with bytes of the file."""
_ORDER = "ORDER BY suite, task_id, initial_state, seed"
_SITTING = ("started_at", "wall_s", "config", "provenance")


@dataclass(frozen=True)
class Sitting:
    """One start of the command: when (ISO 8601, UTC), for how long (seconds), with which options and where.

    intact: False if its record is not what was stored.
    """

    started_at: str
    wall_s: float
    config: Mapping[str, Any]
    provenance: Mapping[str, Any]
    intact: bool = True


class DamagedDatabase(UserError):
    """The file of the run in ``path`` is not what SQLite has written."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path / DATABASE} is damaged: put back a copy, or give the run's command with --resume, which saves what"
            " can be read and plays the rest again."
        )


def connect(path: Path, create: bool = False) -> sqlite3.Connection:
    """Open the database, with its tables if ``create``; raise UserError unless it is one of ours."""
    file = path / DATABASE
    if not create and not file.exists():
        raise UserError(f"{path} is damaged: its {DATABASE} is missing, so put back a copy, or choose another --out.")
    with explain_database_errors(path):
        mode = "rwc" if create else "rw"
        database = sqlite3.connect(f"{file.absolute().as_uri()}?mode={mode}", uri=True, timeout=LOCK_WAIT_S)
        try:
            database.execute("PRAGMA synchronous = EXTRA")  # a commit is on the disk, directory entry included
            if create:
                with database:
                    database.executescript(SCHEMA)
            version = layout(database)
            if version not in (WITHOUT_CHECKSUMS, SCHEMA_VERSION):
                raise UserError(f"{file} has layout {version}, and this version reads {SCHEMA_VERSION}: use its own.")
        except BaseException:
            database.close()
            raise
    return database


def layout(database: sqlite3.Connection) -> int:
    """Return the number of the layout that the database says it has."""
    return int(database.execute("PRAGMA user_version").fetchone()[0])


def add_checksums(database: sqlite3.Connection) -> None:
    """Give tables of layout 1 the column; the rows that are there stay without."""
    for table in ("sittings", "episodes"):
        if CHECKSUM not in {column[1] for column in database.execute(f"PRAGMA table_info({table})")}:
            database.execute(f"ALTER TABLE {table} ADD COLUMN {CHECKSUM} TEXT NOT NULL DEFAULT ''")


def is_sound(database: sqlite3.Connection) -> bool:
    """Return whether the file's structure is whole, so that no row can be missing or double."""
    return database.execute("PRAGMA integrity_check(1)").fetchone() == ("ok",)


def read_results(database: sqlite3.Connection, path: Path) -> list[EpisodeResult]:
    """Return all episodes, in the order of (suite, task, initial state, seed).

    Raises UserError that names the episode for a row that is not what was stored, or whose video is not in the run.
    """
    if not is_sound(database):
        raise DamagedDatabase(path)
    try:
        results = [from_row(row, checked) for row, checked in episode_rows(database)]
    except DamagedRow as row:
        raise UserError(
            f"The episode {printable(str(row))} in {path / DATABASE} is damaged: the run's command with --resume plays"
            " it again."
        ) from None
    for result in results:
        if result.video:  # it is linked, and copied by merge
            path_inside(path, result.video, f"{path / DATABASE} (video of {result.key})")
    return results


def episode_rows(database: sqlite3.Connection, condition: str = _ORDER) -> Iterator[tuple[dict[str, Any], bool]]:
    """Yield the columns of each episode, and whether it must have a checksum."""
    checked = layout(database) != WITHOUT_CHECKSUMS
    cursor = database.execute(f"SELECT * FROM episodes {condition}")
    names = [column[0] for column in cursor.description]
    for row in cursor:
        yield dict(zip(names, row, strict=True)), checked


def unchecked_episodes(database: sqlite3.Connection) -> int:
    """Return the number of episodes that were stored without a checksum, by an earlier version."""
    if layout(database) != WITHOUT_CHECKSUMS:
        return 0
    return sum(not row.get(CHECKSUM) for row, _ in episode_rows(database))


def read_sittings(database: sqlite3.Connection) -> list[Sitting]:
    """Return the sittings, first to last."""
    checked = layout(database) != WITHOUT_CHECKSUMS
    cursor = database.execute("SELECT * FROM sittings ORDER BY id")
    names = [column[0] for column in cursor.description]
    found = []
    for values in cursor:
        row = dict(zip(names, values, strict=True))
        summed = row.get(CHECKSUM, "")
        intact = summed == sitting_checksum(row) if summed or checked else True
        try:
            config, provenance = read_json(row["config"]), read_json(row["provenance"])
        except (TypeError, ValueError):
            config, provenance, intact = {}, {}, False
        wall_s = row["wall_s"] if isinstance(row["wall_s"], float) else 0.0
        plain = all(isinstance(value, Mapping) for value in (config, provenance)) and wall_s == row["wall_s"]
        found.append(
            Sitting(str(row["started_at"]), wall_s, config, provenance, intact)
            if plain
            else Sitting(str(row["started_at"]), wall_s, {}, {}, intact=False)
        )
    return found


def sitting_checksum(row: Mapping[str, Any]) -> str:
    """Return the checksum of a sitting's row."""
    return checksum({name: row[name] for name in _SITTING})


def store_sitting(database: sqlite3.Connection, sitting: Sitting, number: int | None = None) -> int:
    """Add a sitting in the caller's transaction, or replace the one with that number, and return its number."""
    row: dict[str, Any] = {
        "started_at": sitting.started_at,
        "wall_s": float(sitting.wall_s),
        "config": to_json(sitting.config),
        "provenance": to_json(sitting.provenance),
    }
    columns = ("id", *_SITTING, CHECKSUM)
    stored = database.execute(
        f"INSERT OR REPLACE INTO sittings ({', '.join(columns)}) VALUES ({', '.join(f':{name}' for name in columns)})",
        row | {"id": number, CHECKSUM: sitting_checksum(row)},
    )
    assert stored.lastrowid is not None
    return stored.lastrowid


@contextmanager
def explain_database_errors(path: Path) -> Iterator[None]:
    """Turn a full disk, a damaged or locked file and one that cannot be written into a UserError."""
    try:
        yield
    except UNREADABLE as error:
        if isinstance(error, (sqlite3.ProgrammingError, sqlite3.IntegrityError)):
            raise  # a bug
        file, code = path / DATABASE, getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            raise UserError(disk_full(path, "run the same command with --resume")) from error
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise UserError(
                f"{file} has been locked by another process for {LOCK_WAIT_S:g} s: end that, and run this again."
            ) from error
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR):
            raise UserError(f"{file} cannot be written ({error}): mend that, or choose another --out.") from error
        raise DamagedDatabase(path) from error  # whatever else SQLite says of a file that this code has written
