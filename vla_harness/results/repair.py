"""Going on with a damaged ``episodes.sqlite``: what is as it was stored stays, the rest is played again."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from ..errors import UserError
from .database import DATABASE, UNREADABLE, DamagedDatabase, connect, explain_database_errors, is_sound, layout
from .episode_rows import WITHOUT_CHECKSUMS, DamagedRow, from_row
from .files import explain_write_errors, unfinished_path

SET_ASIDE = f"{DATABASE}.damaged"
"""Name that a file with a broken structure gets."""


def repair(path: Path) -> list[str]:
    """Take what is damaged out of the database of the run in ``path``, and return it in words; [] where nothing is.

    Single rows are removed. A file with a broken structure is written anew from the rows that can be read, and kept as
    ``SET_ASIDE``. Only the run's one writer may call this. Raises UserError where nothing can be read.
    """
    try:
        with closing(connect(path)) as database, explain_database_errors(path):
            if _is_sound(database):
                return _remove_damaged(database)
            folder = unfinished_path(path / DATABASE)  # under a name that is removed after a kill
            with explain_write_errors(path):
                folder.mkdir()
                saved = _save(database, path, folder)
                (path / DATABASE).replace(path / SET_ASIDE)
                (folder / DATABASE).replace(path / DATABASE)
                folder.rmdir()
    except DamagedDatabase as error:
        raise UserError(
            f"{path / DATABASE} is damaged beyond reading: put back a copy, or choose another --out."
        ) from error
    return [f"all but the {saved:,} that could be read ({SET_ASIDE} is the damaged file)"]


def _is_sound(database: sqlite3.Connection) -> bool:
    try:
        return is_sound(database)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise
        return False
    except UNREADABLE:
        return False


def _remove_damaged(database: sqlite3.Connection) -> list[str]:
    checked = layout(database) != WITHOUT_CHECKSUMS
    damaged: dict[int, str] = {}
    for number, row in _rows(database, "episodes", "ASC"):
        try:
            from_row(row, checked)
        except DamagedRow as name:
            damaged[number] = str(name)
    if damaged:
        with database:
            database.executemany("DELETE FROM episodes WHERE rowid = ?", [(number,) for number in damaged])
    return list(damaged.values())


def _save(database: sqlite3.Connection, path: Path, folder: Path) -> int:
    """Write what can be read into a new database in ``folder``, and return the number of episodes."""
    version = layout(database)
    episodes: dict[int, dict[str, Any]] = {}
    sittings: dict[int, dict[str, Any]] = {}
    for order in ("ASC", "DESC"):  # from both ends to where it breaks
        for table, found in (("episodes", episodes), ("sittings", sittings)):
            with suppress(*UNREADABLE):
                for number, row in _rows(database, table, order):
                    with suppress(DamagedRow):
                        if table == "episodes":
                            from_row(row, checked=version != WITHOUT_CHECKSUMS)
                        found[number] = row
    if not sittings:
        raise DamagedDatabase(path)
    with closing(connect(folder, create=True)) as anew, anew:
        for table, found in (("sittings", sittings), ("episodes", episodes)):
            for _, row in sorted(found.items()):
                names = ", ".join(row)
                with suppress(sqlite3.IntegrityError, sqlite3.OperationalError):  # a double, or a column misnamed
                    anew.execute(f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(row))})", [*row.values()])
        anew.execute(f"PRAGMA user_version = {version}")
        return int(anew.execute("SELECT count(*) FROM episodes").fetchone()[0])


def _rows(database: sqlite3.Connection, table: str, order: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield rowid and columns, from the table itself and not by its index."""
    cursor = database.execute(f"SELECT rowid, * FROM {table} NOT INDEXED ORDER BY rowid {order}")
    names = [column[0] for column in cursor.description]
    for row in cursor:
        yield row[0], dict(zip(names[1:], row[1:], strict=True))
