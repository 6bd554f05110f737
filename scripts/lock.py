"""Writes requirements.lock and requirements-test.lock from pyproject.toml: what pip would install here today, pinned.

Run by ``make lock``. Left out is what torch requires for the platform alone (its CUDA packages): torch pins it itself.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLATFORM = re.compile(r"(nvidia|cuda|triton)\b")
TORCH = "torch==2.13.0"
CLIENTS = {"openpi-client": "0.1.2", "vla-eval": "0.8.0"}
"""Other projects' clients, which the tests play against the server. They declare numpy 1 and more that they never
import; the lock is installed with --no-deps."""


def resolve(requirement: str) -> dict[str, str]:
    """Return name -> version of everything that ``requirement`` and torch bring, the project left out."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    report = subprocess.run([*command, requirement, TORCH], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    found = {item["metadata"]["name"]: item["metadata"]["version"] for item in json.loads(report)["install"]}
    del found["vla-harness"]
    return {
        re.sub(r"[-_.]+", "-", name).lower(): version.partition("+")[0]  # +cpu: a build of the same release
        for name, version in found.items()
        if not PLATFORM.match(name)
    }


def write(name: str, comment: str, pins: dict[str, str]) -> None:
    """Write one lock file, sorted by name."""
    lines = [f"# {comment} Made by `make lock`.", *(f"{key}=={pins[key]}" for key in sorted(pins))]
    (ROOT / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Resolve the run's packages and then the tests', and write both files."""
    run = resolve(".[vla,data,server]")
    test = resolve(".[test]")
    changed = [name for name, version in run.items() if test[name] != version]
    if changed:
        sys.exit(f"error: the test tools need other versions of {', '.join(changed)}: narrow pyproject.toml.")
    write("requirements.lock", "Everything a run needs beside requirements-libero.lock.", run)
    tools = {name: version for name, version in test.items() if name not in run} | CLIENTS
    write("requirements-test.lock", "What the tests need on top of requirements.lock.", tools)


if __name__ == "__main__":
    main()
