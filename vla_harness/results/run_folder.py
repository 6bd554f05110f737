"""The folder of one run: ``config.json`` and ``episodes.sqlite``, safe against a kill at any moment.

Every episode is one row that is committed as it ends. The database keeps SQLite's rollback journal and not the
write-ahead log: after a commit everything is in one file, which can be copied, and shared file systems, where
clusters keep their runs and where the write-ahead log does not work, are fine.

A **sitting** is one start of the command. ``wall_s`` of a sitting is written with every episode, so a killed one counts
up to the last episode that it finished.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..errors import UserError
from ..types import EpisodeKey, EpisodeResult
from .configuration import CONFIG, REQUIRED, config_differences, extends, read_config, to_json
from .database import (
    DATABASE,
    Sitting,
    add_checksums,
    connect,
    explain_database_errors,
    read_results,
    read_sittings,
    store_sitting,
    unchecked_episodes,
)
from .episode_rows import store_episode
from .files import UNFINISHED, explain_write_errors, remove_unfinished, write_text
from .lock import WriterLock
from .repair import repair
from .stored import check_sitting

MUST_AGREE = (
    ("assets", "digest"),
    ("checkpoint_sha256",),
    ("versions", "mujoco"),
    ("versions", "robosuite"),
    ("versions", "hf-libero"),
)
"""Parts of the provenance that decide scores: a sitting in which one differs from the first is refused."""


EXTENDED_FROM = "extended_from"
"""In a sitting's configuration: the trials that the run had before this sitting planned more."""


@dataclass(frozen=True)
class RecordedRun:
    """What a run folder holds, read at one moment. results are in the order of (task, initial state, seed).

    unchecked: episodes that an earlier version stored without a checksum.
    """

    path: Path
    config: Mapping[str, Any]
    results: tuple[EpisodeResult, ...]
    sittings: tuple[Sitting, ...]
    unchecked: int = 0


