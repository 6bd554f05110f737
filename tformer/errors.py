"""The two ways in which a command of tformer stops without a traceback."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can mend; the message is one sentence that says what to do. Exit code 2."""


class TrainingFailed(Exception):
    """A training that cannot go on, such as a loss that is no number; the message is one sentence. Exit code 1."""
