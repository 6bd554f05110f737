"""``python -m vla_harness doctor``: checks what the main command needs, and names what mends each failure."""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys

    from vla_harness.launch import launch

    sys.exit(launch("vla_harness.__main__", ["doctor", *sys.argv[1:]]))

import json
import os
import platform
import shutil
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import partial
from importlib import import_module, metadata
from pathlib import Path
from typing import Annotated, Literal

from packaging.requirements import Requirement
from packaging.version import Version
from tyro.conf import UseAppendAction, arg

from .command import DONE, FAILED, parse_options
from .errors import UserError
from .evaluate import RunOptions
from .registry import policy_options

WORKER_GB = 1.2
"""Resident memory of one worker that plays LIBERO, measured with software rendering."""

DISK_GB = 0.2
"""Free space for a run's results without videos."""

_GB = 1e9
DEFAULT_POLICY = RunOptions.policy


@dataclass(frozen=True)
class Finding:
    """One line of the report; ``text`` says what mends a "FAIL" or "note". Only a "FAIL" stops the main command."""

    subject: str
    state: Literal["ok", "note", "FAIL"]
    text: str


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """Check versions, rendering, assets, devices and checkpoints, each failure with the command that mends it.

    Downloads nothing. Exit codes: 0 the main command can run, 1 something it needs fails, 2 bad usage.
    """

    assets: Annotated[str, arg(metavar="auto|hub|primitive|PATH")] = "auto"
    """Meshes and textures to check, chosen as the evaluation commands choose them."""

    checkpoint: Annotated[UseAppendAction[tuple[Path, ...]], arg(metavar="PATH")] = ()
    """Checkpoint file or folder to check; may be given several times."""

    quick: bool = False
    """Leave out the last check, which plays and renders the start of an episode and takes some seconds."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report and return the exit code; ``arguments`` without the program's name. Raises UserError."""
    options = parse_options(DoctorOptions, arguments, "vla_harness doctor")
    findings = []
    for finding in examine(options):
        print(f"{finding.state:<5} {finding.subject:<12} {finding.text}", flush=True)
        findings.append(finding)
    failed = sum(finding.state == "FAIL" for finding in findings)
    print(f"\n{failed} of {len(findings)} checks failed." if failed else "\nThe main command can run.")
    return FAILED if failed else DONE


def examine(options: DoctorOptions) -> Iterator[Finding]:
    """Yield the findings one by one; the episode comes last, and only if nothing failed before."""
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("python", check_python),
        ("packages", check_requirements),
        ("benchmark", check_benchmark),
        ("policy", check_policy),
        ("rendering", check_rendering),
        ("compiler", check_compiler),
        ("assets", lambda: check_assets(options.assets)),
        ("gpu", check_devices),
        ("room", check_room),
        *(("checkpoint", partial(check_checkpoint, path)) for path in options.checkpoint),
    ]
    if not options.quick:
        checks.append(("episode", lambda: check_episode(options.assets)))
    failed = False
    for subject, check in checks:
        if subject == "episode" and failed:
            return
        try:
            for finding in check():
                failed |= finding.state == "FAIL"
                yield finding
        except UserError as error:
            failed = True
            yield Finding(subject, "FAIL", str(error))
        except Exception as error:  # whatever a broken installation raises is what this command is for
            failed = True
            yield Finding(subject, "FAIL", f"{type(error).__name__}: {error}: `make clean eval` builds .venv anew.")


def check_python() -> Iterator[Finding]:
    """Check the interpreter's version."""
    text = platform.python_version()
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        yield Finding(
            "python", "FAIL", f"{text} is none of 3.11, 3.12, 3.13: `make eval PYTHON=python3.11` builds .venv."
        )
    else:
        yield Finding("python", "ok", text)


def check_requirements() -> Iterator[Finding]:
    """Check the packages that the project declares."""
    wrong = False
    needed = declared_requirements()
    for requirement in needed:
        version = installed(requirement.name)
        if version is None or Version(version) not in requirement.specifier:
            wrong = True
            command = f"pip install '{requirement.name}{requirement.specifier}'"
            yield Finding(requirement.name, "FAIL", f"{version or 'not installed'}: run `{command}`.")
    if not wrong:
        yield Finding("packages", "ok", f"{len(needed)} declared packages are installed in versions that fit")


def check_benchmark() -> Iterator[Finding]:
    """Check the packages whose exact versions decide LIBERO's scores."""
    stock = import_module("vla_harness.envs.libero.stock")
    for name in stock.REQUIRED_VERSIONS:
        try:
            yield Finding(name, "ok", stock.check_version(name))
        except UserError as error:
            yield Finding(name, "FAIL", str(error))


def check_policy() -> Iterator[Finding]:
    """Check that the main command's default policy can be imported, which is a network and needs an extra."""
    try:
        policy_options(DEFAULT_POLICY)
    except UserError as error:
        yield Finding("policy", "FAIL", f"{error} --policy scripted, noop and random do without.")
        return
    yield Finding("policy", "ok", f"{DEFAULT_POLICY}, the default one")


def check_compiler() -> Iterator[Finding]:
    """Check that compiled code can be kept, which costs half a minute to make."""
    told = import_module("vla_harness.envs.compiling").choose_numba_cache()
    yield Finding(
        "compiler", "note" if told else "ok", f"{told}." if told else "compiled loops are kept from run to run"
    )


def check_rendering() -> Iterator[Finding]:
    """Check that a GL backend renders a frame, and name it."""
    gl = import_module("vla_harness.envs.gl")
    try:
        backend = gl.choose_gl_backend()
    except UserError as error:
        yield Finding("rendering", "FAIL", str(error))
        return
    software = ", in software: a frame takes about 0.1 s" if "llvmpipe" in gl.gl_renderer() else ""
    yield Finding("rendering", "ok", f"{backend} by {gl.gl_renderer()}{software}")


