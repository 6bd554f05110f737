"""Errors that a user can mend: one sentence, exit code 2, no traceback."""


class UserError(Exception):
    """Something the user can put right; the message is one sentence that says what to do.

    Commands print it as ``error: <message>`` and leave with exit code 2 (see ``vla_harness.command``).
    """


class ConventionError(UserError):
    """Two specs state conventions that no known conversion joins, or leave one unstated."""


class AssetError(UserError):
    """Simulation assets are missing, incomplete or could not be fetched."""


class CheckpointError(UserError):
    """A checkpoint is not there, incomplete, broken, or of another model."""


class RunFailed(Exception):
    """The run cannot go on, though nothing was asked wrongly; the message is one sentence. Exit code 1."""
