"""What a reader must know before comparing a run's rate with another: stand-ins, errors, departures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from ..kernels import KERNELS
from ..protocols import OWN_IMAGE_PATH, PROTOCOLS
from .measured import MEASURED
from .provenance_text import size_text
from .run_folder import EXTENDED_FROM, RecordedRun
from .wording import SUITES, plural, value_text

UNTRAINED = "untrained_tasks"
"""Key of the provenance: numbers of the tasks played that the policy's training did not hold."""
NAMED = 3
"""Tasks or suites that a sentence on the training lists."""


def is_stand_in(run: RecordedRun) -> bool:
    """Return whether any sitting of the run played on generated stand-in assets."""
    return any(sitting.provenance.get("assets", {}).get("kind") == "primitive" for sitting in run.sittings)


def shared_provenance(run: RecordedRun) -> dict[str, Any]:
    """Return the provenance of the first sitting that has one; ``marks`` tells where later sittings differ."""
    return next((dict(sitting.provenance) for sitting in run.sittings if sitting.provenance), {})


def marks(run: RecordedRun, summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the marks that every table of this run carries, each with its kind and one sentence.

    kinds: "errors" and "incomplete" make the headline provisional; "stand_ins" and "reads_scene" take it out of
    comparisons; "untrained", "protocol", "mixed" and "extended" state departures;
    "unchecked" and "damaged" speak of the files.
    """
    found = []
    if errors := summary["errors"]:
        ended, count = ("has", "counts") if errors == 1 else ("have", "count")
        found.append(
            ("errors", f"{plural(errors, 'episode')} {ended} ended in an error and {count} neither as success nor as "
             "failure; --resume runs them again.")
        )  # fmt: skip
    if missing := summary["planned"] - len(run.results):
        found.append(("incomplete", f"{plural(missing, 'episode')} of {summary['planned']:,} not played yet."))
    if run.unchecked:
        found.append(
            ("unchecked", f"{plural(run.unchecked, 'episode')} of an earlier version, stored without checksums: damage"
             " to them may go unnoticed.")
        )  # fmt: skip
    if broken := sum(not sitting.intact for sitting in run.sittings):
        found.append(
            ("damaged", f"The record of {plural(broken, 'sitting')} is not what was stored: how the run was made may be"
             " another way than it says.")
        )  # fmt: skip
    if steps := trials_added(run):
        numbers = ", then ".join(f"from {before} to {after}" for before, after in steps)
        found.append(
            ("extended", f"Extended {numbers} trials a task after it had begun: intervals and tests hold for a number"
             " that was fixed before the first episode.")
        )  # fmt: skip
    if is_stand_in(run):
        found.append(("stand_ins", "Played on generated stand-in assets: this is not a LIBERO result."))
    if summary["reads_scene"]:
        found.append(
            ("reads_scene", "The policy reads the simulator's state: not comparable with policies that see images.")
        )
    if untrained := untrained_text(run.config, shared_provenance(run)):
        found.append(("untrained", untrained))
    if summary["protocol_differences"]:
        departures = "; ".join(summary["protocol_differences"])
        found.append(("protocol", f"Differs from the protocol {summary['protocol']}: {departures}."))
    if mixed := _mixed(run):
        found.append(("mixed", f"The sittings of this run differ in {'; '.join(mixed)}."))
    return [{"kind": kind, "text": text} for kind, text in found]


def trials_added(run: RecordedRun) -> list[tuple[int, int]]:
    """Return (trials before, trials after) of each time that the run was extended."""
    sittings = [sitting.config for sitting in run.sittings if EXTENDED_FROM in sitting.config]
    return [(config[EXTENDED_FROM], config["trials"]) for config in sittings]


def untrained_text(config: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    """Return the sentence on tasks that the policy was not trained on, or may not have been; "" where there is none."""
    spec, tasks = provenance.get("policy_spec", {}), provenance.get(UNTRAINED, [])
    if "trained_on" in spec and spec["trained_on"] is None:
        return "The checkpoint does not say which tasks the policy was trained on."
    if not tasks:
        return ""
    learned = ", ".join(spec["trained_on"]) if len(spec["trained_on"]) <= NAMED else f"{len(spec['trained_on'])} others"
    played = plural(len(config["tasks"]), "task")
    which = f"{len(tasks)} ({', '.join(map(str, tasks))}) of the {played}"
    if len(tasks) == len(config["tasks"]):
        which = "the task" if len(tasks) == 1 else f"any of the {played}"
    return f"The policy was not trained on {which} played, but on {learned}."


def horizon_text(config: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    """Return the sentence on a policy whose chunks are shorter than what the protocol plays of each; "" for others."""
    card, horizon = config["protocol"], provenance.get("policy_spec", {}).get("horizon")
    wanted, played = card.get("actions_per_inference"), _actions_per_inference(card, horizon)
    if played is None or played == wanted:
        return ""
    return (
        f"The policy returns {plural(played, 'action')} per inference, and the protocol {card['name']} plays {wanted}."
    )


def _actions_per_inference(card: Mapping[str, Any], horizon: int | None) -> int | None:
    """Return how many actions of each chunk are played; None for all."""
    wanted = card.get("actions_per_inference")
    return wanted if wanted is None or horizon is None else min(wanted, horizon)


def protocol_differences(config: Mapping[str, Any], provenance: Mapping[str, Any]) -> list[str]:
    """Return how a run departs from the published protocol of the same name, as "10 trials instead of 50"."""
    suite, card = config["suite"], config["protocol"]
    found = []
    if suite in SUITES and len(config["tasks"]) != SUITES[suite][1]:
        found.append(f"{len(config['tasks'])} of {SUITES[suite][1]} tasks")
    if card["name"] not in PROTOCOLS:
        return found
    published = json.loads(json.dumps(asdict(PROTOCOLS[card["name"]])))
    played = {**card, "trials": config["trials"]}
    played["actions_per_inference"] = _actions_per_inference(card, provenance.get("policy_spec", {}).get("horizon"))
    for name in ("trials", "settle_steps", "settle_action", "environment_seed", "actions_per_inference"):
        if played.get(name) != published[name]:
            words = name.replace("_", " ")
            found.append(f"{words} {value_text(played.get(name))} instead of {value_text(published[name])}")
    spec = provenance.get("policy_spec", {})
    rendered = spec.get("image_size") if spec.get("cameras") else None
    own_frames = published["image_path"] == OWN_IMAGE_PATH  # a protocol that leaves frames to the policy
    size = card.get("image_size") if rendered is None or own_frames else rendered
    if size != published["image_size"]:
        found.append(f"image size {size_text(size)} instead of {size_text(published['image_size'])}")
    steps, usual = card.get("max_steps", {}).get(suite), published["max_steps"].get(suite)
    if steps != usual:
        found.append(f"max steps {value_text(steps)} instead of {value_text(usual)}")
    return found


def _mixed(run: RecordedRun) -> list[str]:
    known = [dict(_flat(sitting.provenance)) for sitting in run.sittings if sitting.provenance]
    found = []
    for name in sorted(name for name in set().union(*known) if not name.startswith(MEASURED)):
        recent = KERNELS in name.partition(".")[0]  # an older sitting tells none, which is no difference
        stating = [one for one in known if name in one or not recent]
        values = list(dict.fromkeys(value_text(provenance.get(name)) for provenance in stating))
        if len(values) > 1:
            found.append(f"{name} ({' and '.join(values)})")
    return found


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
