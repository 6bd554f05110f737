"""A comparison of runs in numbers; ``content`` puts it into tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from ..errors import UserError
from ..results.wording import SUITES
from ..statistics import Interval, stratified_interval
from .contrasts import Contrast, contrasts, letters
from .protocol_check import Departure, departures, other_kernels, require_alike
from .published import PublishedRow, published_rows_of
from .repeats import Repeat, repeats
from .runs import ComparedRun, by_policy

SuiteKey = tuple[str, str]
"""(benchmark, suite)."""


@dataclass(frozen=True)
class Comparison:
    """What the tables say.

    policies: name -> its run on each suite, in the order given. suites: those with a run.
    departures: what differs in measurement, empty unless forced. repeats: runs that are the same episodes.
    contrasts and letters: of each suite, and of all suites together under None if there are several; letters only
    where every two policies could be compared.
    average: of a policy with a run on every one of several suites, the mean of the suites' rates with its interval.
    published: rows to show, empty unless asked for.
    """

    policies: Mapping[str, Mapping[SuiteKey, ComparedRun]]
    suites: Sequence[SuiteKey]
    departures: Sequence[Departure]
    repeats: Sequence[Repeat]
    contrasts: Mapping[SuiteKey | None, Sequence[Contrast]]
    letters: Mapping[SuiteKey | None, Mapping[str, str]]
    average: Mapping[str, tuple[float, Interval]]
    published: Sequence[PublishedRow]
    baseline: str | None

    @property
    def runs(self) -> list[ComparedRun]:
        """All runs."""
        return [run for runs in self.policies.values() for run in runs.values()]


def compare(
    runs: Sequence[ComparedRun], baseline: str | None = None, published: bool = False, force: bool = False
) -> Comparison:
    """Compare ``runs``.

    baseline: the policy that all others are tested against, by its name or by the path of one of its runs; None tests
    every two. published: add published rows. force: compare runs that were not measured alike, and mark them.
    Raises UserError without force if they were not, for a baseline that is none of them, and where nothing is
    published for any of the suites.
    """
    policies = {name: {run.suite: run for run in own} for name, own in by_policy(runs).items()}
    base = None if baseline is None else _baseline(runs, baseline)
    reference = runs[0] if base is None else next(run for run in runs if run.name == base)
    found = departures(runs, reference)
    if not force:
        require_alike(found)
    usual = list(SUITES)  # LIBERO's in the order of every paper, others as they come
    suites = sorted(
        dict.fromkeys(run.suite for run in runs),
        key=lambda suite: usual.index(suite[1]) if suite[1] in usual else len(usual),
    )
    scopes: list[tuple[SuiteKey | None, list[SuiteKey]]] = [(suite, [suite]) for suite in suites]
    if len(suites) > 1:
        scopes.append((None, suites))
    tested: dict[SuiteKey | None, Sequence[Contrast]] = {}
    lettered: dict[SuiteKey | None, Mapping[str, str]] = {}
    for scope, members in scopes:
        # on all suites together only policies that played them all: else their tasks differ, not they
        complete = [
            (name, [own[suite] for suite in members]) for name, own in policies.items() if set(members) <= set(own)
        ]
        if len(complete) < 2 or (base is not None and base not in dict(complete)):
            continue
        tested[scope], every = contrasts(complete, base)
        if every and base is None:
            ranked = sorted(complete, key=lambda policy: -_rate(policy[1]))
            lettered[scope] = letters([name for name, _ in ranked], tested[scope])
    average = {}
    if len(suites) > 1:
        for name, own in policies.items():
            if set(own) == set(suites):
                counts = [run.count for run in own.values()]
                average[name] = fmean(k / n for k, n in counts), stratified_interval(counts)
    rows = published_rows_of(suites) if published else []
    if published and not rows:
        raise UserError("--published knows rates on LIBERO's suites spatial, object, goal and 10 alone: leave it out.")
    return Comparison(policies, suites, found, repeats(runs), tested, lettered, average, rows, base)


def caveats(comparison: Comparison) -> dict[int, list[str]]:
    """Return id of a run -> what a reader must know of it beside its numbers."""
    texts: dict[int, list[str]] = defaultdict(list)
    for run in comparison.runs:
        texts[id(run)] += [mark["text"] for mark in run.summary["marks"]]
        texts[id(run)] += filter(None, [other_kernels(run, comparison.runs[0])])
    for departure in comparison.departures:
        texts[id(departure.run)].append(f"Not measured alike: {departure.text}.")
    for repeat in comparison.repeats:
        texts[id(repeat.run)].append(repeat.text)
    return {run: list(dict.fromkeys(found)) for run, found in texts.items()}


def marked(comparison: Comparison) -> dict[int, list[str]]:
    """Return the caveats of each run without those that hold for every run."""
    shared = set(shared_marks(comparison))
    return {run: [text for text in found if text not in shared] for run, found in caveats(comparison).items()}


def shared_marks(comparison: Comparison) -> list[str]:
    """Return the marks that every run carries."""
    first, *others = ([mark["text"] for mark in run.summary["marks"]] for run in comparison.runs)
    return [text for text in first if all(text in other for other in others)]


def _rate(runs: Sequence[ComparedRun]) -> float:
    return fmean(run.summary["success_rate"] for run in runs)


def _baseline(runs: Sequence[ComparedRun], wanted: str) -> str:
    for run in runs:
        if run.name == wanted or run.recorded.path.resolve() == Path(wanted.rpartition("=")[2]).resolve():
            return run.name
    names = ", ".join(dict.fromkeys(run.name for run in runs))
    raise UserError(f"--baseline is {wanted!r}, which is none of the runs: give one of their paths, or of {names}.")
