"""Renders one tiny frame with the backend in MUJOCO_GL and prints what did it, as one line of JSON.

Run as a script in a process of its own, because mujoco reads MUJOCO_GL once, when it is imported, and a broken driver
may crash. It imports nothing of the project. Exit code 1 and the reason on standard error when no frame comes.
"""

from __future__ import annotations

import json
import os
import sys

SCENE = '<mujoco><worldbody><light pos="0 0 3"/><geom size="0.3"/></worldbody></mujoco>'


def render() -> str:
    """Render one frame and return the name of the renderer, e.g. "llvmpipe (LLVM 15.0.6, 256 bits)"."""
    import mujoco
    from OpenGL import GL

    model = mujoco.MjModel.from_xml_string(SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    with mujoco.Renderer(model, 16, 16) as renderer:
        renderer.update_scene(data)
        if not renderer.render().any():
            raise RuntimeError("the frame is black")
        return GL.glGetString(GL.GL_RENDERER).decode()


def main() -> dict[str, object]:
    """Return {"device": EGL device index or None, "renderer": name} of the first device that renders."""
    if os.environ["MUJOCO_GL"] != "egl":
        return {"device": None, "renderer": render()}
    from mujoco import egl

    named = os.environ.get("MUJOCO_EGL_DEVICE_ID")
    devices = [int(named)] if named else range(len(egl.EGL.eglQueryDevicesEXT()))
    reason = "EGL lists no device"
    for device in devices:
        os.environ["MUJOCO_EGL_DEVICE_ID"] = str(device)
        egl.EGL_DISPLAY = None  # forget a display that failed
        try:
            return {"device": device, "renderer": render()}
        except Exception as error:  # PyOpenGL raises many kinds; the next device may work
            reason = f"EGL device {device}: {error}"
    raise RuntimeError(reason)


if __name__ == "__main__":
    try:
        print(json.dumps(main()))
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {error}")
