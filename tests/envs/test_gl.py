"""The GL backend is chosen by rendering a frame, once, and handed to children through the environment."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from vla_harness.envs import gl
from vla_harness.errors import UserError

VARIABLES = ("MUJOCO_GL", "PYOPENGL_PLATFORM", "MUJOCO_EGL_DEVICE_ID", "VLA_HARNESS_GL_RENDERER")


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """No choice made yet; what the test chooses is forgotten after it."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # so that monkeypatch puts back what the choice overwrites
        monkeypatch.delenv(name)


def test_the_choice_renders_and_children_inherit_it() -> None:
    backend = gl.choose_gl_backend()
    assert backend in gl.BACKENDS and os.environ["MUJOCO_GL"] == backend and gl.gl_renderer()
    start = time.perf_counter()
    assert gl.choose_gl_backend() == backend
    assert time.perf_counter() - start < 0.01

    code = (
        "from vla_harness.envs import gl\n"
        "gl.probe = None\n"  # a child that tried again would fail
        "print(gl.choose_gl_backend(), gl.gl_renderer(), sep='\\n')\n"
        "import mujoco\n"
        "model = mujoco.MjModel.from_xml_string('<mujoco><worldbody><geom size=\"1\"/></worldbody></mujoco>')\n"
        "with mujoco.Renderer(model, 8, 8) as renderer: print(renderer.render().shape)\n"
    )
    child = subprocess.run([sys.executable, "-c", "import sys\n" + code], capture_output=True, text=True)
    assert child.stdout.splitlines() == [backend, gl.gl_renderer(), "(8, 8, 3)"], child.stderr


def test_a_named_backend_is_the_only_one_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def fails(backend: str) -> str:
        tried.append(backend)
        return "no such driver"

    monkeypatch.setattr(gl, "probe", fails)
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    with pytest.raises(UserError, match=r"\(osmesa: no such driver\): run `apt-get install libosmesa6`"):
        gl.choose_gl_backend()
    assert tried == ["osmesa"]
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    with pytest.raises(UserError, match="set it to egl or osmesa"):
        gl.choose_gl_backend()


def test_osmesa_follows_when_egl_does_not_render(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: dict[str, tuple[int | None, str] | str] = {"egl": "no device", "osmesa": (None, "softpipe")}
    monkeypatch.setattr(gl, "probe", answers.__getitem__)
    assert gl.choose_gl_backend() == "osmesa"
    assert gl.gl_renderer() == "softpipe" and os.environ["PYOPENGL_PLATFORM"] == "osmesa"


def test_nothing_renders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gl, "probe", lambda backend: f"no {backend}")
    with pytest.raises(UserError, match="apt-get install libegl1 libgl1 libosmesa6"):
        gl.choose_gl_backend()
    assert "MUJOCO_GL" not in os.environ


def test_a_named_egl_device_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that does not exist is an error for this variable to be mended, not a silent other backend."""
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", "99")
    with pytest.raises(UserError, match=r"99.*unset MUJOCO_EGL_DEVICE_ID"):
        gl.choose_gl_backend()


def test_the_first_device_that_renders_is_put_into_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gl, "probe", lambda backend: (2, "a card"))
    assert gl.choose_gl_backend() == "egl"
    assert os.environ["MUJOCO_EGL_DEVICE_ID"] == "2"


@pytest.mark.parametrize("backend", gl.BACKENDS)
def test_a_probe_answers_with_a_renderer_or_a_reason(backend: str) -> None:
    start = time.perf_counter()
    answer = gl.probe(backend)
    assert time.perf_counter() - start < 20
    if isinstance(answer, str):
        assert answer
    else:
        device, renderer = answer
        assert renderer and (device is None) == (backend == "osmesa")