def check_assets(choice: str) -> Iterator[Finding]:
    """Check the simulation assets; what would be downloaded is asked for at the hub and not downloaded."""
    assets = import_module("vla_harness.envs.assets")
    try:
        source = assets.local_assets(choice)
        if source:
            yield Finding("assets", "ok", str(source))
            return
        megabytes = sum(assets.ask_hub().values()) / 1e6
    except UserError as error:
        if choice == "auto" and not os.environ.get("LIBERO_ASSETS"):
            yield Finding("assets", "note", f"generated stand-ins, and every result will say so. {error}")
        else:
            yield Finding("assets", "FAIL", str(error))
        return
    yield Finding("assets", "note", f"not here yet: the first evaluation downloads {megabytes:.0f} MB from the hub.")


def check_devices() -> Iterator[Finding]:
    """Name the processors that policies can use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("cpu", "ok", f"{cores} cores, {platform.machine()}")
    version = installed("torch")
    if version is None:
        yield Finding(
            "gpu", "note", "torch is not installed, and policies that are networks need it: `pip install torch`."
        )
        return
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(index)
            yield Finding("gpu", "ok", f"cuda:{index} {gpu.name}, {gpu.total_memory / _GB:.0f} GB, torch {version}")
    elif shutil.which("nvidia-smi"):
        yield Finding(
            "gpu",
            "note",
            f"torch {version} does not use the GPU here: `pip install --force-reinstall torch` from PyPI.",
        )
    else:
        yield Finding("gpu", "ok", f"none, networks run on the CPU with torch {version}")


def check_room() -> Iterator[Finding]:
    """Check memory for at least one worker and disk for the results."""
    available = _available_memory()
    if available is not None:
        workers = int(available / _GB / WORKER_GB)
        text = f"{available / _GB:.1f} GB available, room for {workers} workers of {WORKER_GB} GB"
        yield Finding("memory", "ok" if workers else "FAIL", text + ("" if workers else ": end other programs."))
    free = shutil.disk_usage(".").free / _GB
    enough = free >= DISK_GB
    text = f"{free:.1f} GB free in this folder" + ("" if enough else ": free some, or name another with --out.")
    yield Finding("disk", "ok" if enough else "FAIL", text)


def check_checkpoint(path: Path) -> Iterator[Finding]:
    """Check that a checkpoint is there and whole: no shard absent, no safetensors file shorter than its header says."""
    again = "download it again or name another with --checkpoint."
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    if not files:
        yield Finding("checkpoint", "FAIL", f"{path} is no file and holds none: {again}")
        return
    broken = [f"{file.name} is cut off" for file in files if file.suffix == ".safetensors" and not _whole(file)]
    for index in (file for file in files if file.name.endswith(".safetensors.index.json")):
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError):
            broken.append(f"{index.name} is cut off")
            continue
        broken += [f"{shard} is absent" for shard in sorted(shards) if not (index.parent / shard).is_file()]
    gigabytes = sum(file.stat().st_size for file in files) / _GB
    if broken:
        yield Finding("checkpoint", "FAIL", f"{path}: {', '.join(broken)}: {again}")
    else:
        yield Finding("checkpoint", "ok", f"{path}, {len(files)} files, {gigabytes:.2f} GB")


def check_episode(assets: str) -> Iterator[Finding]:
    """Reset, step and render one task for real; on stand-ins where its assets would have to be downloaded first."""
    import gymnasium
    import numpy as np

    local_assets = import_module("vla_harness.envs.assets").local_assets
    source = local_assets(assets) or local_assets("primitive")
    start = time.perf_counter()
    with redirect_stderr(sys.stdout):  # where it says that it compiles
        environment = gymnasium.make(
            "vla_harness.envs:libero/spatial-v0", task=0, observations="on_request", assets=str(source.path)
        )
        environment.reset(seed=0, options={"initial_state": 0})
    still = np.array([0, 0, 0, 0, 0, 0, -1], np.float32)
    render = environment.get_wrapper_attr("render_camera")
    environment.step(still)
    render("agentview", 256, 256)
    ready = time.perf_counter()
    steps = 20
    for _ in range(steps):
        environment.step(still)
    stepped = time.perf_counter()
    render("agentview", 256, 256)
    rendered = time.perf_counter()
    environment.close()
    yield Finding(
        "episode",
        "ok",
        f"LIBERO-Spatial task 0: ready in {ready - start:.1f} s, {(stepped - ready) / steps * 1e3:.1f} ms a step, "
        f"{(rendered - stepped) * 1e3:.0f} ms a frame of 256 x 256",
    )


def declared_requirements() -> list[Requirement]:
    """Return what the project needs here without extras: from its installation, else from the checkout's file."""
    try:
        texts = metadata.requires("vla-harness") or []
    except metadata.PackageNotFoundError:
        project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
        texts = project["project"]["dependencies"]
    return [need for need in map(Requirement, texts) if not need.marker or need.marker.evaluate({"extra": ""})]


def installed(name: str) -> str | None:
    """Return the installed version of a distribution, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _whole(file: Path) -> bool:
    """Whether a safetensors file is as long as its header says: 8 bytes of header length, JSON, then the data."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > file.stat().st_size - 8:
            return False
        try:
            header = json.loads(stream.read(length))
        except ValueError:
            return False
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    return file.stat().st_size == 8 + length + max(ends, default=0)


def _available_memory() -> float | None:
    """Bytes that new processes can have; None where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return float(line.split()[1]) * 1024
    except OSError:
        pass
    return None
