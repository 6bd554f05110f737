"""The types of what a run's files hold, checked when they are read: each odd value is one sentence with file and key.

Runs come from others, too. Keys that are not named here are kept as they are, because a later version may write more,
and nothing reads them but tables, which show any value.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypedDict, get_type_hints

from tformer.values import BadValue, NonNegativeFloat, PositiveInt, Range, check_value

from ..errors import UserError
from ..protocols import Protocol

Count = Annotated[int, Range(1, 10**6)]
TaskId = Annotated[int, Range(0, 10**6)]
Pixels = Annotated[int, Range(1, 2**14)]
StoredSeed = Annotated[int, Range(0, 2**63 - 1)]
Megabytes = Annotated[float, Range(0, 10**12)]


class _RunConfig(TypedDict):
    suite: str
    policy: str
    checkpoint: str | None
    protocol: dict[str, Any]
    tasks: list[TaskId]
    trials: Count
    seed: StoredSeed


class RunConfig(_RunConfig, total=False):
    """``config.json``, and the configuration of a sitting."""

    benchmark: str
    workers: Annotated[int, Range(0, 10**6)]
    command: str
    extended_from: Count


class _Assets(TypedDict, total=False):
    kind: str
    digest: str
    path: str | None


class _Spec(TypedDict, total=False):
    name: str
    cameras: list[str]
    image_size: tuple[Pixels, Pixels] | None
    image_orientation: str
    image_path: str | None
    state_keys: list[str]
    horizon: PositiveInt
    max_batch: PositiveInt
    reads_scene: bool
    action: dict[str, Any]


class _Machine(TypedDict, total=False):
    cpu: str
    cores: int | None
    gpus: list[str]


class _BatchTimes(TypedDict, total=False):
    sizes: dict[str, tuple[Annotated[float, Range(1)], NonNegativeFloat]]
    waits: tuple[Annotated[float, Range(1)], NonNegativeFloat]


class _Ray(TypedDict, total=False):
    nodes: PositiveInt
    copies: PositiveInt


class _Environment(TypedDict):
    id: str
    options: dict[str, Any]


class _RecordedEnvironment(_Environment, total=False):
    action: dict[str, Any]


class Provenance(TypedDict, total=False):
    """What a sitting ran on, as ``collect_provenance`` and the policies state it."""

    versions: dict[str, str | None]
    device: str | None
    precision: str | None
    checkpoint: str | None
    checkpoint_sha256: str | None
    git_revision: str | None
    gl_backend: str | None
    assets: _Assets
    policy_spec: _Spec
    machine: _Machine
    kernels: dict[str, str]
    peak_memory_mb: dict[str, Megabytes]
    batch_times: _BatchTimes
    ray: _Ray
    environment: _RecordedEnvironment


_CARD = get_type_hints(Protocol, include_extras=True) | {
    "trials": Count,
    "max_steps": dict[str, Annotated[int, Range(1, 10**7)]],
    "actions_per_inference": PositiveInt | None,
    "environment_seed": Annotated[int, Range(0, 2**32 - 1)] | None,
    "settle_steps": Annotated[int, Range(0, 10**6)],
    "image_size": tuple[Pixels, Pixels],
}
"""Types of the protocol's fields, with ranges that a run's file must keep to."""


def read_json(text: str) -> Any:
    """Return what ``text`` holds; raises ValueError for bad JSON, numbers that are none, and nesting without end."""
    try:
        return json.loads(text, parse_constant=_finite, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def check_config(config: Any, file: Path) -> None:
    """Raise UserError unless ``config``, which ``file`` holds, is a run's configuration."""
    _check(config, RunConfig, file)
    _protocol_values(config, file, ("name",))


def check_sitting(config: Mapping[str, Any], provenance: Mapping[str, Any], file: Path) -> None:
    """Raise UserError unless a sitting in ``file`` has the types that readers count on; both may be empty."""
    if config:
        check_config(config, file)
    _check(provenance, Provenance, file)
    times = provenance.get("batch_times", {})
    if missing := {"sizes", "waits"} - set(times or {"sizes", "waits"}):
        _refuse(file, ("batch_times", min(missing)), BadValue("is missing"))
    for size in times.get("sizes", {}):
        if not (size.isascii() and size.isdecimal() and len(size) < 10):
            _refuse(file, ("batch_times", "sizes", size), BadValue("is no number of questions"))


def protocol_of(config: Mapping[str, Any], file: Path) -> Protocol:
    """Return the protocol that a run was played under. Raises UserError for settings that are not known here."""
    if unknown := sorted(set(config["protocol"]) - set(_CARD)):
        raise UserError(
            f"{file} has settings of the protocol that this version does not know ({', '.join(unknown)[:200]}): use"
            " the version that played the run."
        )
    required = [field.name for field in fields(Protocol) if field.default is MISSING]
    return Protocol(**_protocol_values(config, file, required))


def _protocol_values(config: Mapping[str, Any], file: Path, required: Sequence[str]) -> dict[str, Any]:
    """Return the protocol's values with their types; an older version may have written fewer than ``fields``."""
    card, values = config["protocol"], {}
    for field in fields(Protocol):
        path = ("protocol", field.name)
        if field.name in card:
            try:
                values[field.name] = check_value(card[field.name], _CARD[field.name])
            except BadValue as error:
                _refuse(file, (*path, *error.path), error)
        elif field.name in required:
            _refuse(file, path, BadValue("is missing"))
    return values


def _check(value: Any, kind: Any, file: Path) -> None:
    try:
        check_value(value, kind)
    except BadValue as error:
        _refuse(file, error.path, error)


def _refuse(file: Path, path: tuple[str, ...], error: BadValue) -> NoReturn:
    key = ".".join(path) or "the whole"
    raise UserError(f"{file} is damaged ({key} {error}): put back a copy of it.") from None


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):  # also of -Infinity and 1e999
        raise ValueError(f"{text[:20]} is no number")
    return number
