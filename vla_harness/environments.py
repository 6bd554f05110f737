"""Environments that a run's file may name: those of the harness, and those whose module is imported already.

A run may come from somebody else. gymnasium imports whatever module an id names, and hands it the options.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

import gymnasium

from tformer.values import BadValue, check_value

from .errors import UserError

OWN = "vla_harness.envs"
OF_THE_EPISODE = ("task", "observations", "suite", "render_mode")
"""Options that whoever plays an episode gives, or the id stands for."""


def check_environment(gymnasium_id: str, options: Mapping[str, Any], file: Path) -> None:
    """Raise UserError, that names ``file``, unless the id is registered here and takes these options.

    Nothing is imported but the harness's own environments.
    """
    module, _, name = gymnasium_id.rpartition(":")
    import_module(OWN)
    spec = gymnasium.registry.get(name)
    entry_point = spec.entry_point if spec is not None else None
    owner, _, attribute = entry_point.partition(":") if isinstance(entry_point, str) else ("", "", "")
    own = module == OWN and owner.startswith(f"{OWN}.")
    imported = module == owner and module in sys.modules and not module.startswith("gymnasium.")
    if not own and not imported:
        _refuse(file, f"the environment {gymnasium_id!r} is none that this program registers")
    constructor: Callable[..., None] = getattr(import_module(owner), attribute).__init__
    types = get_type_hints(constructor, include_extras=True)
    for key, value in options.items():
        if key not in signature(constructor).parameters or key in ("self", *OF_THE_EPISODE):
            _refuse(file, f"the environment {name} has no option {key!r}")
        try:
            check_value(value, types.get(key, Any))
        except BadValue as error:
            _refuse(file, f"the environment's option {key} {error}")


def _refuse(file: Path, problem: str) -> NoReturn:
    raise UserError(f"{file}: {problem}: play a run of your own, or put back a copy of the file.")
