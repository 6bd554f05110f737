"""What all commands do alike: exit codes, one-sentence errors, and bad usage in one line."""

from __future__ import annotations

import io
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import TypeVar

import tyro

from tformer.command import FULL_DISK, merge_repeated
from tformer.errors import UserError as OptionError
from tformer.errors import disk_is_full, refused_path

from .errors import RunFailed, UserError
from .printing import printable

DONE, FAILED, BAD_USAGE, INTERRUPTED = 0, 1, 2, 130

Options = TypeVar("Options")


def run_command(command: Callable[[], int]) -> int:
    """Run ``command`` and return the exit code: what it returns, or 1 failed, 2 something to mend, 130 interrupted.

    Whatever is no UserError, RunFailed, KeyboardInterrupt, full disk or refused path is a bug and keeps its traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a dash that the terminal cannot show must not cost the table
    try:
        return command()
    except UserError as error:
        return _say(f"error: {error}", BAD_USAGE)
    except RunFailed as error:
        return _say(f"failed: {error}", FAILED)
    except KeyboardInterrupt as error:
        return _say(f"interrupted: {error}" if error.args else "interrupted", INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output left (as `| head` does); keep the interpreter from failing on it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if told := refused_path(error):
            return _say(f"error: {told}", BAD_USAGE)
        if not disk_is_full(error):
            raise
        return _say(f"failed: {FULL_DISK}", FAILED)


def parse_options(options: type[Options], arguments: Sequence[str] | None, program: str) -> Options:
    """Return ``options``, a dataclass whose field docstrings are the help, filled from the command line.

    arguments: without the program's name; None for ``sys.argv``. Raises UserError for bad usage, in one sentence.
    """
    complaint = io.StringIO()
    try:
        arguments = merge_repeated(options, sys.argv[1:] if arguments is None else arguments)
    except OptionError as error:
        raise UserError(str(error)) from None
    try:
        with redirect_stderr(complaint):
            return tyro.cli(options, args=arguments, prog=program, config=(tyro.conf.FlagCreatePairsOff,))
    except SystemExit as left:
        if not left.code:  # --help
            raise
        raise UserError(f"{_sentence(complaint.getvalue())}; `{program} --help` explains every option.") from None


def command_line(program: str, arguments: Sequence[str] | None) -> str:
    """Return the command as it would be typed again, with secrets left out.

    program: what to call it where ``arguments`` do not come from the command line.
    """
    words = [program, *arguments] if arguments is not None else [*_program(sys.argv[0]), *sys.argv[1:]]
    return re.sub(r"(token=)[^&\s']+", r"\1***", shlex.join(words))


def _program(path: str) -> list[str]:
    return ["python", path] if path.endswith(".py") else [Path(path).name]


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
