"""What made the numbers: versions, machine, code revision, policy and assets, as plain data for the results."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from .. import __version__
from ..kernels import KERNELS, kernels
from ..types import PolicySpec

DISTRIBUTIONS = (
    "mujoco",
    "robosuite",
    "hf-libero",
    "bddl",
    "gymnasium",
    "numpy",
    "scipy",
    "torch",
    "transformers",
)


class Described(Protocol):
    """What a policy, or whoever plays it, says of itself."""

    @property
    def spec(self) -> PolicySpec:
        """The policy's spec."""
        ...

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What made the numbers, as the policy states it."""
        ...


def collect_provenance(policy: Described, assets: Mapping[str, Any], gl_backend: str) -> dict[str, Any]:
    """Return the provenance of results made here and now, as plain data.

    assets: where the simulation assets come from; ``kind`` is "primitive" for the generated stand-ins, ``digest``
        stands for their content, which may not change within a run.
    gl_backend: what renders ("egl", "osmesa"), or a word for "nothing".
    Beside what ``policy.provenance`` holds, ``device``, ``precision``, ``checkpoint`` and ``checkpoint_sha256`` are
    always there, None where the policy does not state them. Nothing heavy is imported to learn a version.
    """
    stated = dict.fromkeys(("device", "precision", "checkpoint", "checkpoint_sha256"), None) | dict(policy.provenance)
    collected = {
        "versions": installed_versions(),
        **stated,
        "assets": dict(assets),
        "git_revision": git_revision(),
        "gl_backend": gl_backend,
        "policy_spec": asdict(policy.spec),
        KERNELS: kernels(),
        "machine": machine(),
    }
    return json.loads(json.dumps(collected, default=str))  # a policy may state a torch.dtype or a Path


def installed_versions() -> dict[str, str | None]:
    """Return the versions that decide scores: Python's, ours, those of ``DISTRIBUTIONS``; None for an absent one."""
    versions: dict[str, str | None] = {"python": platform.python_version(), "vla-harness": __version__}
    for name in DISTRIBUTIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def machine() -> dict[str, Any]:
    """Return the names of the CPU and the GPUs, the cores this process may use, and the operating system."""
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpus": _lines("nvidia-smi", "--query-gpu=name", "--format=csv,noheader"),
        "system": f"{platform.system()} {platform.machine()}",
    }


def git_revision() -> str | None:
    """Return the commit of the checkout this code runs from, with "+changes" if files differ from it.

    None for an installed package, also where its environment lies inside somebody's repository.
    """
    package = Path(__file__).resolve().parent
    tracked = _lines("git", "-C", str(package), "ls-files", "--", Path(__file__).name)
    revision = _lines("git", "-C", str(package), "rev-parse", "HEAD") if tracked else []
    if not revision:
        return None
    changed = _lines("git", "-C", str(package), "status", "--porcelain", "--untracked-files=no")
    return revision[0] + ("+changes" if changed else "")


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _lines(*command: str) -> list[str]:
    """Return what ``command`` prints; nothing if it is not there, fails, or takes more than ten seconds."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.splitlines()
