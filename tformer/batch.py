"""What one training step reads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Tokens in and the tokens that should come out, one step later; for translation also the source."""

    inputs: Tensor
    """(B, T) integers."""
    targets: Tensor
    """(B, T) integers: ``targets[:, t]`` follows ``inputs[:, t]``."""
    source: Tensor | None = None
    """(B, S) integers."""
    source_mask: Tensor | None = None
    """(B, 1, 1, S), False at padding."""

    def to(self, device: torch.device) -> Batch:
        """Return the batch on ``device``."""
        moved = (
            None if x is None else x.to(device, non_blocking=True)
            for x in (self.inputs, self.targets, self.source, self.source_mask)
        )
        return Batch(*moved)  # type: ignore[arg-type]  # the first two are never None
