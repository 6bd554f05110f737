"""What the commands of tformer do alike: options from a dataclass, one-sentence errors, exit codes."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import tyro

from .errors import TrainingFailed, UserError, disk_is_full, refused_path

FULL_DISK = "no space is left on the disk that is written to; free some and give the command again."

Options = TypeVar("Options")


def run_command(command: Callable[[], None]) -> int:
    """Run ``command`` and return its exit code: 0 done, 1 failed, 2 something to mend, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a letter that the terminal cannot show must not end a training
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
    except Exception as error:
        if told := refused_path(error):
            print(f"error: {told}", file=sys.stderr)
            return 2
        if not disk_is_full(error):
            raise
        print(f"failed: {FULL_DISK}", file=sys.stderr)
        return 1
    return 0


def require_positive(options: object, *names: str) -> None:
    """Raise UserError for the first of these fields of ``options`` that is below 1."""
    for name in names:
        if getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(options, name)} is too small; give 1 or more.")


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
        raise UserError(f"{_sentence(complaint.getvalue())}; `{program} --help` explains every option.") from None


def merge_repeated(options: type[Any], arguments: Sequence[str]) -> list[str]:
    """Return ``arguments`` with the values of a repeated sequence option gathered behind its first flag.

    ``--dataset A --dataset B`` becomes ``--dataset A B``; tyro alone would keep only B without a word.

    Raises:
        UserError: an option that takes one value is given twice.
    """
    groups: list[list[str]] = [[]]  # each starts with a flag, but the first
    for argument in arguments:
        if re.match("--[A-Za-z]", argument):
            groups.append([])
        groups[-1].append(argument)
    merged, first = [groups[0]], dict[str, list[str]]()
    for group in groups[1:]:
        name, equals, value = group[0].partition("=")
        name = name.replace("_", "-")
        if name not in first or _is_appended(options, name[2:].replace("-", "_")):
            first[name] = group
            merged.append(group)
        elif _takes_several(options, name[2:].replace("-", "_")):
            first[name] += [value] * bool(equals) + group[1:]
        else:
            raise UserError(f"{name} is given twice; give it once.")
    return [argument for group in merged for argument in group]


def _takes_several(options: type[Any], field: str) -> bool:
    """Return True where ``field`` of the dataclass is a tuple or list, or an optional one."""
    kind = get_type_hints(options).get(field)
    return any(get_origin(each) in (tuple, list) for each in (kind, *get_args(kind)))


def _is_appended(options: type[Any], field: str) -> bool:
    """Return True where tyro itself gathers the values of a repeated ``field``."""
    return tyro.conf.UseAppendAction in get_args(get_type_hints(options, include_extras=True).get(field))


def _sentence(complaint: str) -> str:
    """Return the message of one of tyro's texts: below a title, above a rule, in a box where stdout is UTF-8."""
    lines = [line.strip("│ ") for line in complaint.splitlines() if line[:1] not in ("╭", "╰")]
    parts = re.split(r"^[─-]{3,}$", "\n".join(lines), flags=re.MULTILINE)
    text = parts[0 if complaint.startswith("╭") else 1]
    text = re.split("Got errors:|Perhaps you meant:", text)[0]
    return re.sub(r"\s+", " ", text).strip(" .:")
