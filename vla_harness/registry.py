"""The policies by name. Each entry is a dotted path, imported when the policy is loaded and not before."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from .errors import UserError
from .types import Policy

POLICIES = {
    "tformer": "vla_harness.policies.tformer.policy:TformerPolicy",
    "scripted": "vla_harness.envs.experts.policy:ScriptedPolicy",
    "noop": "vla_harness.policies.basic:NoopPolicy",
    "random": "vla_harness.policies.basic:RandomPolicy",
    "replay": "vla_harness.policies.replay:ReplayPolicy",
    "remote": "vla_harness.servers.remote.policy:RemotePolicy",
    "openvla": "vla_harness.policies.openvla.policy:openvla_policy",
    "groot": "vla_harness.policies.groot.policy:GrootPolicy",
}


OWN_FLAGS = ("checkpoint", "precision", "device", "unnorm_key")
"""Options of policies that the evaluation commands have a flag for."""

ACTION = "action"
"""Option of policies that write whatever actions an environment takes: its ``ActionConvention``."""

_TYPES: dict[str, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "bool": {"true": True, "True": True, "false": False, "False": False}.__getitem__,
}


def available_policies() -> tuple[str, ...]:
    """Return the names that ``load_policy`` knows."""
    return tuple(POLICIES)


def load_policy(name: str, **options: Any) -> Policy:
    """Build the policy ``name``; ``options`` are the keyword arguments of its class.

    Options whose value is None are left to the class. Raises UserError for an unknown name, an option that the policy
    does not have, or one that it needs.
    """
    policy_class = _policy_class(name)
    given = {key: value for key, value in options.items() if value is not None}
    parameters = inspect.signature(policy_class).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for key in given:
            if key not in parameters:
                known = ", ".join(name for name in parameters if name != ACTION) or "none"
                raise UserError(f"The policy {name!r} has no option {key!r}; its options: {known}.")
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD and key not in given:
            raise UserError(f"The policy {name!r} needs the option {key!r}: give --{key.replace('_', '-')}.")
    return policy_class(**given)


def policy_options(name: str) -> tuple[str, ...]:
    """Return the options that ``load_policy(name, …)`` takes; raises UserError for an unknown name."""
    return tuple(inspect.signature(_policy_class(name)).parameters)


def typed_options(name: str, pairs: Sequence[str]) -> dict[str, Any]:
    """Return the options of the policy ``name`` that ``pairs`` state, such as "denoising_steps=8", with their types.

    Raises UserError for a pair without a value, a value of another type, or one of the options that have a flag.
    """
    parameters = inspect.signature(_policy_class(name)).parameters
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"--policy-option {pair} has no value: give KEY=VALUE.")
        if key in OWN_FLAGS:
            raise UserError(f"--policy-option {pair} has a flag of its own: give --{key.replace('_', '-')} {value}.")
        if key == ACTION:
            raise UserError(f"--policy-option {pair} is the environment's to say: leave it out.")
        kinds = str(parameters[key].annotation).split(" | ") if key in parameters else []
        try:
            options[key] = next((_TYPES[kind](value) for kind in kinds if kind in _TYPES), value)
        except (KeyError, ValueError):
            raise UserError(f"--policy-option {pair}: {key} is {' or '.join(kinds)}, and {value!r} is none.") from None
    return options


def _policy_class(name: str) -> Callable[..., Policy]:
    if name not in POLICIES:
        raise UserError(f"There is no policy {name!r}: choose one of {', '.join(POLICIES)}.")
    module, _, attribute = POLICIES[name].partition(":")
    try:
        return getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("vla_harness"):
            raise
        raise UserError(
            f"The policy {name!r} needs {error.name}, which is not installed: pip install 'vla-harness[vla]' for"
            " networks, 'vla-harness[server]' for remote policies."
        ) from None
