"""Whether runs were measured alike: one table holds only those, or marks what differs.

What belongs to the policy itself (checkpoint, cameras, its own image size and path, precision, seed of its draws) may
differ; what belongs to the measurement may not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import UserError
from ..kernels import KERNELS, SERVER_KERNELS
from ..results.wording import value_text
from .runs import ComparedRun

VERSIONS = ("mujoco", "robosuite", "hf-libero")
STARTING_STATE = ("settle steps", "settle action", "environment seed", "assets", "environment", *VERSIONS)
"""Fields without which equal numbers of initial states are not equal states, so that episodes are no pairs."""
_CARD = ("settle_steps", "settle_action", "environment_seed")


@dataclass(frozen=True)
class Departure:
    """One field in which a run differs from the reference; values in words."""

    run: ComparedRun
    field: str
    value: str
    reference: ComparedRun
    reference_value: str

    @property
    def text(self) -> str:
        """Return "max steps 280, where openvla has 220"."""
        other = self.reference.name
        if self.run.suite != self.reference.suite:
            other += f" on {self.reference.summary['suite_title']}"
        return f"{self.field} {self.value}, where {other} has {self.reference_value}"


def departures(runs: Sequence[ComparedRun], reference: ComparedRun) -> list[Departure]:
    """Return in what each run differs from the first run of its benchmark and suite, ``reference`` before all others.

    Trials, the card and the simulator are compared over all suites of a benchmark, tasks and most steps within a suite.
    """
    ordered = [reference, *(run for run in runs if run is not reference)]
    found = []
    for run in runs:
        same_benchmark = next(other for other in ordered if other.suite[0] == run.suite[0])
        same_suite = next(other for other in ordered if other.suite == run.suite)
        for measure, other in ((_general, same_benchmark), (_of_suite, same_suite)):
            values, usual = measure(run), measure(other)
            found += [
                Departure(run, field, values[field], other, usual[field])
                for field in values
                if values[field] != usual[field]
            ]
    return found


def other_kernels(run: ComparedRun, reference: ComparedRun) -> str:
    """Return the mark of a run that other BLAS or ATen kernels computed than ``reference``; "" where none is known.

    They move the last bits of states and actions. No reason to refuse a comparison: outcomes were the same so far.
    """
    here, there = (_kernels(one.summary["provenance"]) for one in (run, reference))
    names = [name for name in here if here[name] != there.get(name, here[name]) and here[name] and there[name]]
    if not names:
        return ""
    differing = ", ".join(f"{name} {here[name]} where {reference.name} has {there[name]}" for name in names)
    return f"Computed by other kernels: {differing}; last bits of states and actions may differ."


def _kernels(provenance: Mapping[str, Any]) -> dict[str, str]:
    served = {f"server's {name}": core for name, core in provenance.get(SERVER_KERNELS, {}).items()}
    return dict(provenance.get(KERNELS, {})) | served


def require_alike(found: Sequence[Departure]) -> None:
    """Raise UserError, in one sentence that names every differing field, unless nothing differs."""
    if found:
        texts = list(dict.fromkeys(f"{one.run.recorded.path} has {one.text}" for one in found))
        raise UserError(
            f"The runs were not measured alike: {'; '.join(texts)}: compare runs that agree, or give --force to compare"
            " them with these marks."
        )


def same_starting_states(first: ComparedRun, second: ComparedRun) -> bool:
    """Return whether initial state i of a task was the same for both, so that their episodes are pairs."""
    one, other = _general(first), _general(second)
    return first.suite == second.suite and all(one[field] == other[field] for field in STARTING_STATE)


def _general(run: ComparedRun) -> dict[str, str]:
    config, provenance = run.recorded.config, run.summary["provenance"]
    card = config["protocol"]
    versions = provenance.get("versions", {})
    environment = {
        key: value for key, value in provenance.get("environment", {}).get("options", {}).items() if key != "assets"
    }
    return {
        "trials": value_text(config["trials"]),
        **{name.replace("_", " "): value_text(card.get(name)) for name in _CARD},
        "actions per inference": _executed(card, provenance.get("policy_spec", {})),
        "assets": _assets(provenance.get("assets", {})),
        **{name: value_text(versions.get(name)) for name in VERSIONS},
        "environment": value_text(environment),
    }


def _executed(card: Mapping[str, Any], spec: Mapping[str, Any]) -> str:
    """Return what the protocol leaves of a policy's chunk; a policy with shorter chunks notices no limit."""
    limit, horizon = card.get("actions_per_inference"), spec.get("horizon", 1)
    return "all of the policy's" if limit is None or limit >= horizon else value_text(limit)


def _of_suite(run: ComparedRun) -> dict[str, str]:
    config = run.recorded.config
    steps = config["protocol"].get("max_steps", {}).get(config["suite"])
    return {"tasks": value_text(config["tasks"]), "max steps": value_text(steps)}


def _assets(assets: dict[str, Any]) -> str:
    """Return the content's digest, shortened; files are the same ones wherever they lie."""
    kind = "stand-ins" if assets.get("kind") == "primitive" else "files"
    return f"{kind} {value_text(assets.get('digest'))[:12]}"
