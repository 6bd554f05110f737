"""``vla-harness policies [NAME]``: the policies, or one with its options."""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys

    from vla_harness.launch import launch

    sys.exit(launch("vla_harness.__main__", ["policies", *sys.argv[1:]]))

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from tformer.values import describe

from ..command import DONE, parse_options
from ..errors import UserError
from ..registry import ACTION, OWN_FLAGS, available_policies, policy_options, policy_summary

WIDTH = 100
"""Columns of a help text."""


@dataclass(frozen=True, kw_only=True)
class Policies:
    """List the policies, or say which options one has: their types, defaults and meaning.

    Exit codes: 0 done, 2 something to put right in the command.
    """

    name: Annotated[Positional[str | None], arg(metavar="NAME", help_behavior_hint="(default: list them)")] = None
    """Policy whose options are said."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; ``arguments`` without the program's name. Returns the exit code."""
    options = parse_options(Policies, arguments, "vla-harness policies")
    print(_table() if options.name is None else policy_text(options.name))
    return DONE


def _table() -> str:
    lines = []
    for name in available_policies():
        try:
            summary = policy_summary(name)
        except UserError as error:  # a package is missing, and the others are listed nevertheless
            summary = str(error)
        lines.append(f"{name:<10} {summary}")
    return "\n".join([*lines, "", "`vla-harness policies NAME` lists a policy's options."])


def policy_text(name: str) -> str:
    """Return what there is to say of the policy ``name``: its summary, and each option as a command takes it."""
    lines = [f"{name}: {policy_summary(name)}"]
    for option in policy_options(name).values():
        if option.name == ACTION:
            continue
        if option.name == "**":
            lines += ["", "--policy-option KEY=VALUE", "    Any other, which the policy reads itself."]
            continue
        flag = f"--{option.name.replace('_', '-')} " if option.name in OWN_FLAGS else f"--policy-option {option.name}="
        default = "required" if option.required else f"default: {_shown(option.default)}"
        lines += ["", f"{flag}VALUE   {describe(option.annotation, ranges=True)} ({default})"]
        lines += textwrap.wrap(option.help, WIDTH, initial_indent="    ", subsequent_indent="    ")
    if len(lines) == 1:
        lines.append("It has no options.")
    return "\n".join(lines)


def _shown(default: object) -> str:
    if isinstance(default, tuple | list):
        return ",".join(map(str, default))
    return str(default).lower() if default is None or isinstance(default, bool) else str(default)
