"""What a server says of its policy, checked before the first episode: servers may be older, newer or something else."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, fields, replace
from functools import cache
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from vla_harness.types import ActionConvention, ImageOrientation, JointConvention, PolicySpec

from ..client import ServerError

MAX_HORIZON = 10_000
"""Most actions of one answer that are believed."""
_MOST_NAMES = 64
_LARGEST = {"state_lengths": 10_000, "image_size": 16_384, "horizon": MAX_HORIZON}
_STATED = ("name", "action", "cameras", "image_orientation", "state_keys", "horizon")
"""Fields of the spec that decide what is sent and how answers are read; for others a default is no danger."""


def read_spec(metadata: Any, url: str) -> PolicySpec:
    """Return the spec that one of this project's servers states; JSON has lists for tuples and null for nan.

    Raises ServerError in one sentence for a field that is missing, unknown, of another type or out of range.
    """
    said = dict(table(metadata, "spec", url))
    action = dict(table(said, "action", url, "spec."))
    is_joints = str(action.get("mode")).startswith("joint_")
    kind: type[ActionConvention | JointConvention] = JointConvention if is_joints else ActionConvention
    required = [field.name for field in fields(kind) if field.default is MISSING]
    _check_names(action, kind, required, "spec.action.", url)
    _check_names(said, PolicySpec, _STATED, "spec.", url)
    said["action"] = {key: math.nan if value is None else value for key, value in action.items()}
    try:
        spec = _adapter().validate_json(json.dumps(said), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part not in (kind.__name__, "dataclass"))
        raise _odd(url, f"spec.{place}", first["input"], first["msg"]) from None
    except (TypeError, ValueError, RecursionError):
        raise _odd(url, "spec", said, "plain data is expected") from None
    _check_ranges(spec, url)
    return replace(spec, max_batch=_count(metadata, "max_batch", url))


def provenance_of(metadata: Mapping[str, Any], url: str) -> dict[str, Any]:
    """Return what one of this project's servers says of its policy, with the server's address; raises ServerError."""
    return {**table(metadata, "provenance", url), "server": url, "server_policy": str(metadata.get("policy"))}


def client_images(metadata: Mapping[str, Any], url: str) -> ImageOrientation:
    """Return how clients of other protocols send frames to one of this project's servers; raises ServerError."""
    said: Any = metadata.get("client_images")
    if said not in get_args(ImageOrientation):
        raise _odd(url, "client_images", said, f"one of {', '.join(get_args(ImageOrientation))} is expected")
    return said


def table(metadata: Any, key: str, url: str, path: str = "", optional: bool = False) -> Mapping[str, Any]:
    """Return the map under ``key``; {} where it is ``optional`` and missing or null. Raises ServerError."""
    value = metadata.get(key) if isinstance(metadata, Mapping) else None
    if optional and value is None:
        return {}
    if not isinstance(value, Mapping):
        raise _odd(url, f"{path}{key}", value, "a map is expected")
    return value


@cache
def _adapter() -> TypeAdapter[PolicySpec]:
    return TypeAdapter(PolicySpec)


def _check_names(said: Mapping[str, Any], kind: type, required: Any, path: str, url: str) -> None:
    for name in required:
        if name not in said:
            raise ServerError(f"{url} does not state {path}{name}, so that what its policy means is not known")
    known = {field.name for field in fields(kind)}
    for name in said:
        if name not in known:
            raise ServerError(f"{url} states {path}{name}, which this version does not know (update the older of both)")


def _check_ranges(spec: PolicySpec, url: str) -> None:
    for name in ("cameras", "state_keys"):
        value = getattr(spec, name)
        if len(value) > _MOST_NAMES or len(set(value)) < len(value) or not all(value):
            raise _odd(url, f"spec.{name}", value, f"at most {_MOST_NAMES} names, each once, are expected")
    for name, most in _LARGEST.items():
        value = getattr(spec, name)
        numbers = value if isinstance(value, tuple) else (value,)
        if value is not None and not all(1 <= number <= most for number in numbers):
            raise _odd(url, f"spec.{name}", value, f"numbers from 1 to {most} are expected")
    action = spec.action
    arms = action.joints if isinstance(action, JointConvention) else (action.arms,)
    if not 1 <= len(arms) <= 8 or not all(1 <= count <= 64 for count in arms):
        raise _odd(url, "spec.action", list(arms), "1 to 8 arms are expected")


def _count(metadata: Mapping[str, Any], key: str, url: str) -> int:
    value = metadata.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 2**20:
        raise _odd(url, key, value, "a whole number of 1 or more is expected")
    return value


def _odd(url: str, place: str, value: Any, expected: str) -> ServerError:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else f"{shown[:60]}…"
    return ServerError(f"{url} states {shown} as {place} of its metadata ({expected})")
