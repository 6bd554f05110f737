"""Runs that hold the same episodes: a deterministic policy plays each one again, whatever its seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from ..results.wording import plural
from .runs import ComparedRun


@dataclass(frozen=True)
class Repeat:
    """``run`` shares ``shared`` episodes with ``earlier``, and all of them are the same, action for action."""

    run: ComparedRun
    earlier: ComparedRun
    shared: int

    @property
    def text(self) -> str:
        """Return one sentence for a reader of the run's numbers."""
        seeds = self.run.summary["seed"] != self.earlier.summary["seed"]
        return (
            f"All {plural(self.shared, 'episode')} shared with {self.earlier.name} ended alike by the same actions"
            f"{', so the other seed changed nothing' if seeds else ''}: this is one measurement, not two independent"
            " ones."
        )


def repeats(runs: Sequence[ComparedRun]) -> list[Repeat]:
    """Return every two runs of one suite whose shared episodes are all the same, in the order of the runs."""
    played = {id(run): _endings(run) for run in runs}
    found = []
    for earlier, run in combinations(runs, 2):
        if run.suite != earlier.suite:
            continue
        one, other = played[id(earlier)], played[id(run)]
        shared = one.keys() & other.keys()
        if shared and all(one[start] == other[start] for start in shared):
            found.append(Repeat(run, earlier, len(shared)))
    return found


def _endings(run: ComparedRun) -> Mapping[tuple[int, int], tuple[str, str, str]]:
    """Return (task, initial state) -> outcome and hashes of the actions and the last state, of finished episodes."""
    return {
        (result.key.task_id, result.key.initial_state): (result.outcome, result.action_sha256, result.state_sha256)
        for result in run.recorded.results
        if result.outcome != "error" and result.steps
    }
