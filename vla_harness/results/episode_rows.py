"""How an episode lies in ``episodes.sqlite``: the tables, and the way from an EpisodeResult to its row and back.

Every row carries a checksum over its other columns, because a flipped bit in a number is still a number. Databases of
layout 1 were made without; their rows are checked by types, lengths and the hash of the actions alone.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from ..types import EpisodeKey, EpisodeResult

SCHEMA_VERSION = 2
WITHOUT_CHECKSUMS = 1
"""The layout before."""
CHECKSUM = "checksum"
_KEY = ("suite", "task_id", "initial_state", "seed")
_ACTIONS = np.dtype("<f4")
_MILLISECONDS = np.dtype("<f8")

SCHEMA = f"""
CREATE TABLE IF NOT EXISTS sittings (
    id INTEGER PRIMARY KEY,
    started_at TEXT NOT NULL,  -- ISO 8601, UTC
    wall_s REAL NOT NULL,
    config TEXT NOT NULL,      -- JSON
    provenance TEXT NOT NULL,  -- JSON
    checksum TEXT NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS episodes (
    suite TEXT NOT NULL,
    task_id INTEGER NOT NULL,
    initial_state INTEGER NOT NULL,
    seed INTEGER NOT NULL,
    task_name TEXT NOT NULL,
    instruction TEXT NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN ('success', 'failure', 'error')),
    steps INTEGER NOT NULL,
    action_dim INTEGER NOT NULL,
    actions BLOB NOT NULL,       -- (steps, action_dim) float32, little-endian, row by row
    action_sha256 TEXT NOT NULL,
    state_sha256 TEXT NOT NULL,
    policy_ms BLOB NOT NULL,     -- float64, little-endian, one for each decision
    env_s REAL NOT NULL,
    render_s REAL NOT NULL,
    wall_s REAL NOT NULL,
    frames INTEGER NOT NULL,
    error TEXT NOT NULL,
    video TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    sitting INTEGER NOT NULL REFERENCES sittings (id),
    checksum TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (suite, task_id, initial_state, seed)
);
PRAGMA user_version = {SCHEMA_VERSION};
"""

_PLAIN = tuple(field.name for field in fields(EpisodeResult) if field.name not in ("key", "actions", "policy_ms"))
_COLUMNS = (*_KEY, *_PLAIN, "action_dim", "actions", "action_sha256", "policy_ms", "sitting", CHECKSUM)
_REALS = ("env_s", "render_s", "wall_s")
_INTEGERS = ("task_id", "initial_state", "seed", "steps", "action_dim", "frames", "attempts", "sitting")
_BLOBS = ("actions", "policy_ms")
_OUTCOMES = ("success", "failure", "error")

_INSERT = f"INSERT OR REPLACE INTO episodes ({', '.join(_COLUMNS)}) VALUES ({', '.join(f':{one}' for one in _COLUMNS)})"
_STORED = f"SELECT outcome, attempts FROM episodes WHERE {' AND '.join(f'{name} = :{name}' for name in _KEY)}"


class DamagedRow(Exception):
    """A stored episode is not what was stored; the message is its key."""


def store_episode(database: sqlite3.Connection, result: EpisodeResult, sitting: int) -> bool:
    """Add a row in the caller's transaction and return whether it was stored.

    An error that is there is replaced, and the attempts add up; a finished episode is not. Raises ValueError unless the
    actions are a matrix.
    """
    row = to_row(result) | {"sitting": sitting}
    stored = database.execute(_STORED, row).fetchone()
    if stored is not None:
        if stored[0] != "error":
            return False
        row["attempts"] += stored[1]
    database.execute(_INSERT, row | {CHECKSUM: checksum(row)})
    return True


def checksum(row: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the names, types and values of a row's columns, without the checksum's own."""
    digest = hashlib.sha256()
    for name in sorted(row.keys() - {CHECKSUM}):
        value = row[name]
        content = value if isinstance(value, bytes) else repr(value).encode("utf-8", "surrogatepass")
        digest.update(f"{name} {type(value).__name__} {len(content)} ".encode() + content)
    return digest.hexdigest()


def to_row(result: EpisodeResult) -> dict[str, Any]:
    """Return the columns of ``result``, without ``sitting`` and ``checksum``.

    Raises ValueError unless its actions are a matrix.
    """
    actions = np.ascontiguousarray(result.actions, _ACTIONS)
    if actions.ndim != 2:
        raise ValueError(f"the actions of {result.key} have shape {actions.shape}, not (steps, action_dim)")
    row: dict[str, Any] = {name: getattr(result.key, name) for name in _KEY}
    row |= {name: getattr(result, name) for name in _PLAIN}
    row |= {"action_dim": actions.shape[1], "actions": actions.tobytes(), "action_sha256": result.action_sha256}
    row["policy_ms"] = np.asarray(result.policy_ms, _MILLISECONDS).tobytes()
    # as the database gives them back: it stores numpy's own scalars as blobs, and no lone surrogates
    plain = {name: _kind(name)(value) for name, value in row.items()}
    texts = {name: value for name, value in plain.items() if isinstance(value, str)}
    return plain | {name: value.encode(errors="backslashreplace").decode() for name, value in texts.items()}


def from_row(row: Mapping[str, Any], checked: bool = True) -> EpisodeResult:
    """Return the episode that was stored as ``row``.

    checked: whether the row must have a checksum. Raises DamagedRow if it is not what was stored.
    """
    summed = row.get(CHECKSUM, "")
    if (summed or checked) and summed != checksum(row):
        raise DamagedRow(_name(row))
    plain = all(isinstance(row.get(name), _kind(name)) for name in _COLUMNS if name != CHECKSUM)
    if not plain or row["outcome"] not in _OUTCOMES or len(row["policy_ms"]) % _MILLISECONDS.itemsize:
        raise DamagedRow(_name(row))
    dim = row["action_dim"]
    size = dim * _ACTIONS.itemsize
    if dim < 0 or (len(row["actions"]) % size if size else row["actions"]):
        raise DamagedRow(_name(row))
    actions = np.frombuffer(row["actions"], _ACTIONS).astype(np.float32)
    result = EpisodeResult(
        key=EpisodeKey(**{name: row[name] for name in _KEY}),
        actions=actions.reshape(len(actions) // max(dim, 1), dim),
        policy_ms=tuple(np.frombuffer(row["policy_ms"], _MILLISECONDS).tolist()),
        **{name: row[name] for name in _PLAIN},
    )
    if result.action_sha256 != row["action_sha256"]:
        raise DamagedRow(_name(row))
    return result


def _name(row: Mapping[str, Any]) -> str:
    return "/".join(str(row.get(name)) for name in _KEY)


def _kind(name: str) -> type:
    return float if name in _REALS else int if name in _INTEGERS else bytes if name in _BLOBS else str
