"""``config.json``: the whole configuration of a run, and in what two of them may differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from .stored import check_config, read_json

CONFIG = "config.json"
REQUIRED = ("suite", "policy", "checkpoint", "protocol", "tasks", "trials", "seed")
MAY_DIFFER = ("workers", "engine", "replicas", "track", "out", "resume", "video", "server", "round", "command")
"""Fields of the configuration that cannot change a result, and so may differ on resume."""


def read_config(path: Path) -> dict[str, Any]:
    """Return the configuration of the run in ``path``. Raises UserError if there is none, or it is damaged."""
    try:
        config = read_json((path / CONFIG).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path} is not a run: it has no {CONFIG}.") from None
    except OSError as error:
        raise UserError(f"{path / CONFIG} cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise UserError(f"{path / CONFIG} is damaged ({error}): put back a copy of it.") from error
    if not isinstance(config, dict) or any(name not in config for name in REQUIRED):
        raise UserError(f"{path} is not a run: its {CONFIG} lacks one of {', '.join(REQUIRED)}.")
    check_config(config, path / CONFIG)
    return config


def config_differences(stored: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Return the dotted names of the fields in which two configurations differ, without those of ``MAY_DIFFER``."""
    left, right = json.loads(to_json(stored)), json.loads(to_json(given))
    for name in MAY_DIFFER:
        left.pop(name, None)
        right.pop(name, None)
    return _differences(left, right)


def extends(stored: Mapping[str, Any], given: Mapping[str, Any], differing: Sequence[str]) -> bool:
    """Return whether ``given`` is the stored configuration with more trials; differing: ``config_differences``."""
    return list(differing) == ["trials"] and given["trials"] > stored["trials"]


def _differences(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[str]:
    names = []
    for name in {**left, **right}:
        one, other = left.get(name), right.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            names += [f"{name}.{inner}" for inner in _differences(one, other)]
        elif one != other:
            names.append(name)
    return names


def to_json(value: Mapping[str, Any], indent: int | None = None) -> str:
    """Return ``value`` as JSON; raises ValueError for a number that is not finite."""
    return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
