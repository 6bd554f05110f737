"""GR00T's ZeroMQ servers as policies: this project's names of cameras and state parts, or GR00T's names for LIBERO.

Source: NVIDIA/Isaac-GR00T N1.5 ``examples/Libero/eval``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vla_harness.conventions import orient, state_lengths
from vla_harness.errors import ConventionError
from vla_harness.types import ActionConvention, ImageOrientation, Observation, PolicySpec

from ..client import ServerError
from .native import read_spec
from .zeromq_client import Gr00tClient

LIBERO_ACTION = ActionConvention(
    "delta", 0.05, "axis_angle", 0.5, gripper_open=1.0, gripper_closed=0.0, gripper_binary=True
)
_LIBERO_CAMERAS = {"image": "agentview", "wrist_image": "wrist"}
_LIBERO_STATE = {"x": 1, "y": 1, "z": 1, "roll": 1, "pitch": 1, "yaw": 1, "gripper": 2}
_LIBERO_ACTIONS = ["x", "y", "z", "roll", "pitch", "yaw", "gripper"]
_OUR_ACTIONS = ["translation", "rotation", "gripper"]


class Gr00tRemote:
    """One question at a time: GR00T's own server answers no other way."""

    def __init__(self, url: str, token: str | None, timeout_s: float, patience_s: float) -> None:
        self._url = url
        self._client = Gr00tClient(url, token, timeout_s, patience_s)
        config = self._client.call("get_modality_config")
        self.provenance: Mapping[str, Any] = {"server": url, "server_modalities": config}
        videos, states, self._actions = (_keys(config, name, url) for name in ("video", "state", "action"))
        self._language = (_keys(config, "language", url, prefix="") or ["annotation.human.task_description"])[0]
        self._state: dict[str, int | None]
        if self._actions == _OUR_ACTIONS:
            said = self._client.call("metadata")
            self.spec = read_spec(said)
            self._images: ImageOrientation = said["client_images"]
            self._state = dict(zip(self.spec.state_keys, state_lengths(self.spec), strict=True))
            if list(self._state.values()).count(None) > 1:
                raise ConventionError(
                    f"The server at {url} does not say how long each of the state parts {', '.join(states)} is: let its"
                    " policy's spec state it (state_lengths)."
                )
        elif (
            self._actions == _LIBERO_ACTIONS
            and set(videos) <= set(_LIBERO_CAMERAS)
            and states in ([], list(_LIBERO_STATE))
        ):
            self._images = "mirrored"
            self._state = dict(_LIBERO_STATE) if states else {}
            self.spec = PolicySpec(
                "groot",
                LIBERO_ACTION,
                cameras=tuple(_LIBERO_CAMERAS[key] for key in videos),
                image_size=(256, 256),
                image_orientation="mirrored",
                state_keys=("eef_pos", "eef_axis_angle", "gripper_qpos") if states else (),
                horizon=len(config["action"]["delta_indices"]),
                max_batch=16,
            )
        else:
            raise ConventionError(
                f"The GR00T server at {url} reads {', '.join(videos + states)} and writes {', '.join(self._actions)},"
                " which are neither LIBERO's names nor this project's: serve a checkpoint with LIBERO's data"
                " configuration."
            )
        self._videos = dict(zip(videos, self.spec.cameras, strict=True))

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        """Return (batch, horizon, 7) float32; raises ServerError."""
        return np.stack([self._ask(seen) for seen in observations])

    def forget(self, episode: str) -> None:
        """Do nothing: the server does not know episodes."""

    def _ask(self, seen: Observation) -> np.ndarray:
        message: dict[str, Any] = {self._language: [seen.instruction]}
        for key, camera in self._videos.items():
            message[f"video.{key}"] = orient(seen.images[camera], "upright", self._images)[None]
        start = 0
        known = sum(width for width in self._state.values() if width is not None)
        for key, stated in self._state.items():
            width = len(seen.state) - known if stated is None else stated  # one part at most does not state it
            message[f"state.{key}"] = seen.state[None, start : start + width].astype(np.float64)
            start += width
        reply = self._client.call("get_action", message)
        try:
            parts = [np.asarray(reply[f"action.{key}"], np.float32) for key in self._actions]
            chunk = np.concatenate([part.reshape(self.spec.horizon, -1) for part in parts], axis=1)
        except (KeyError, TypeError, ValueError):
            chunk = np.zeros((0, 0), np.float32)
        if chunk.shape != (self.spec.horizon, self.spec.action.dim):
            raise ServerError(
                f"{self._url} answered without {self.spec.horizon} actions of {', '.join(self._actions)}."
            )
        return chunk


def _keys(config: Any, modality: str, url: str, prefix: str | None = None) -> list[str]:
    """Return a modality's keys without their prefix; raises ServerError for what is no modality configuration."""
    try:
        given = config[modality]["modality_keys"] if modality in config else []
        return [str(key).removeprefix(f"{modality}." if prefix is None else prefix) for key in given]
    except (KeyError, TypeError):
        raise ServerError(f"{url} is no GR00T server: it states no modality configuration.") from None
