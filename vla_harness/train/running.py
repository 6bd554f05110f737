"""What the training commands do alike."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from tformer.training import TrainOptions, list_checkpoints

from ..command import parse_options, run_command
from ..errors import UserError

Options = TypeVar("Options", bound=TrainOptions)
EXPORT = "export"
"""Folder of the trained checkpoint, in --out."""


def run_training(
    options: type[Options], arguments: Sequence[str] | None, name: str, training: Callable[[Options], object]
) -> int:
    """Run ``training`` with the options of the command ``name``, and return the exit code."""

    def command() -> None:
        chosen = parse_options(options, arguments, f"python -m vla_harness.train {name}")
        _check_export(chosen.out, chosen.resume)
        training(chosen)

    return run_command(command)


def _check_export(out: Path, resume: str | None) -> None:
    """Raise UserError where the export would be written over something that this training did not make."""
    if not resume and not list_checkpoints(out) and os.path.lexists(out / EXPORT):  # the trainer looks at checkpoints
        raise UserError(f"{out / EXPORT} exists already: add --resume latest, or choose another --out.")
