"""Chooses the OpenGL backend of mujoco's offscreen rendering by trying: EGL, else OSMesa."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from vla_harness.errors import UserError

BACKENDS = ("egl", "osmesa")
DEBIAN_PACKAGES = {"egl": "libegl1 libgl1", "osmesa": "libosmesa6"}
_RENDERER = "VLA_HARNESS_GL_RENDERER"
_PROBE_SECONDS = 60.0


def choose_gl_backend() -> str:
    """Return "egl" or "osmesa", the first that renders a frame, and put it into MUJOCO_GL for this process's children.

    Call it in the parent, before mujoco is imported. A backend that the user names in MUJOCO_GL is the only one tried,
    and so is an EGL device named in MUJOCO_EGL_DEVICE_ID; without one the first device that renders is put there. Tries
    in a process of its own (about a second), once: children find the answer in the environment.
    Raises UserError that names the Debian packages when nothing renders.
    """
    named = os.environ.get("MUJOCO_GL", "").strip().lower()
    if named and named not in BACKENDS:
        raise UserError(f"MUJOCO_GL is {named!r}, which does not render without a display: set it to egl or osmesa.")
    if named and _answer()[0] == named:
        return named
    device_named = bool(os.environ.get("MUJOCO_EGL_DEVICE_ID"))
    backends = (named,) if named else ("egl",) if device_named else BACKENDS
    reasons = []
    for backend in backends:
        result = probe(backend)
        if isinstance(result, str):
            reasons.append(f"{backend}: {result}")
            continue
        device, renderer = result
        os.environ["MUJOCO_GL"] = os.environ["PYOPENGL_PLATFORM"] = backend
        os.environ[_RENDERER] = f"{backend}:{renderer}"
        if device is not None:
            os.environ["MUJOCO_EGL_DEVICE_ID"] = str(device)
        return backend
    packages = " ".join(DEBIAN_PACKAGES[backend] for backend in backends)
    other_device = ", or unset MUJOCO_EGL_DEVICE_ID" if device_named and "egl" in backends else ""
    raise UserError(
        f"No OpenGL backend renders ({'; '.join(reasons)}): run `apt-get install {packages}` as root{other_device}."
    )


def gl_renderer() -> str:
    """Return the chosen backend's renderer, e.g. "llvmpipe (LLVM 15.0.6, 256 bits)"; "" before the choice."""
    return _answer()[1]


def probe(backend: str) -> tuple[int | None, str] | str:
    """Render a frame with ``backend`` in a child process: (EGL device or None, renderer), or the reason of failure."""
    command = [sys.executable, "-P", str(Path(__file__).with_name("gl_probe.py"))]
    # PyOpenGL's platform follows MUJOCO_GL; one left by an earlier import of mujoco would contradict it.
    environment = {key: value for key, value in os.environ.items() if key != "PYOPENGL_PLATFORM"}
    try:
        child = subprocess.run(
            command,
            env={**environment, "MUJOCO_GL": backend},
            capture_output=True,
            text=True,
            timeout=_PROBE_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return f"no frame within {_PROBE_SECONDS:.0f} s"
    if child.returncode != 0:
        lines = child.stderr.strip().splitlines()
        return lines[-1] if lines else f"the process ended with {child.returncode}"
    answer = json.loads(child.stdout.strip().splitlines()[-1])
    return answer["device"], answer["renderer"]


def _answer() -> tuple[str, str]:
    """(backend, renderer) that this process or its parent chose, or empty strings."""
    backend, _, renderer = os.environ.get(_RENDERER, "").partition(":")
    return backend, renderer
