"""What a sitting's provenance holds that is measured and decides no score: memory, times of batches, the cluster."""

from __future__ import annotations

import resource
import sys

PEAK_MEMORY = "peak_memory_mb"
"""Name of the peaks in a sitting's provenance and in the summary."""
BATCH_TIMES = "batch_times"
"""Name of the times of the policy's answers in a sitting's provenance (see ``BatchTimes.as_data``)."""
MEASURED = (PEAK_MEMORY, BATCH_TIMES, "ray")
"""Parts in which sittings may differ."""

_BYTES = 1 if sys.platform == "darwin" else 1024
"""Of one unit of ru_maxrss."""


def peak_memory_mb() -> dict[str, float]:
    """Return the peaks so far in megabytes: this process, the largest of its ended children, and the GPU's tensors.

    "gpu" is there only when torch has used CUDA in this process; it counts what torch allocated.
    """
    peaks = {
        "main": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _BYTES / 1e6,
        "largest_worker": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * _BYTES / 1e6,
    }
    torch = sys.modules.get("torch")  # not imported to find out
    if torch is not None and torch.cuda.is_initialized():
        peaks["gpu"] = torch.cuda.max_memory_allocated() / 1e6
    return peaks
