"""What the training commands do alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from tformer.errors import TrainingFailed
from tformer.errors import UserError as TrainingUserError

from ..command import DONE, parse_options, run_command
from ..errors import RunFailed, UserError

Options = TypeVar("Options")


def run_training(
    options: type[Options], arguments: Sequence[str] | None, name: str, training: Callable[[Options], object]
) -> int:
    """Run ``training`` with the options of the command ``name``, and return the exit code.

    tformer knows nothing of the harness, so that its errors become the harness's here.
    """

    def command() -> int:
        chosen = parse_options(options, arguments, f"python -m vla_harness.train {name}")
        try:
            training(chosen)
        except TrainingUserError as error:
            raise UserError(str(error)) from error
        except TrainingFailed as error:
            raise RunFailed(str(error)) from error
        return DONE

    return run_command(command)
