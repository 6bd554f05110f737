"""A run of toy episodes that were really played, in its folder, for the tests of the tools."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import tests.toy_environment  # noqa: F401  # its environments are registered: a run names no module to import
from tests.vla_harness.runs import PROVENANCE, configuration
from tests.vla_harness.toy_runs import CARD, Reacher, jobs, play
from vla_harness.results import RunFolder

ENVIRONMENT = {"id": "tests.toy_environment:toy/reach-v0", "options": {}}


def play_run(path: Path, tasks: Iterable[int] = (0, 1), states: Iterable[int] = range(4), **changes: Any) -> Path:
    """Play the toy's episodes, write them as a run, and return its path. changes: of the configuration."""
    tasks, states = list(tasks), list(states)
    card = replace(CARD, max_steps={"toy": 12})  # few, so that far targets are failures
    settings = configuration(
        benchmark="toy",
        suite="toy",
        tasks=tasks,
        trials=max(states) + 1,
        protocol=json.loads(json.dumps(asdict(card))),
    )
    with RunFolder.create(path, settings | changes) as folder:
        folder.record_provenance(PROVENANCE | {"environment": ENVIRONMENT})
        for result in play(jobs(tasks, states), Reacher(), protocol=card).values():
            folder.add(result)
    return path
