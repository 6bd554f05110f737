"""Run folders for the tests of comparisons, written by the project's own writer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.vla_harness.runs import PROVENANCE, configuration, episode
from vla_harness.results import RunFolder
from vla_harness.types import EpisodeKey

OUTCOMES = {"1": "success", "0": "failure", "e": "error"}


def make_run(
    path: Path,
    outcomes: Sequence[str],
    suite: str = "spatial",
    provenance: Mapping[str, Any] | None = None,
    planned: int | None = None,
    **config: Any,
) -> Path:
    """Write a run and return its path.

    outcomes: a word for each task, with "1", "0" or "e" for each initial state, and "-" for one not played yet.
    planned: trials, where fewer were played so far.
    """
    trials = planned or max(map(len, outcomes))
    given = {"benchmark": "libero", "suite": suite, "tasks": list(range(len(outcomes))), "trials": trials}
    settings = configuration(**given | config)
    with RunFolder.create(path, settings) as folder:
        stated = PROVENANCE | dict(provenance or {})
        named = {"policy_spec": stated["policy_spec"] | {"name": settings["policy"]}}
        folder.record_provenance(stated | named)
        for task, word in enumerate(outcomes):
            for state, letter in enumerate(word):
                if letter != "-":
                    key = EpisodeKey(suite, task, state, settings["seed"])
                    error = "The arm fell off." if letter == "e" else ""
                    result = episode(task, state, OUTCOMES[letter], steps=60 + state, error=error)
                    folder.add(replace(result, key=key))
    return path


def stand_ins(digest: str = "99") -> dict[str, Any]:
    """Return the provenance of a run on stand-ins."""
    return {"assets": {"kind": "primitive", "path": "/cache/standins", "digest": digest}}


def sees_images() -> dict[str, Any]:
    """Return the provenance of a policy that sees frames."""
    return {"policy_spec": {"name": "eyes", "cameras": ["agentview"], "image_size": None, "reads_scene": False}}


def reads_scene() -> dict[str, Any]:
    """Return the provenance of a policy that reads the simulator's state."""
    return {"policy_spec": {"name": "scripted", "cameras": [], "image_size": None, "reads_scene": True}}
