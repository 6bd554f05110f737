"""How an episode lies in ``episodes.sqlite``: the tables, and the way from an EpisodeResult to its row and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from ..types import EpisodeKey, EpisodeResult

SCHEMA_VERSION = 1
_KEY = ("suite", "task_id", "initial_state", "seed")
_ACTIONS = np.dtype("<f4")
_MILLISECONDS = np.dtype("<f8")

SCHEMA = f"""
CREATE TABLE IF NOT EXISTS sittings (
    id INTEGER PRIMARY KEY,
    started_at TEXT NOT NULL,  -- ISO 8601, UTC
    wall_s REAL NOT NULL,
    config TEXT NOT NULL,      -- JSON
    provenance TEXT NOT NULL   -- JSON
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
    PRIMARY KEY (suite, task_id, initial_state, seed)
);
PRAGMA user_version = {SCHEMA_VERSION};
"""

_PLAIN = tuple(field.name for field in fields(EpisodeResult) if field.name not in ("key", "actions", "policy_ms"))
_COLUMNS = (*_KEY, *_PLAIN, "action_dim", "actions", "action_sha256", "policy_ms", "sitting")
_REPLACED = (f"{name} = excluded.{name}" for name in _COLUMNS if name not in (*_KEY, "attempts"))

UPSERT = f"""
INSERT INTO episodes ({", ".join(_COLUMNS)}) VALUES ({", ".join(f":{name}" for name in _COLUMNS)})
ON CONFLICT ({", ".join(_KEY)}) DO UPDATE SET
    {", ".join(_REPLACED)}, attempts = episodes.attempts + excluded.attempts
WHERE episodes.outcome = 'error'
"""
"""Adds a row; an error is replaced and a finished episode is not."""


def to_row(result: EpisodeResult) -> dict[str, Any]:
    """Return the columns of ``result``, without ``sitting``. Raises ValueError unless its actions are a matrix."""
    actions = np.ascontiguousarray(result.actions, _ACTIONS)
    if actions.ndim != 2:
        raise ValueError(f"the actions of {result.key} have shape {actions.shape}, not (steps, action_dim)")
    row: dict[str, Any] = {name: getattr(result.key, name) for name in _KEY}
    row |= {name: getattr(result, name) for name in _PLAIN}
    row |= {"action_dim": actions.shape[1], "actions": actions.tobytes(), "action_sha256": result.action_sha256}
    row["policy_ms"] = np.asarray(result.policy_ms, _MILLISECONDS).tobytes()
    # numpy's own scalars would be stored as blobs
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in row.items()}


def from_row(row: Mapping[str, Any]) -> EpisodeResult:
    """Return the episode that ``to_row`` stored."""
    dim = row["action_dim"]
    flat = np.frombuffer(row["actions"], _ACTIONS).astype(np.float32)
    return EpisodeResult(
        key=EpisodeKey(**{name: row[name] for name in _KEY}),
        actions=flat.reshape(len(flat) // max(dim, 1), dim),
        policy_ms=tuple(np.frombuffer(row["policy_ms"], _MILLISECONDS).tolist()),
        **{name: row[name] for name in _PLAIN},
    )
