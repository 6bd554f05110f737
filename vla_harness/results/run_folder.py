"""The folder of one run: ``config.json`` and ``episodes.sqlite``, safe against a kill at any moment.

Every episode is one row that is committed as it ends. The database keeps SQLite's rollback journal and not the
write-ahead log: after a commit everything is in one file, which can be copied, and shared file systems, where
clusters keep their runs and where the write-ahead log does not work, are fine.

A **sitting** is one start of the command. ``wall_s`` of a sitting is written with every episode, so a killed one counts
up to the last episode that it finished.
"""

from __future__ import annotations

import fcntl
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from ..errors import UserError
from ..types import EpisodeKey, EpisodeResult
from .episode_rows import SCHEMA, SCHEMA_VERSION, UPSERT, from_row, to_row
from .files import disk_full, explain_write_errors, write_text

CONFIG, DATABASE = "config.json", "episodes.sqlite"
REQUIRED = ("suite", "policy", "checkpoint", "protocol", "tasks", "trials", "seed")
MAY_DIFFER = ("workers", "out", "resume", "video")
"""Fields of the configuration that cannot change a result, and so may differ on resume."""

MUST_AGREE = (
    ("assets", "kind"),
    ("checkpoint_sha256",),
    ("versions", "mujoco"),
    ("versions", "robosuite"),
    ("versions", "hf-libero"),
)
"""Parts of the provenance that decide scores: a sitting in which one differs from the first is refused."""


@dataclass(frozen=True)
class Sitting:
    """One start of the command: when (ISO 8601, UTC), for how long (seconds), with which options and where."""

    started_at: str
    wall_s: float
    config: Mapping[str, Any]
    provenance: Mapping[str, Any]


@dataclass(frozen=True)
class RecordedRun:
    """What a run folder holds, read at one moment. results are in the order of (task, initial state, seed)."""

    path: Path
    config: Mapping[str, Any]
    results: tuple[EpisodeResult, ...]
    sittings: tuple[Sitting, ...]


