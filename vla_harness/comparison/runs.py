"""The runs that are compared: read, named, and gathered into policies with a run for each suite."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..results import RecordedRun, read_run, summarize


@dataclass(frozen=True)
class ComparedRun:
    """A run and the name of its policy in the tables. summary: as ``summarize`` makes it, of now."""

    name: str
    recorded: RecordedRun
    summary: Mapping[str, Any]

    @property
    def suite(self) -> tuple[str, str]:
        """(benchmark, suite)."""
        return self.recorded.config.get("benchmark", ""), self.summary["suite"]

    @property
    def policy(self) -> str:
        """What its spec calls the policy: one entry of the registry can load several kinds."""
        return self.summary["provenance"].get("policy_spec", {}).get("name") or self.summary["policy"]

    @property
    def count(self) -> tuple[int, int]:
        """(successes, trials)."""
        return self.summary["successes"], self.summary["trials"]

    @property
    def privileged(self) -> bool:
        """Whether the policy reads the simulator's state, so that its rates are no rival of the others'."""
        return self.summary["reads_scene"]


def read_runs(arguments: Sequence[str]) -> list[ComparedRun]:
    """Return the runs named by PATH or NAME=PATH, in that order.

    Without a name a run is called after its policy, and where two of one policy played the same suite, also after what
    differs there: checkpoint, precision, protocol or seed, else the folder. Runs of one name are one policy's.
    Raises UserError for a path that is no run, one given twice, one without a finished episode, and for two runs on
    one suite under one given name.
    """
    runs: list[ComparedRun] = []
    named: list[bool] = []
    for argument in arguments:
        name, path = _split(argument)
        recorded = read_run(path)
        if any(other.recorded.path.resolve() == path.resolve() for other in runs):
            raise UserError(f"{path} is given twice: name each run once.")
        summary = summarize(recorded)
        if not summary["trials"]:
            raise UserError(f"{path} holds no finished episode: compare runs that have some.")
        run = ComparedRun(name, recorded, summary)
        runs.append(run if name else replace(run, name=run.policy))
        named.append(bool(name))
    return _distinguished(runs, named)


def by_policy(runs: Iterable[ComparedRun]) -> dict[str, list[ComparedRun]]:
    """Return policy name -> its runs, in the order in which they were given."""
    gathered = defaultdict(list)
    for run in runs:
        gathered[run.name].append(run)
    return dict(gathered)


def _split(argument: str) -> tuple[str, Path]:
    if "=" in argument and not Path(argument).exists():
        name, _, path = argument.partition("=")
        return name.strip(), Path(path)
    return "", Path(argument)


_TELLING: tuple[tuple[str, Callable[[ComparedRun], Any]], ...] = (
    ("", lambda run: Path(str(run.summary["checkpoint"])).name if run.summary["checkpoint"] else None),
    ("", lambda run: run.summary["provenance"].get("precision")),
    ("protocol ", lambda run: run.summary["protocol"]),
    ("seed ", lambda run: run.summary["seed"]),
)


def _distinguished(runs: list[ComparedRun], named: list[bool]) -> list[ComparedRun]:
    """Return the runs with longer names where those of two on the same suite are the same."""
    for name, same in by_policy(runs).items():
        if len({run.suite for run in same}) == len(same):
            continue
        if any(given and run.name == name for run, given in zip(runs, named, strict=True)):
            first, second = next((a, b) for a in same for b in same if a is not b and a.suite == b.suite)
            raise UserError(
                f"{first.recorded.path} and {second.recorded.path} are both {name!r} on {first.summary['suite']}:"
                f" give each a name of its own, as in first={first.recorded.path} second={second.recorded.path}."
            )
        telling = [(words, value) for words, value in _TELLING if _differs_on_a_suite(value, same)]
        longer = [", ".join(f"{words}{value(run)}" for words, value in telling if value(run)) for run in same]
        for paths in ([run.recorded.path.name for run in same], [str(run.recorded.path) for run in same]):
            if len({(words, run.suite) for words, run in zip(longer, same, strict=True)}) < len(same):
                longer = paths
        renamed = {
            id(run): replace(run, name=f"{name} ({words})" if words else name)
            for run, words in zip(same, longer, strict=True)
        }
        runs = [renamed.get(id(run), run) for run in runs]
    return runs


def _differs_on_a_suite(value: Callable[[ComparedRun], Any], runs: Iterable[ComparedRun]) -> bool:
    """Return whether two of ``runs`` on one suite have another value; a checkpoint for each suite is no difference."""
    values = defaultdict(set)
    for run in runs:
        values[run.suite].add(value(run))
    return any(len(found) > 1 for found in values.values())
