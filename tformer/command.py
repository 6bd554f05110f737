"""What all commands do alike: options from a dataclass, their ranges, one-sentence errors, exit codes."""

from __future__ import annotations

import dataclasses
import io
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, TextIO, TypeVar

import tyro

from .errors import CommandFailed, UserError, disk_is_full, refused_path
from .option_fields import description, field_types, merge_repeated, registry
from .printing import printable
from .values import BadValue, check_value

DONE, FAILED, BAD_USAGE, INTERRUPTED = 0, 1, 2, 130

FULL_DISK = "no space is left on the disk that is written to; free some and give the command again."

Options = TypeVar("Options")


def run_command(command: Callable[[], int | None]) -> int:
    """Run ``command`` and return the exit code: what it returns, or 1 failed, 2 something to mend, 130 interrupted.

    Whatever is none of the errors for users, Ctrl-C, a full disk or a refused path is a bug and keeps its traceback.
    """
    _open_standard_streams()
    try:
        try:
            return _exit_code(command)
        finally:
            sys.stdout.flush()  # here, because the interpreter's own flush at exit ends in a traceback
    except OSError as error:  # of stdout or stderr
        broken = isinstance(error, BrokenPipeError)  # the reader of our output left, as `| head` does
        if not broken and not disk_is_full(error):
            raise
        for stream in (sys.stdout, sys.stderr) if broken else (sys.stdout,):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return FAILED if broken else _say(f"failed: the output cannot be written: {error.strerror}.", FAILED)


def _open_standard_streams() -> None:
    """Let a dash that the terminal cannot show cost no table, and a closed stream no file that would get its number."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
        if mode == "w" and isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _exit_code(command: Callable[[], int | None]) -> int:
    try:
        return command() or DONE
    except UserError as error:
        return _say(f"error: {error}", BAD_USAGE)
    except CommandFailed as error:
        return _say(f"failed: {error}", FAILED)
    except KeyboardInterrupt as error:
        return _say(f"interrupted: {error}" if error.args else "interrupted", INTERRUPTED)
    except Exception as error:
        if told := refused_path(error):
            return _say(f"error: {told}", BAD_USAGE)
        if not disk_is_full(error):
            raise
        return _say(f"failed: {FULL_DISK}", FAILED)


def parse_options(
    options: type[Options], arguments: Sequence[str] | None, program: str, default: Options | None = None
) -> Options:
    """Return ``options``, a dataclass whose field docstrings are the help, filled from the command line.

    arguments: without the program's name; None for ``sys.argv``. default: the values of a preset.
    Raises UserError for bad usage, in one sentence.
    """
    arguments = merge_repeated(options, sys.argv[1:] if arguments is None else arguments)
    complaint = io.StringIO()
    try:
        with redirect_stderr(complaint), redirect_stdout(_HelpPage(sys.stdout)):
            parsed = tyro.cli(
                options,
                args=arguments,
                prog=program,
                description=description(options),
                default=tyro.MISSING_NONPROP if default is None else default,
                registry=registry(),
            )
    except SystemExit as left:
        if not left.code:  # --help
            raise
        raise UserError(f"{_sentence(complaint.getvalue())}; `{program} --help` explains every option.") from None
    check_options(parsed)
    return parsed


def check_options(options: Any, prefix: str = "--") -> None:
    """Raise UserError for the first field of a dataclass whose value its type does not allow, naming its flag."""
    cls: type = type(options)
    for name, annotation in field_types(cls).items():
        flag, value = prefix + name.replace("_", "-"), getattr(options, name)
        try:
            check_value(value, annotation)
        except BadValue as error:
            raise UserError(f"{flag} {error}.") from None
        if dataclasses.is_dataclass(value):
            check_options(value, f"{flag}.")


class _HelpPage(io.TextIOBase):
    """Passes help on to the terminal, whose width tyro heeds in its boxes but not in the text above them."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @property
    def encoding(self) -> str:  # type: ignore[override]  # what tyro draws its boxes by
        return self._stream.encoding

    def write(self, text: str) -> int:
        width = shutil.get_terminal_size().columns
        lines = [
            textwrap.fill(line, width) if len(line) > width and line[:1].isalpha() else line
            for line in text.split("\n")
        ]
        return self._stream.write("\n".join(lines))


def _say(text: str, code: int) -> int:
    print(printable(text), file=sys.stderr)
    return code


def _sentence(complaint: str) -> str:
    """Return the message of one of tyro's texts: below a title, above a rule, in a box where stdout is UTF-8."""
    lines = [line.strip("│ ") for line in complaint.splitlines() if line[:1] not in ("╭", "╰")]
    parts = re.split(r"^[─-]{3,}$", "\n".join(lines), flags=re.MULTILINE)
    text = parts[0 if complaint.startswith("╭") else 1]
    text = re.split("Got errors:|Perhaps you meant:", text)[0]
    text = re.sub(r"\s+", " ", text).strip(" .:")
    text = re.sub(r" \.(?!\w)", ".", text)  # a full stop that the box's edge cut off; " .hdf5" stays
    return re.sub(r"no type matching \S+ could be instantiated from", "no value can be read from", text)
