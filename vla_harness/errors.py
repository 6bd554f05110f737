"""Errors that a user can mend: one sentence, exit code 2, no traceback (see ``tformer.command``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tformer.errors import CommandFailed, UserError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["AssetError", "CheckpointError", "ConventionError", "EpisodesLost", "RunFailed", "UserError"]


class ConventionError(UserError):
    """Two specs state conventions that no known conversion joins, or leave one unstated."""


class AssetError(UserError):
    """Simulation assets are missing, incomplete or could not be fetched."""


class CheckpointError(UserError):
    """A checkpoint is not there, incomplete, broken, or of another model."""


class RunFailed(CommandFailed):
    """The run cannot go on, though nothing was asked wrongly; the message is one sentence."""


class EpisodesLost(Exception):
    """What a policy remembered of some episodes is gone, so that they must be played again from their start.

    chunks: (horizon, action_dim) float32 actions for each observation of the batch, None for the lost episodes'.
    """

    def __init__(self, sentence: str, chunks: Sequence[np.ndarray | None]) -> None:
        super().__init__(sentence)
        self.chunks = chunks
