"""What the commands of tformer do alike: options from a dataclass, one-sentence errors, exit codes."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from typing import TypeVar

import tyro

from .errors import TrainingFailed, UserError

Options = TypeVar("Options")


def run_command(command: Callable[[], None]) -> int:
    """Run ``command`` and return its exit code: 0 done, 1 failed, 2 something to mend, 130 interrupted."""
    try:
        command()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except TrainingFailed as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        print(f"interrupted: {error}" if error.args else "interrupted", file=sys.stderr)
        return 130
    return 0


def parse_options(
    options: type[Options], arguments: Sequence[str] | None, program: str, default: Options | None = None
) -> Options:
    """Return ``options``, a dataclass whose field docstrings are the help, filled from the command line.

    arguments: without the program's name; None for ``sys.argv``. default: the values of a preset.
    Raises UserError for bad usage, in one sentence.
    """
    complaint = io.StringIO()
    try:
        with redirect_stderr(complaint):
            return tyro.cli(
                options,
                args=arguments,
                prog=program,
                default=tyro.MISSING_NONPROP if default is None else default,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as left:
        if not left.code:  # --help
            raise
        lines = [line.strip("│ ") for line in complaint.getvalue().splitlines() if line.startswith("│")]
        text = re.split("───|Got errors:|Perhaps you meant:", "\n".join(lines))[0]
        text = re.sub(r"\s+", " ", text).strip(" .:")
        raise UserError(f"{text}; `{program} --help` explains every option.") from None