class RunFolder:
    """The one writer of a run. Make it with ``create`` or ``open``; use it as a context manager, or ``close`` it."""

    def __init__(self, path: Path, config: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        """Not for callers: take the writer's lock, open the database and begin a sitting."""
        self.path = path
        self.config = config
        """The configuration the run was created with."""
        self._lock = _lock(path)
        try:
            self._database = _connect(path)
            with self._transaction() as database:
                self._sitting = database.execute(
                    "INSERT INTO sittings (started_at, wall_s, config, provenance) VALUES (?, 0, ?, '{}')",
                    (datetime.now(UTC).isoformat(timespec="seconds"), _json(given)),
                ).lastrowid
        except BaseException:
            self._lock.close()
            raise
        self._started = time.monotonic()

    @classmethod
    def create(cls, path: str | Path, config: Mapping[str, Any]) -> Self:
        """Start a new run in ``path``, which is made with its parents, and begin its first sitting.

        config: plain data (what JSON can hold; tuples become lists), the whole run configuration with ``suite``,
        ``policy``, ``checkpoint``, ``seed``, ``tasks`` (the task ids, never None), ``trials`` (episodes per task) and
        ``protocol`` (the whole card as a mapping); anything else is kept and compared on resume.
        Raises UserError if there is a run already, or something else, or the place cannot be written.
        """
        path = Path(path)
        if missing := [name for name in REQUIRED if name not in config]:
            raise ValueError(f"the run configuration lacks {', '.join(missing)}")
        if (path / CONFIG).exists():
            raise UserError(f"{path} holds a run already: add --resume to go on with it, or choose another --out.")
        with explain_write_errors(path):
            path.mkdir(parents=True, exist_ok=True)
            leftovers = {entry.name for entry in path.iterdir()}
        # A creation that was killed leaves these; config.json comes last and makes the folder a run.
        if leftovers - {DATABASE, DATABASE + "-journal", CONFIG + ".tmp"}:
            raise UserError(f"{path} is not empty and is not a run: choose another --out.")
        with closing(_connect(path, create=True)) as database:
            if database.execute("SELECT count(*) FROM episodes").fetchone()[0]:
                raise UserError(f"{path} holds episodes but no {CONFIG}: put it back, or choose another --out.")
        write_text(path / CONFIG, _json(config, indent=2) + "\n")
        return cls(path, json.loads(_json(config)), config)

    @classmethod
    def open(cls, path: str | Path, config: Mapping[str, Any]) -> Self:
        """Go on with the run in ``path`` and begin another sitting.

        Raises UserError if there is no run, if it is damaged, if another process is writing it, or if ``config``
        differs from the stored one in a field that can change results (all but ``MAY_DIFFER``); the fields are named.
        """
        path = Path(path)
        stored = _read_config(path)
        if differing := config_differences(stored, config):
            raise UserError(
                f"{path} was started with another {', '.join(differing)}: "
                "repeat the first command with --resume, or choose another --out."
            )
        return cls(path, stored, config)

    def record_provenance(self, provenance: Mapping[str, Any]) -> None:
        """Store what this sitting runs on (see ``collect_provenance``).

        Raises UserError if a part that decides scores differs from the run's first sitting: a checkpoint, the assets,
        or the simulator changed in between, and the episodes would not belong together.
        """
        for sitting in _read_sittings(self._database):
            for keys in MUST_AGREE if sitting.provenance else ():
                before, now = _part(sitting.provenance, keys), _part(provenance, keys)
                if before != now:
                    raise UserError(
                        f"{self.path} was started with {' '.join(keys)} {before}, and now it is {now}: "
                        "go back to that, or choose another --out."
                    )
            break
        with self._transaction() as database:
            database.execute("UPDATE sittings SET provenance = ? WHERE id = ?", (_json(provenance), self._sitting))

    def add(self, result: EpisodeResult) -> bool:
        """Commit one ended episode durably; return whether it was stored.

        A finished episode (success or failure) is never replaced: adding it again changes nothing and returns False.
        A row whose outcome is "error" is replaced by any later result of the same key, and ``attempts`` add up.
        Raises UserError when the disk is full or the folder cannot be written any more.
        """
        with self._transaction() as database:
            stored = database.execute(UPSERT, to_row(result) | {"sitting": self._sitting}).rowcount > 0
            self._store_wall_time(database)
        return stored

    def finished(self) -> set[EpisodeKey]:
        """Return the episodes that a resumed run does not play again: all but the errors, which are run again."""
        with _explain_database_errors(self.path):
            rows = self._database.execute(
                "SELECT suite, task_id, initial_state, seed FROM episodes WHERE outcome != 'error'"
            ).fetchall()
        return {EpisodeKey(*row) for row in rows}

    def results(self) -> list[EpisodeResult]:
        """Return all episodes, in the order of (suite, task, initial state, seed)."""
        with _explain_database_errors(self.path):
            return _read_results(self._database)

    def recorded(self) -> RecordedRun:
        """Return everything the folder holds now, with this sitting's time up to now."""
        with self._transaction() as database:
            self._store_wall_time(database)
        with _explain_database_errors(self.path):
            return _recorded(self.path, self.config, self._database)

    def close(self) -> None:
        """Store the sitting's time, close the database and let other processes write. May be called twice."""
        if self._lock.closed:
            return
        try:
            with self._transaction() as database:
                self._store_wall_time(database)
        finally:
            self._database.close()
            self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _store_wall_time(self, database: sqlite3.Connection) -> None:
        elapsed = time.monotonic() - self._started
        database.execute("UPDATE sittings SET wall_s = ? WHERE id = ?", (elapsed, self._sitting))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with _explain_database_errors(self.path), self._database:  # commits, or rolls back on an exception
            yield self._database


def read_run(path: str | Path) -> RecordedRun:
    """Read a run folder, also one that is still being written. Raises UserError if it is none, or is damaged."""
    path = Path(path)
    config = _read_config(path)
    with closing(_connect(path)) as database, _explain_database_errors(path):
        return _recorded(path, config, database)


def config_differences(stored: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Return the dotted names of the fields in which two configurations differ, without those of ``MAY_DIFFER``."""
    left, right = json.loads(_json(stored)), json.loads(_json(given))
    for name in MAY_DIFFER:
        left.pop(name, None)
        right.pop(name, None)
    return _differences(left, right)


def _differences(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[str]:
    names = []
    for name in {**left, **right}:
        one, other = left.get(name), right.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            names += [f"{name}.{inner}" for inner in _differences(one, other)]
        elif one != other:
            names.append(name)
    return names


def _recorded(path: Path, config: Mapping[str, Any], database: sqlite3.Connection) -> RecordedRun:
    return RecordedRun(path, config, tuple(_read_results(database)), tuple(_read_sittings(database)))


def _read_results(database: sqlite3.Connection) -> list[EpisodeResult]:
    cursor = database.execute("SELECT * FROM episodes ORDER BY suite, task_id, initial_state, seed")
    names = [column[0] for column in cursor.description]
    return [from_row(dict(zip(names, row, strict=True))) for row in cursor]


def _read_sittings(database: sqlite3.Connection) -> list[Sitting]:
    rows = database.execute("SELECT started_at, wall_s, config, provenance FROM sittings ORDER BY id")
    return [Sitting(at, wall, json.loads(config), json.loads(provenance)) for at, wall, config, provenance in rows]


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path} is not a run: it has no {CONFIG}.") from None
    except OSError as error:
        raise UserError(f"{path / CONFIG} cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise UserError(f"{path / CONFIG} is damaged ({error}): put back a copy, or choose another --out.") from error
    if not isinstance(config, dict) or any(name not in config for name in REQUIRED):
        raise UserError(f"{path} is not a run: its {CONFIG} lacks one of {', '.join(REQUIRED)}.")
    return config


def _lock(path: Path) -> IO[str]:
    """Return config.json, open and locked; the system drops the lock with the process, also on kill -9."""
    with explain_write_errors(path):
        file = (path / CONFIG).open("r+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise UserError(f"{path} is being written by another process: wait for it, or choose another --out.") from None
    except OSError:
        pass  # some cluster file systems have no locks; a run without one is better than none
    return file


def _connect(path: Path, create: bool = False) -> sqlite3.Connection:
    """Open the database, with its tables if ``create``; raise UserError unless it is one of ours."""
    file = path / DATABASE
    if not create and not file.exists():
        raise UserError(f"{path} is damaged: its {DATABASE} is missing, so put back a copy, or choose another --out.")
    with _explain_database_errors(path):
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


@contextmanager
def _explain_database_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        file, code = path / DATABASE, getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            raise UserError(disk_full(path)) from error
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise UserError(f"{file} is damaged: put back a copy, or choose another --out.") from error
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR):
            raise UserError(f"{file} cannot be written ({error}): mend that, or choose another --out.") from error
        raise


def _part(mapping: Mapping[str, Any], keys: Sequence[str]) -> Any:
    value: Any = mapping
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _json(value: Mapping[str, Any], indent: int | None = None) -> str:
    return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
