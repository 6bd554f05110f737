"""What LIBERO's and robosuite's environments share: their spaces, their frames, the simulator's state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from vla_harness.errors import UserError
from vla_harness.types import EnvironmentSpec

if TYPE_CHECKING:
    from .renderer import Renderer


class Episodes(Protocol):
    """One task's simulation, as far as its frames and its state go. model, data: mujoco's own."""

    model: Any
    data: Any

    @property
    def state(self) -> NDArray[np.float64]:
        """[time, qpos, qvel] float64, a copy."""
        ...

    @property
    def frame_qpos(self) -> NDArray[np.float64]:
        """(nq,) float64: the joint positions that a frame of the last observation shows."""
        ...


class SimulatedEnv(gymnasium.Env[dict[str, NDArray[Any]], NDArray[Any]]):
    """The part of ``vla_harness.types.SimulatedTask`` that is the same in every benchmark.

    A benchmark's class says how episodes begin and advance (``reset``, ``step``) and what there is to know beside
    frames (``proprioception``, ``scene``).
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}
    _episodes: Episodes

    def __init__(
        self,
        interface: EnvironmentSpec,
        cameras: Mapping[str, str],
        frame_cameras: Sequence[str],
        image_size: tuple[int, int],
        render_mode: str | None,
    ) -> None:
        """``_episodes`` is there already. cameras: our names -> MuJoCo's. frame_cameras: those in each observation."""
        self.interface = interface
        self.render_mode = render_mode
        self.model, self.data = self._episodes.model, self._episodes.data  # as gymnasium's MujocoEnv has them
        self._cameras, self._frame_cameras, self._image_size = cameras, frame_cameras, image_size
        self._renderer: Renderer | None = None
        self.action_space = spaces.Box(-1.0, 1.0, (interface.action.dim,), np.float32)
        self.observation_space: spaces.Dict = spaces.Dict(  # type: ignore[assignment]
            {name: spaces.Box(-np.inf, np.inf, (size,), np.float64) for name, size in interface.state.items()}
            | {name: spaces.Box(0, 255, (*image_size, 3), np.uint8) for name in frame_cameras}
        )

    def _options(self, options: Mapping[str, Any] | None, *known: str) -> tuple[int | None, ...]:
        """Return the reset options of these names, each a whole number of at least 0 or None where it is left out.

        Raises UserError for a name that there is not, and for another value.
        """
        given = dict(options or {})
        for name, value in given.items():
            if name not in known:
                raise UserError(f"There is no reset option {name!r}: choose from {', '.join(known)}.")
            whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
            if value is not None and not (whole and value >= 0):
                raise UserError(f"The reset option {name!r} is {value!r}: give a whole number of at least 0.")
        return tuple(None if given.get(name) is None else int(given[name]) for name in known)

    def _action(self, action: Any) -> NDArray[np.float64]:
        """Return an action as (dim,) float64. Raises UserError unless it is that many finite numbers."""
        try:
            array = np.asarray(action)
        except ValueError:  # lists of different lengths
            array = np.asarray(None)
        wanted = self.action_space.shape
        if array.dtype.kind not in "fiu" or array.shape != wanted or not np.isfinite(array).all():
            got = f"{array.dtype} of shape {array.shape}" + (
                ", not all finite" if array.dtype.kind == "f" and array.shape == wanted else ""
            )
            raise UserError(f"An action here is {self.interface.action.dim} finite numbers, and this one is {got}.")
        return array.astype(np.float64)

    def proprioception(self) -> Mapping[str, NDArray[np.float64]]:
        """Return the state parts of ``interface`` as robosuite's observables sampled them, copies."""
        raise NotImplementedError

    def _observation(self) -> dict[str, NDArray[Any]]:
        return dict(self.proprioception()) | {
            camera: self.render_camera(camera, *self._image_size) for camera in self._frame_cameras
        }

    def render_camera(self, camera: str, height: int, width: int) -> NDArray[np.uint8]:
        """Return the frame of the moment the observation was sampled at, (height, width, 3) uint8, upright."""
        if self._renderer is None:
            from .renderer import Renderer  # imports mujoco, which must not come before the GL backend is chosen

            self._renderer = Renderer(self.model)
        camera_id = self.model.camera(self._cameras[camera]).id
        return self._renderer.render(self._episodes.frame_qpos, camera_id, height, width)

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """Return the agentview frame in render mode "rgb_array"."""
        return self.render_camera("agentview", *self._image_size) if self.render_mode == "rgb_array" else None

    def simulator_state(self) -> NDArray[np.float64]:
        """Return [time, qpos, qvel], (1 + nq + nv,) float64."""
        return self._episodes.state

    def close(self) -> None:
        """Free the GL context."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
