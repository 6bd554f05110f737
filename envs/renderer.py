"""Offscreen frames of a MuJoCo scene, equal pixel for pixel to robosuite 1.4.0's."""

from __future__ import annotations

import atexit
import os
import weakref
from importlib import import_module
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from vla_harness.errors import UserError

_MAX_GEOMS = 1000  # robosuite's limit; geoms beyond it would not be drawn there either


class Renderer:
    """Renders cameras of one model, in a GL context of its own. Build and use it in one thread of one process.

    It draws positions of its own, not those of a running simulation, so a frame can show an earlier moment and drawing
    can't disturb the simulation.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        self._data = mujoco.MjData(model)
        size = model.vis.global_
        self._gl = _gl_context(size.offwidth, size.offheight)
        self._gl.make_current()
        self._scene = mujoco.MjvScene(model, maxgeom=_MAX_GEOMS)
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._options = mujoco.MjvOption()
        self._options.geomgroup[0] = 0  # collision shapes
        self._options.geomgroup[1] = 1  # visual shapes
        self._perturbation = mujoco.MjvPerturb()
        self._context = self._make_context()
        if not _open:
            # mujoco has registered its own end of EGL while making its first context. Handlers run last in, first out:
            # registered after it, ours frees contexts while EGL still lives; later that prints an error.
            atexit.unregister(_close_all)
            atexit.register(_close_all)
        _open.add(self)

    def _make_context(self) -> mujoco.MjrContext:
        context = mujoco.MjrContext(self._model, mujoco.mjtFontScale.mjFONTSCALE_150)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
        return context

    def render(self, qpos: NDArray[np.float64], camera_id: int, height: int, width: int) -> NDArray[np.uint8]:
        """Return (height, width, 3) uint8, upright, of the model in the joint positions ``qpos``, (nq,)."""
        self._gl.make_current()
        if width > self._context.offWidth or height > self._context.offHeight:
            size = self._model.vis.global_
            size.offwidth, size.offheight = max(width, size.offwidth), max(height, size.offheight)
            self._context.free()
            self._context = self._make_context()
        self._data.qpos[:] = qpos
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_comPos(self._model, self._data)  # cameras and lights may follow a centre of mass
        mujoco.mj_camlight(self._model, self._data)
        self._camera.fixedcamid = camera_id
        mujoco.mjv_updateScene(
            self._model,
            self._data,
            self._options,
            self._perturbation,
            self._camera,
            mujoco.mjtCatBit.mjCAT_ALL,
            self._scene,
        )
        viewport = mujoco.MjrRect(0, 0, width, height)
        mujoco.mjr_render(viewport, self._scene, self._context)
        frame = np.empty((height, width, 3), np.uint8)
        mujoco.mjr_readPixels(frame, None, viewport, self._context)
        return np.ascontiguousarray(frame[::-1])  # OpenGL's first row is the lowest

    def close(self) -> None:
        """Free the GL context and all that mujoco put there; the renderer can't be used afterwards."""
        if self in _open:
            _open.discard(self)
            self._gl.make_current()
            self._context.free()
            self._gl.free()


def _gl_context(width: int, height: int) -> Any:
    """Return an offscreen context of the backend in MUJOCO_GL, also where mujoco was imported before it was chosen.

    mujoco looks at the variable once, when it is imported. Raises UserError where another library has bound PyOpenGL,
    which is once for a process too, to another platform.
    """
    if _forked:
        raise UserError(
            "This process was forked from one that has drawn frames, and OpenGL does not survive that: start processes"
            ' by spawn, as gymnasium.make_vec(…, vectorization_mode="async", vector_kwargs={"context": "spawn"}) does.'
        )
    backend = os.environ["MUJOCO_GL"]
    try:
        context = import_module(f"mujoco.{backend}").GLContext(width, height)
    except Exception as error:  # PyOpenGL raises many kinds
        raise UserError(
            f"No {backend} context can be made in this process ({type(error).__name__}: {error}): set"
            f" MUJOCO_GL={backend} and PYOPENGL_PLATFORM={backend} before Python starts, or import vla_harness.envs and"
            " make an environment before anything else uses OpenGL."
        ) from error
    _drawn[:] = [os.getpid()]
    return context


_open: weakref.WeakSet[Renderer] = weakref.WeakSet()
_drawn: list[int] = []
"""Process that made the first context of this module."""
_forked: list[int] = []
"""Filled in a child of that process: its driver's threads and locks are the parent's, and it would wait for ever."""
os.register_at_fork(after_in_child=lambda: _forked.extend(_drawn))


def _close_all() -> None:
    for renderer in list(_open):
        renderer.close()
