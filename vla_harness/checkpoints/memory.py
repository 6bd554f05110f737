"""Whether a checkpoint's weights fit into a device's memory, asked before any is read."""

from __future__ import annotations

import torch

from ..errors import CheckpointError
from ..system_memory import GIB, available_bytes


def available(device: torch.device) -> float | None:
    """Return the GiB that are free on ``device``; None where this machine does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / GIB
    free = available_bytes()
    return None if free is None else free / GIB


def check_memory(needed: float, device: torch.device, name: str) -> None:
    """Raise CheckpointError where ``needed`` GiB are more than ``device`` has free; name: of the checkpoint."""
    free = available(device)
    if free is not None and needed > free:
        raise CheckpointError(
            f"The weights of {name} take {needed:.1f} GiB, and {free:.1f} GiB are free on {device}: use a smaller"
            " --precision, such as 4bit, or another machine."
        )
