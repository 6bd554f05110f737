"""Starts a command: imports it by its name, and says in one sentence which package it lacks.

Light: nothing is imported here that could be absent, or that an early Ctrl-C could meet half imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

OURS = ("tformer", "vla_harness")
"""Packages of this distribution: one of their modules that is not there is a bug and keeps its traceback."""


def launch(module: str, extra: str = "tformer", arguments: Sequence[str] | None = None) -> int:
    """Import ``module``, run its ``main(arguments)`` and return the exit code.

    extra: of the distribution, that brings what the command imports; "" for a command that needs none.
    arguments: without the program's name; None for the command line's.
    2 and one sentence where a package is not installed, which is found out before the command does anything; 130 and
    one line for Ctrl-C while it is imported.
    """
    try:
        given = sys.argv[1:] if arguments is None else list(arguments)
        return int(import_module(module).main(given))
    except ModuleNotFoundError as error:
        print(f"error: {missing_package(error, extra)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def dispatch(
    program: str, commands: Mapping[str, tuple[str, str]], arguments: Sequence[str], start: Callable[..., int]
) -> int:
    """Hand over to the command that the first argument names and return its exit code; 2 and the usage without one.

    commands: name -> (module, purpose). start: as ``launch`` is called, with a module and ``arguments=``.
    """
    lines = [f"  {name:<18} {purpose}" for name, (_, purpose) in commands.items()]
    usage = "\n".join([f"usage: {program} COMMAND [--help]", "", "commands:", *lines])
    if list(arguments[:1]) in (["-h"], ["--help"]):
        print(usage)
        return 0
    if not arguments or arguments[0] not in commands:
        print(usage, file=sys.stderr)
        return 2
    return start(commands[arguments[0]][0], arguments=arguments[1:])


def missing_package(error: ModuleNotFoundError, extra: str, subject: str = "This command") -> str:
    """Return the sentence for a package that ``subject`` needs and that ``extra`` brings.

    Raises ``error`` again where a module of our own is missing, which is a bug.
    """
    name = (error.name or "").partition(".")[0]
    if not name or name in OURS:
        raise error
    wanted = f"'vla-harness[{extra}]'" if extra else "vla-harness"
    return f"{subject} needs {name}, which is not installed: run `pip install {wanted}`."
