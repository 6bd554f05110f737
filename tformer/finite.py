"""Weights that are no numbers: found while they are read, because a network with one writes nothing but NaN."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from .errors import UserError


def is_finite(tensor: Tensor) -> bool:
    """Return whether all entries are finite; NaN and infinity show in the smallest or largest, without a copy."""
    if not tensor.numel() or not tensor.is_floating_point():
        return True
    if tensor.element_size() == 1:  # float8, which knows no minimum
        tensor = tensor.float()
    return bool(torch.isfinite(torch.stack(torch.aminmax(tensor))).all())


def check_finite(tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Raise UserError that names the first tensor of the file ``path`` in which an entry is NaN or infinite."""
    for name, tensor in tensors.items():
        if not is_finite(tensor):
            raise UserError(f"{path} holds NaN or infinite numbers in {name}; name another, or train it again.")
