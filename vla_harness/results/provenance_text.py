"""How a run came about, in rows for a reader: sittings and commands, and what made the numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .measured import BATCH_TIMES, PEAK_MEMORY
from .wording import ABSENT, duration, number, value_text

LONGEST = 400
"""Characters of a value that are shown; ``summary.json`` has all of it."""

_NAMES = {"checkpoint_sha256": "checkpoint SHA-256", "gl_backend": "rendering", "git_revision": "code revision"}
_OF_THE_RUN = (
    "device",
    "precision",
    "checkpoint",
    "checkpoint_sha256",
    "checkpoint_revision",
    "git_revision",
    "gl_backend",
)
_ELSEWHERE = ("versions", "machine", "assets", "policy_spec", "environment", PEAK_MEMORY, BATCH_TIMES)
Rows = list[tuple[str, str]]


def run_rows(summary: Mapping[str, Any]) -> Rows:
    """Return when and by which commands the run was played, as (field, value)."""
    sessions: Sequence[Mapping[str, Any]] = summary["sessions"]
    rows: Rows = []
    for count, session in enumerate(sessions):
        started = f"{session['started_at'][:16].replace('T', ' ')} UTC, for {duration(session['wall_s'])}"
        rows.append(("resumed" if count else "started", started))
        if session["command"] and (not count or session["command"] != sessions[count - 1]["command"]):
            rows.append(("command", clipped(session["command"])))
    return rows


def provenance_rows(summary: Mapping[str, Any]) -> Rows:
    """Return what made the numbers as (field, value): the code, the policy, the simulator and the machine."""
    provenance = summary["provenance"]
    rows: Rows = [(name, value_text(value)) for name, value in _mapping(provenance, "versions").items()]
    rows += [
        (_NAMES.get(key, key.replace("_", " ")), _text(provenance[key])) for key in _OF_THE_RUN if key in provenance
    ]
    rows += _policy_rows(_mapping(provenance, "policy_spec"))
    for key, value in provenance.items():
        if key not in _OF_THE_RUN and key not in _ELSEWHERE:
            rows += _flat(f"policy {key.replace('_', ' ')}" if key != "ray" else key, value)
    if assets := _mapping(provenance, "assets"):
        rows.append(("assets", _assets_text(assets)))
    if environment := _mapping(provenance, "environment"):
        options = {key: value for key, value in _mapping(environment, "options").items() if key != "assets"}
        shown = f" ({value_text(options)})" if options else ""
        rows.append(("environment", f"{value_text(environment.get('id'))}{shown}"))
    rows += [(key, value_text(value)) for key, value in _mapping(provenance, "machine").items()]
    if peaks := summary[PEAK_MEMORY]:
        names = {"main": "main process", "largest_worker": "largest worker", "gpu": "GPU"}
        shown = ", ".join(f"{names.get(name, name)} {number(value, 0)} MB" for name, value in peaks.items())
        rows.append(("peak memory", shown))
    return [(name, clipped(value)) for name, value in rows]


def frames_text(summary: Mapping[str, Any]) -> str:
    """Return which frames the policy sees, as "agentview, wrist, 128 x 128"."""
    spec = _mapping(summary["provenance"], "policy_spec")
    if not spec.get("cameras"):
        return "none"
    return (
        f"{value_text(spec['cameras'])}, {size_text(spec.get('image_size') or summary['protocol_card']['image_size'])}"
    )


def image_path_text(summary: Mapping[str, Any]) -> str:
    """Return what was done to a frame before the policy's network, as the policy's spec states it."""
    spec = _mapping(summary["provenance"], "policy_spec")
    if not spec.get("cameras"):
        return "none: the policy sees no frames"
    orientation = str(spec.get("image_orientation", "upright")).replace("_", " ")
    return str(spec.get("image_path") or f"{orientation}; the policy does not say what else it does")


def size_text(size: Sequence[int]) -> str:
    """Return (height, width) as "128 x 128"."""
    return " x ".join(str(pixels) for pixels in size)


def clipped(text: str) -> str:
    """Return ``text``, with an ellipsis where it is longer than a row."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} … (all of it: summary.json)"


def _policy_rows(spec: Mapping[str, Any]) -> Rows:
    if not spec:
        return []
    rows = [("policy", value_text(spec.get("name"))), ("policy reads", _reads(spec))]
    if action := _mapping(spec, "action"):
        rows.append(("policy actions", _action_text(action)))
    return rows


def _reads(spec: Mapping[str, Any]) -> str:
    parts = [*(spec.get("cameras") or ()), *(spec.get("state_keys") or ())]
    return ", ".join(map(str, parts + ["the simulator's state"] * bool(spec.get("reads_scene")))) or "nothing"


def _action_text(action: Mapping[str, Any]) -> str:
    if "translation_unit" not in action:
        return value_text(action)
    said = {key: value_text(value).replace("_", " ") for key, value in action.items()}
    return (
        f"{said.get('mode')} pose of the hand, {said['translation_unit']} m a unit; rotation {said.get('rotation')},"
        f" {said.get('rotation_unit')} rad a unit; gripper opens at {said.get('gripper_open')}, closes at"
        f" {said.get('gripper_closed')}"
    )


def _assets_text(assets: Mapping[str, Any]) -> str:
    kind = {"primitive": "generated stand-ins"}.get(assets.get("kind", ""), value_text(assets.get("kind")))
    details = ", ".join(f"{key} {str(assets[key])[:12]}" for key in ("digest", "revision") if assets.get(key))
    return kind + (f": {assets['path']}" if assets.get("path") else "") + (f" ({details})" if details else "")


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield a row for each value of nested mappings, which nobody reads as one line."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(f"{name} {str(key).replace('_', ' ')}", inner)
    else:
        yield name, _text(value)


def _text(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(one, Mapping) for one in value):
        return "; ".join(value_text(one["name"] if set(one) == {"name"} else one) for one in value) or ABSENT
    return value_text(value)


def _mapping(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = values.get(key)
    return found if isinstance(found, Mapping) else {}
