"""Starts a command: imports it by its name, and says in one sentence which package it lacks.

Light: nothing is imported here that could be absent, or that an early Ctrl-C could meet half imported.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module

OURS = ("tformer", "vla_harness")
"""Packages of this distribution: one of their modules that is not there is a bug and keeps its traceback."""


def launch(module: str, extra: str = "tformer", arguments: Sequence[str] | None = None) -> int:
    """Import ``module``, run its ``main(arguments)`` and return the exit code.

    extra: of the distribution, that brings what the command imports; "" for a command that needs none.
    arguments: without the program's name; None for the command line's.
    2 and one sentence where a package is not installed, which is found out before the command does anything; 130 and
    one line for Ctrl-C while it is imported; 1 where its output cannot be written.
    """
    try:
        mend_streams()
        if not _is_somewhere():
            print("error: the current folder is gone: change to one that is there.", file=sys.stderr)
            return 2
        given = sys.argv[1:] if arguments is None else list(arguments)
        try:
            code = int(import_module(module).main(given))
        except SystemExit as left:  # --help
            code = int(left.code or 0)
        sys.stdout.flush()
        return code
    except ModuleNotFoundError as error:
        print(f"error: {missing_package(error, extra)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except OSError as error:
        if not isinstance(sys.stdout, Output) or error is not sys.stdout.error:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else it fails once more at the exit
        if not isinstance(error, BrokenPipeError):  # else the reader has seen enough, as `| head` has
            print(f"failed: the output cannot be written ({error.strerror or error}).", file=sys.stderr)
        return 1


class Output(io.TextIOWrapper):
    """A standard output that knows the error that it failed with, which is not some file's."""

    error: OSError | None = None

    def write(self, text: str) -> int:
        """Write; keep what is raised."""
        try:
            return super().write(text)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        """Flush; keep what is raised."""
        try:
            super().flush()
        except OSError as error:
            self.error = error
            raise


class Diagnostics(io.TextIOWrapper):
    """A standard error whose reader may have gone and whose disk may be full: that ends no run."""

    def write(self, text: str) -> int:
        """Write what can be written."""
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        """Flush what can be flushed."""
        with suppress(OSError, ValueError):
            super().flush()


def mend_streams() -> None:
    """Open what the shell has closed, so that no file of the command's takes its number, and let no message fail."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            nothing = os.open(os.devnull, os.O_RDWR)
            if nothing != number:
                os.dup2(nothing, number, inheritable=False)
                os.close(nothing)
            os.set_inheritable(number, True)
            stream = open(number, mode, encoding="utf-8", errors="replace")  # noqa: SIM115 - it stays open
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
    for name, kind in (("stdout", Output), ("stderr", Diagnostics)):
        stream = getattr(sys, name)
        if type(stream) is io.TextIOWrapper:
            mended = kind(
                stream.buffer,
                encoding=stream.encoding,
                errors=stream.errors,
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            )
            setattr(sys, name, mended)


def _is_somewhere() -> bool:
    """Return whether the current folder is there still; torch ends the process where it is not."""
    try:
        return bool(os.getcwd())
    except OSError:
        return False


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
