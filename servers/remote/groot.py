"""GR00T's ZeroMQ servers as policies: this project's names of cameras and state parts, or a data configuration's.

Source: NVIDIA/Isaac-GR00T N1.5 ``examples/Libero/eval``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vla_harness.conventions import orient, state_lengths
from vla_harness.errors import ConventionError
from vla_harness.policies.groot.embodiments import NO_CONVENTION, DataConfig, data_config, key_widths
from vla_harness.types import ImageOrientation, Observation, PolicySpec

from ..client import ServerError
from .metadata import MAX_HORIZON, client_images, read_spec
from .zeromq_client import Gr00tClient

_OUR_ACTIONS = ["translation", "rotation", "gripper"]


class Gr00tRemote:
    """One question at a time: GR00T's own server answers no other way.

    What its names mean is said by this project's servers, and else by a data configuration: LIBERO's where the names
    are its own, or the one that is given. Without one its spec states actions that no environment takes, and
    ``get_action`` asks it by its names.
    """

    def __init__(
        self, url: str, token: str | None, timeout_s: float, patience_s: float, config_name: str | None = None
    ) -> None:
        self._url = url
        given = None if config_name is None else data_config(config_name)
        self._client = Gr00tClient(url, token, timeout_s, patience_s)
        self._modalities = self._client.call("get_modality_config")
        self.provenance: Mapping[str, Any] = {"server": url, "server_modalities": self._modalities}
        videos, states, self._actions = (_keys(self._modalities, name, url) for name in ("video", "state", "action"))
        languages = _keys(self._modalities, "language", url, prefix="")
        self._language = (languages or ["annotation.human.task_description"])[0]
        horizon = _horizon(self._modalities, url)
        self._images: ImageOrientation
        self._state: dict[str, int | None]
        if self._actions == _OUR_ACTIONS and given is None:
            said = self._client.call("metadata")
            self.spec = read_spec(said, url)
            self._images = client_images(said, url)
            self._state = dict(zip(self.spec.state_keys, state_lengths(self.spec), strict=True))
            if list(self._state.values()).count(None) > 1:
                raise ConventionError(
                    f"The server at {url} does not say how long each of the state parts {', '.join(states)} is: let its"
                    " policy's spec state it (state_lengths)."
                )
            if len(videos) != len(self.spec.cameras):
                raise ServerError(
                    f"{url} names {len(videos)} videos for {len(self.spec.cameras)} cameras of its policy"
                )
            self._videos = dict(zip(videos, self.spec.cameras, strict=True))
            return
        config = given or data_config("libero")
        fits = self._actions == list(config.action) and set(videos) <= set(config.video)
        fits = fits and states in ([], list(config.state))
        if given is not None and not fits:
            raise ConventionError(
                f"The GR00T server at {url} reads {', '.join(videos + states)} and writes {', '.join(self._actions)},"
                f" and the data configuration {config.name} names {', '.join(config.video + config.state)} and"
                f" {', '.join(config.action)}: give the one that its checkpoint is served with."
            )
        self.spec = _spec(config if fits else None, videos, states, horizon)
        self._images = self.spec.image_orientation
        self._videos = dict(zip(videos, self.spec.cameras, strict=True))
        self._state = dict.fromkeys(states)
        if fits and config.robot is not None and states:
            lengths = [length for length in state_lengths(self.spec) if length is not None]
            if len(lengths) == len(self.spec.state_keys):
                self._state = dict(key_widths(config.name, "state", states, lengths))

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        """Return (batch, horizon, 7) float32; raises ServerError."""
        return np.stack([self._ask(seen) for seen in observations])

    def forget(self, episode: str) -> None:
        """Do nothing: the server does not know episodes."""

    def get_modality_config(self) -> Mapping[str, Mapping[str, Sequence[Any]]]:
        """Return what the server reads and writes, as it states it."""
        return self._modalities

    def get_action(self, observations: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Return "action.KEY" -> (horizon, D) float32 for an observation by the server's names; raises ServerError."""
        reply = self._client.call("get_action", dict(observations))
        try:
            parts = {f"action.{key}": np.asarray(reply[f"action.{key}"], np.float32) for key in self._actions}
            return {key: part.reshape(self.spec.horizon, -1) for key, part in parts.items()}
        except (KeyError, TypeError, ValueError):
            raise ServerError(
                f"{self._url} answered without {self.spec.horizon} actions of {', '.join(self._actions)}."
            ) from None

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
        chunk = np.concatenate(list(self.get_action(message).values()), axis=1)
        if chunk.shape[1] != self.spec.action.dim:
            raise ServerError(f"{self._url} answered actions of {chunk.shape[1]} numbers, not {self.spec.action.dim}.")
        return chunk


def _spec(config: DataConfig | None, videos: Sequence[str], states: Sequence[str], horizon: int) -> PolicySpec:
    """Return the spec of a server whose names ``config`` explains; without a robot, one that no environment takes."""
    if config is None or config.robot is None:
        return PolicySpec(
            "groot", NO_CONVENTION, tuple(videos), state_keys=tuple(states), horizon=horizon, max_batch=16
        )
    robot = config.robot
    cameras = dict(zip(config.video, robot.cameras, strict=True))
    return PolicySpec(
        "groot",
        robot.action,
        cameras=tuple(cameras[key] for key in videos),
        image_size=robot.image_size,
        image_orientation=robot.image_orientation,
        state_keys=robot.state_keys if states else (),
        horizon=horizon,
        max_batch=16,
        protocol="groot",
        image_path=f"{robot.image_orientation.replace('_', ' ')}; the rest is the server's",
    )


def _horizon(config: Any, url: str) -> int:
    try:
        count = len(config["action"]["delta_indices"])
    except (KeyError, TypeError):
        count = 0
    if not 1 <= count <= MAX_HORIZON:
        raise ServerError(f"{url} does not say how many actions it answers with (action.delta_indices)")
    return count


def _keys(config: Any, modality: str, url: str, prefix: str | None = None) -> list[str]:
    """Return a modality's keys without their prefix; raises ServerError for what is no modality configuration."""
    try:
        given = config[modality]["modality_keys"] if modality in config else []
        if not isinstance(given, list | tuple) or not all(isinstance(key, str) for key in given):
            raise TypeError(f"{modality} keys are no texts")
        return [key.removeprefix(f"{modality}." if prefix is None else prefix) for key in given]
    except (KeyError, TypeError):
        raise ServerError(f"{url} is no GR00T server: it states no modality configuration") from None
