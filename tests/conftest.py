"""Before any test imports mujoco, the GL backend is chosen, as every command does; child processes inherit it."""

from __future__ import annotations

import signal

import pytest

from vla_harness.envs.gl import choose_gl_backend


def pytest_configure(config: pytest.Config) -> None:
    choose_gl_backend()
    # A shell's background job ignores Ctrl-C and hands that on, and tests send it to the commands that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
