"""Errors that a user can mend: one sentence, exit code 2, no traceback (see ``tformer.command``)."""

from tformer.errors import CommandFailed, UserError

__all__ = ["AssetError", "CheckpointError", "ConventionError", "RunFailed", "UserError"]


class ConventionError(UserError):
    """Two specs state conventions that no known conversion joins, or leave one unstated."""


class AssetError(UserError):
    """Simulation assets are missing, incomplete or could not be fetched."""


class CheckpointError(UserError):
    """A checkpoint is not there, incomplete, broken, or of another model."""


class RunFailed(CommandFailed):
    """The run cannot go on, though nothing was asked wrongly; the message is one sentence."""