class RunFolder:
    """The one writer of a run. Make it with ``create`` or ``open``; use it as a context manager, or ``close`` it."""

    def __init__(
        self,
        path: Path,
        lock: WriterLock,
        config: Mapping[str, Any],
        given: Mapping[str, Any],
        extended_from: int | None = None,
    ) -> None:
        """Not for callers: open the database and begin a sitting, under the lock that this object then owns."""
        self.path = path
        self.config = config
        """The configuration the run was created with, with its present number of trials."""
        self.extended_from = extended_from
        """Trials that the run had before this sitting planned more; None if it did not."""
        remove_unfinished(path)
        self.damaged = repair(path)
        """Episodes that were not what had been stored, and so are to be played again."""
        stated = given if extended_from is None else {**given, EXTENDED_FROM: extended_from}
        self._sitting = Sitting(datetime.now(UTC).isoformat(timespec="seconds"), 0.0, stated, {})
        self._database = connect(path)
        try:
            with explain_database_errors(path):
                _checked_sittings(path, self._database)  # before hours are played, and not when they are summed up
            with self._transaction() as database:
                add_checksums(database)
                self._number = store_sitting(database, self._sitting)
        except BaseException:
            self._database.close()
            raise
        self._lock = lock.keep()
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
        with WriterLock(path) as lock:
            with explain_write_errors(path):
                leftovers = {entry.name for entry in path.iterdir()}
            if CONFIG in leftovers:  # of a process that was quicker
                raise UserError(f"{path} holds a run already: add --resume to go on with it, or choose another --out.")
            # A creation that was killed leaves these; config.json comes last and makes the folder a run.
            leftovers = {name for name in leftovers if not UNFINISHED.fullmatch(name)}
            if leftovers - {DATABASE, DATABASE + "-journal", CONFIG + ".tmp"}:
                raise UserError(f"{path} is not empty and is not a run: choose another --out.")
            with closing(connect(path, create=True)) as database:
                if database.execute("SELECT count(*) FROM episodes").fetchone()[0]:
                    raise UserError(f"{path} holds episodes but no {CONFIG}: put it back, or choose another --out.")
            write_text(path / CONFIG, to_json(config, indent=2) + "\n")
            return cls(path, lock, json.loads(to_json(config)), config)

    @classmethod
    def open(cls, path: str | Path, config: Mapping[str, Any]) -> Self:
        """Go on with the run in ``path`` and begin another sitting.

        Raises UserError if there is no run, if it is damaged, if another process is writing it, or if ``config``
        differs from the stored one in a field that can change results (all but ``MAY_DIFFER``); the fields are named.
        More trials than the run has extend it: they are stored, and every report says so.
        """
        path = Path(path)
        read_config(path)  # a folder that is no run is told so before anything else
        with WriterLock(path) as lock:
            stored = read_config(path)
            differing = config_differences(stored, config)
            if extends(stored, config, differing):
                run = cls(path, lock, stored | {"trials": config["trials"]}, config, stored["trials"])
                # after the sitting that says so, and so never without a word
                write_text(path / CONFIG, to_json(run.config, indent=2) + "\n")
                return run
            if differing:
                raise UserError(
                    f"{path} was started with another {', '.join(differing)}: "
                    "repeat the first command with --resume, or choose another --out."
                )
            return cls(path, lock, stored, config)

    def record_provenance(self, provenance: Mapping[str, Any]) -> None:
        """Store what this sitting runs on (see ``collect_provenance``).

        Raises UserError if a part that decides scores differs from the run's first sitting: a checkpoint, the assets,
        or the simulator changed in between, and the episodes would not belong together.
        """
        for sitting in read_sittings(self._database):
            for keys in MUST_AGREE if sitting.provenance else ():
                before, now = provenance_part(sitting.provenance, keys), provenance_part(provenance, keys)
                if before != now:
                    raise UserError(
                        f"{self.path} was started with {' '.join(keys)} {before}, and now it is {now}: "
                        "go back to that, or choose another --out."
                    )
            break
        self._sitting = replace(self._sitting, provenance=provenance)
        with self._transaction() as database:
            self._store_wall_time(database)

    def add(self, result: EpisodeResult) -> bool:
        """Commit one ended episode durably; return whether it was stored.

        A finished episode (success or failure) is never replaced: adding it again changes nothing and returns False.
        A row whose outcome is "error" is replaced by any later result of the same key, and ``attempts`` add up.
        Raises UserError when the disk is full or the folder cannot be written any more.
        """
        with self._transaction() as database:
            stored = store_episode(database, result, self._number)
            self._store_wall_time(database)
        return stored

    def finished(self) -> set[EpisodeKey]:
        """Return the episodes that a resumed run does not play again: all but the errors, which are run again."""
        with explain_database_errors(self.path):
            rows = self._database.execute(
                "SELECT suite, task_id, initial_state, seed FROM episodes WHERE outcome != 'error'"
            ).fetchall()
        return {EpisodeKey(*row) for row in rows}

    def results(self) -> list[EpisodeResult]:
        """Return all episodes, in the order of (suite, task, initial state, seed)."""
        with explain_database_errors(self.path):
            return read_results(self._database, self.path)

    def recorded(self) -> RecordedRun:
        """Return everything the folder holds now, with this sitting's time up to now."""
        with self._transaction() as database:
            self._store_wall_time(database)
        with explain_database_errors(self.path):
            return _recorded(self.path, self.config, self._database)

    def close(self) -> None:
        """Store the sitting's time, close the database and let other processes write. May be called twice."""
        if not self._lock.held:
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
        store_sitting(database, replace(self._sitting, wall_s=time.monotonic() - self._started), self._number)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with explain_database_errors(self.path), self._database:  # commits, or rolls back on an exception
            yield self._database


def read_run(path: str | Path) -> RecordedRun:
    """Read a run folder, also one that is still being written. Raises UserError if it is none, or is damaged."""
    path = Path(path)
    config = read_config(path)
    with closing(connect(path)) as database, explain_database_errors(path):
        return _recorded(path, config, database)


def _recorded(path: Path, config: Mapping[str, Any], database: sqlite3.Connection) -> RecordedRun:
    results, sittings = tuple(read_results(database, path)), tuple(_checked_sittings(path, database))
    return RecordedRun(path, config, results, sittings, unchecked_episodes(database))


def _checked_sittings(path: Path, database: sqlite3.Connection) -> list[Sitting]:
    """Return the sittings; of one that is not what was stored, nothing that is not as readers expect it."""
    checked = []
    for sitting in read_sittings(database):
        try:
            check_sitting(sitting.config, sitting.provenance, path / DATABASE)
        except UserError:
            if sitting.intact:
                raise
            sitting = replace(sitting, config={}, provenance={})
        checked.append(sitting)
    return checked


def provenance_part(mapping: Mapping[str, Any], keys: Sequence[str]) -> Any:
    """Return what lies at ``keys``, one level after the other; None where there is nothing."""
    value: Any = mapping
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
