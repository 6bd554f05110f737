"""A module whose checkpoints hold what learns, and nothing that a starting checkpoint has already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


class Learner(nn.Module):
    """Base of the modules that the trainer trains when it fine-tunes."""

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return the weights that learn; the others are the starting checkpoint's."""
        return {name: p.detach() for name, p in self.named_parameters() if p.requires_grad}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Put back what ``state_dict`` returned."""
        learning = {name: p for name, p in self.named_parameters() if p.requires_grad}
        if learning.keys() != state_dict.keys():
            raise ValueError("the checkpoint holds other weights than those that learn")
        with torch.no_grad():
            for name, parameter in learning.items():
                parameter.copy_(state_dict[name])
