"""This project's own server, asked over HTTP."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vla_harness.types import ActionConvention, Observation, PolicySpec

from ..client import connect, observation


class NativeRemote:
    """All that an Observation holds travels, and arrives bit for bit."""

    def __init__(self, url: str, token: str | None, timeout_s: float, patience_s: float) -> None:
        self._client = connect(url, token, timeout_s, patience_s)
        said = self._client.metadata()
        self.spec = read_spec(said)
        self.provenance: Mapping[str, Any] = provenance_of(said, url)
        self._stateful = said.get("stateful", True)

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        """Return (batch, horizon, action_dim) float32; raises ServerError."""
        return self._client.act_together(
            [observation(o.images, o.state, o.instruction, o.episode, o.step) for o in observations]
        )

    def forget(self, episode: str) -> None:
        """Have the server forget an episode, if it remembers any."""
        if self._stateful:
            self._client.end_episode(episode)


def read_spec(metadata: Mapping[str, Any]) -> PolicySpec:
    """Return the spec that one of this project's servers states; JSON has lists for tuples and null for nan."""
    said: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in metadata["spec"].items()}
    action: dict[str, Any] = {key: math.nan if value is None else value for key, value in said.pop("action").items()}
    spec = PolicySpec(action=ActionConvention(**action), **said)
    return replace(spec, max_batch=metadata["max_batch"])


def provenance_of(metadata: Mapping[str, Any], url: str) -> dict[str, Any]:
    """Return what one of this project's servers says of its policy, with the server's address."""
    return {**metadata["provenance"], "server": url, "server_policy": metadata["policy"]}
