"""Random colours, light and cameras for demonstrations, so that a policy learns to see past them."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import numpy as np


class Jitter:
    """Changes how a MuJoCo model looks while it is entered, and nothing of its physics.

    model: ``mujoco.MjModel``. strength: 0 changes nothing; at 1 light is scaled by 0.5 to 1.5, colours of materials
    and shapes by 0.75 to 1.25 per channel, and fixed cameras are moved by 1 cm and turned by 1 degree (one standard
    deviation). draw: where the numbers come from.
    """

    _FIELDS = ("light_diffuse", "light_ambient", "mat_rgba", "geom_rgba", "cam_pos", "cam_quat")

    def __init__(self, model: Any, strength: float, draw: np.random.Generator) -> None:
        self._model, self._strength, self._draw = model, strength, draw
        self._before: dict[str, np.ndarray] = {}

    def __enter__(self) -> Self:
        if not self._strength:
            return self
        model, draw, strength = self._model, self._draw, self._strength
        self._before = {name: getattr(model, name).copy() for name in self._FIELDS}
        light = 1 + strength * draw.uniform(-0.5, 0.5)
        model.light_diffuse[:] *= light
        model.light_ambient[:] *= light
        for colours in (model.mat_rgba, model.geom_rgba):
            scale = 1 + strength * draw.uniform(-0.25, 0.25, (len(colours), 3))
            colours[:, :3] = np.clip(colours[:, :3] * scale, 0, 1)
        fixed = model.cam_bodyid == 0  # one on the hand moves with it and stays where it is
        model.cam_pos[fixed] += strength * draw.normal(0, 0.01, (int(fixed.sum()), 3))
        turned = model.cam_quat[fixed] + strength * draw.normal(0, np.deg2rad(1) / 2, (int(fixed.sum()), 4))
        model.cam_quat[fixed] = turned / np.linalg.norm(turned, axis=1, keepdims=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name, values in self._before.items():
            getattr(self._model, name)[:] = values
