"""What a machine can do at best: the rate of a large product of matrices, and of reading memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch


def milliseconds(function: Callable[[], Any], device: torch.device) -> float:
    """Return how long one call of ``function`` took, work on the device included."""
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return 1e3 * (time.perf_counter() - start)


def rates(device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
    """Return (operations per second, bytes per second): the best of ten large products and of ten large sums."""
    side = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    many = torch.randn(2**30 if device.type == "cuda" else 2**25, device=device, dtype=dtype)
    product = min(milliseconds(lambda: a @ b, device) for _ in range(10))
    total = min(milliseconds(many.sum, device) for _ in range(10))
    return 2e3 * side**3 / product, 1e3 * many.nbytes / total
