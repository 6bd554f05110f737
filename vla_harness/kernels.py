"""Which kernels of BLAS and ATen compute: they choose by processor, and the last bits of states and actions follow.

OpenBLAS, which the simulators' controllers call for matrices of a few rows, is held to one choice that most processors
have, so that states are the same on all of them; a network's kernels decide its speed and are only recorded.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

KERNELS = "kernels"
"""Name of the record in a sitting's provenance."""
SERVER_KERNELS = "server_kernels"
"""Name of the record that a server adds to its policy's provenance."""
VARIABLE = "OPENBLAS_CORETYPE"
CORE = "Haswell"
"""Kernels for AVX2 and FMA, which x86-64 processors of Intel have since 2013 and of AMD since 2015."""


def fixed_kernels() -> dict[str, str]:
    """Return what a process that simulates finds in its environment before numpy is imported.

    Nothing where the processor lacks these kernels, or where the user has chosen others; the record says which.
    """
    return {} if os.environ.get(VARIABLE) or not _has_core() else {VARIABLE: CORE}


def kernels() -> dict[str, str]:
    """Return the kernels by what uses them: ``simulator``, OpenBLAS's where it simulates, and the policy's."""
    simulator = os.environ.get(VARIABLE) or fixed_kernels().get(VARIABLE) or _numpys_core()
    return {"simulator": simulator} | policy_kernels()


def policy_kernels() -> dict[str, str]:
    """Return the kernels of this process, where a policy is, by what uses them; "" for an unknown choice.

    numpy: OpenBLAS's. aten, mkl, onednn: torch's, "" before it is imported; of the last two only what the environment
    orders.
    """
    torch = sys.modules.get("torch")  # not imported to find out
    return {
        "numpy": _numpys_core(),
        "aten": torch.backends.cpu.get_cpu_capability() if torch is not None else "",
        "mkl": os.environ.get("MKL_CBWR", "") if torch is not None else "",
        "onednn": os.environ.get("ONEDNN_MAX_CPU_ISA", "") if torch is not None else "",
    }


def _numpys_core() -> str:
    """Return the kernels of the OpenBLAS that numpy has loaded here; "" for another library."""
    import numpy
    from threadpoolctl import threadpool_info

    libraries = Path(numpy.__file__).resolve().parent.with_name("numpy.libs")
    for library in threadpool_info():
        if library["internal_api"] == "openblas" and Path(library["filepath"]).resolve().parent == libraries:
            return str(library["architecture"])
    return ""


def _has_core() -> bool:
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("flags"):
                return {"avx2", "fma"} <= set(line.split())
    except OSError:
        pass  # not Linux
    return False
