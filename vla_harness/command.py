"""What all commands do alike, for the harness's own: the definitions are ``tformer.command``'s."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from tformer.command import (
    BAD_USAGE,
    DONE,
    FAILED,
    INTERRUPTED,
    check_options,
    parse_options,
    run_command,
)

__all__ = [
    "BAD_USAGE",
    "DONE",
    "FAILED",
    "INTERRUPTED",
    "check_options",
    "command_line",
    "parse_options",
    "run_command",
]


def command_line(program: str, arguments: Sequence[str] | None) -> str:
    """Return the command as it would be typed again, with secrets left out.

    program: what to call it where ``arguments`` are not those of the command line.
    """
    typed = arguments is None or list(arguments) == sys.argv[1:]
    words = [*_program(sys.argv[0]), *sys.argv[1:]] if typed else [program, *(arguments or ())]
    return re.sub(r"(token=)[^&\s']+", r"\1***", shlex.join(words))


def _program(path: str) -> list[str]:
    return ["python", path] if path.endswith(".py") else [Path(path).name]
