"""Before any test imports mujoco, the GL backend is chosen, as every command does; child processes inherit it."""

from __future__ import annotations

import pytest

from vla_harness.envs.gl import choose_gl_backend


def pytest_configure(config: pytest.Config) -> None:
    choose_gl_backend()
