"""The policies by name. Each entry is a dotted path, imported when the policy is loaded and not before."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, get_type_hints

from docstring_parser import parse as parse_docstring

from tformer.launch import missing_package
from tformer.values import BadValue, check_value, read_value

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


EXTRAS = {"remote": "server"}
"""Policy -> extra that brings what it imports; the others are networks, of the extra "vla"."""

OWN_FLAGS = ("checkpoint", "precision", "device", "unnorm_key")
"""Options of policies that the evaluation commands have a flag for."""

ACTION = "action"
"""Option of policies that write whatever actions an environment takes: its ``ActionConvention``."""


def available_policies() -> tuple[str, ...]:
    """Return the names that ``load_policy`` knows."""
    return tuple(POLICIES)


def load_policy(name: str, **options: Any) -> Policy:
    """Build the policy ``name``; ``options`` are the keyword arguments of its class.

    Options whose value is None are left to the class. Raises UserError for an unknown name, an option that the policy
    does not have or one that it needs, and a value that is not of the option's type or range.
    """
    policy_class = _policy_class(name)
    known = policy_options(name)
    given = {key: value for key, value in options.items() if value is not None}
    for key, value in given.items():
        option = _option(name, known, key)
        try:
            given[key] = checked = check_value(value, option.annotation)
            if checked in ("", (), []) or (isinstance(checked, tuple | list) and "" in checked):
                raise BadValue(f"is {value!r}, which is empty: give a value")
        except BadValue as error:
            raise UserError(f"The policy {name!r} cannot take its option {key!r}: {key} {error}.") from None
    for option in known.values():
        if option.required and option.name not in given:
            flag = f"--{_flag(option.name)}" if option.name in OWN_FLAGS else f"--policy-option {option.name}=VALUE"
            raise UserError(f"The policy {name!r} needs the option {option.name!r}: give {flag}.")
    policy = policy_class(**given)
    stated = {option.name: option.default for option in known.values() if option.name not in ("**", ACTION)} | given
    policy.options = {key: value for key, value in stated.items() if key != ACTION}
    return policy


@dataclass(frozen=True)
class PolicyOption:
    """One option of a policy: a parameter of its class.

    default: None also where the class must be given a value. help: from the class's docstring, "" where it says none.
    """

    name: str
    annotation: Any
    default: Any
    required: bool
    help: str = ""


ANY_OPTION = PolicyOption("**", Any, None, False)


def policy_options(name: str) -> Mapping[str, PolicyOption]:
    """Return the options that ``load_policy(name, …)`` takes, by name; raises UserError for an unknown policy.

    A policy that takes any keyword has the entry ``**``, whose values are not checked.
    """
    policy_class = _policy_class(name)
    types = _annotations(policy_class)
    documented = parse_docstring(_function(policy_class).__doc__ or "").params
    helps = {part.arg_name: " ".join((part.description or "").split()) for part in documented}
    options = {}
    for key, parameter in inspect.signature(policy_class).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            options["**"] = ANY_OPTION
        else:
            required = parameter.default is parameter.empty
            default = None if required else parameter.default
            options[key] = PolicyOption(key, types.get(key, Any), default, required, helps.get(key, ""))
    return options


def policy_summary(name: str) -> str:
    """Return the first sentence of the policy's docstring; raises UserError for an unknown policy."""
    return " ".join((parse_docstring(_policy_class(name).__doc__ or "").short_description or "").split())


def typed_options(name: str, pairs: Sequence[str]) -> dict[str, Any]:
    """Return the options of the policy ``name`` that ``pairs`` state, such as "denoising_steps=8", with their types.

    Raises UserError for a pair without a value, an option that the policy does not have, a value of another type or out
    of range, an option given twice, or one of those that have a flag.
    """
    known = policy_options(name)
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not value.strip():
            raise UserError(f"--policy-option {pair} has no value: give KEY=VALUE.")
        if key in OWN_FLAGS:
            raise UserError(f"--policy-option {pair} has a flag of its own: give --{_flag(key)} {value}.")
        if key == ACTION:
            raise UserError(f"--policy-option {pair} is the environment's to say: leave it out.")
        if key in options:
            raise UserError(f"--policy-option {key} is given twice: give it once.")
        try:
            options[key] = read_value(value, _option(name, known, key).annotation)
        except BadValue as error:
            raise UserError(f"--policy-option {pair}: {key} {error}.") from None
    return options


def _option(policy: str, known: Mapping[str, PolicyOption], key: str) -> PolicyOption:
    if key not in known and "**" not in known:
        names = ", ".join(name for name in known if name != ACTION) or "none"
        raise UserError(f"The policy {policy!r} has no option {key!r}; its options: {names}.")
    return known.get(key, ANY_OPTION)


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _function(policy_class: Callable[..., Policy]) -> Callable[..., Any]:
    return policy_class.__init__ if isinstance(policy_class, type) else policy_class  # type: ignore[misc]


def _annotations(policy_class: Callable[..., Policy]) -> dict[str, Any]:
    """Return the types of the parameters, of which those that cannot be resolved are left out."""
    try:
        return get_type_hints(_function(policy_class), include_extras=True)
    except NameError:  # a policy of somebody else that imports its types for the type checker alone
        return {}


def _policy_class(name: str) -> Callable[..., Policy]:
    if name not in POLICIES:
        raise UserError(f"There is no policy {name!r}: choose one of {', '.join(POLICIES)}.")
    module, _, attribute = POLICIES[name].partition(":")
    try:
        return getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise UserError(missing_package(error, EXTRAS.get(name, "vla"), f"The policy {name!r}")) from None
