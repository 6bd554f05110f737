"""Synthetic runs for the tests of results: configurations, episodes, provenance."""

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from vla_harness.protocols import PROTOCOLS
from vla_harness.results import read_run
from vla_harness.results.database import connect
from vla_harness.results.episode_rows import store_episode
from vla_harness.types import EpisodeKey, EpisodeResult

PROVENANCE: dict[str, Any] = {
    "versions": {"python": "3.11.7", "mujoco": "3.3.2", "robosuite": "1.4.0", "hf-libero": "0.1.4"},
    "device": "cpu",
    "precision": "fp32",
    "checkpoint_sha256": None,
    "assets": {"kind": "path", "path": "/data/libero", "digest": "12"},
    "git_revision": "abc",
    "gl_backend": "egl",
    "policy_spec": {"name": "scripted", "cameras": [], "image_size": None, "reads_scene": False},
}


def change_episodes(path: Path, change: Callable[[EpisodeResult], EpisodeResult]) -> None:
    """Store every episode of the run in ``path`` anew, as ``change`` makes it."""
    results = read_run(path).results
    with closing(connect(path)) as database, database:
        database.execute("DELETE FROM episodes")
        for result in results:
            store_episode(database, change(result), sitting=1)


def configuration(**changes: Any) -> dict[str, Any]:
    """Return the configuration of a run of two tasks with three trials each."""
    card = json.loads(json.dumps(asdict(PROTOCOLS["openvla"])))
    config = {"suite": "spatial", "policy": "scripted", "checkpoint": None, "protocol": card, "tasks": [0, 1]}
    return config | {"trials": 3, "seed": 7, "workers": 2, "video": "none"} | changes


def episode(
    task: int = 0, initial_state: int = 0, outcome: str = "success", steps: int = 80, **changes: Any
) -> EpisodeResult:
    """Return an ended episode with random but reproducible actions."""
    actions = np.random.default_rng([task, initial_state]).random((steps, 7)).astype(np.float32)
    fields: dict[str, Any] = {
        "key": EpisodeKey("spatial", task, initial_state, 7),
        "task_name": f"task_number_{task}",
        "instruction": f"do task number {task}",
        "outcome": outcome,
        "steps": steps,
        "actions": actions,
        "state_sha256": "00ff",
        "policy_ms": (1.5, 2.25, 1 / 3),
        "env_s": 0.5,
        "render_s": 0.25,
        "wall_s": 1.0,
        "frames": 3,
    }
    return EpisodeResult(**fields | changes)
