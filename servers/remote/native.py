"""This project's own server, asked over HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vla_harness.types import Observation

from ..client import ServerError, connect, observation
from .memories import EpisodeMemories, joined
from .metadata import provenance_of, read_spec


class NativeRemote:
    """All that an Observation holds travels, and arrives bit for bit."""

    def __init__(self, url: str, token: str | None, timeout_s: float, patience_s: float) -> None:
        self._client = connect(url, token, timeout_s, patience_s)
        said = self._client.metadata()
        self.spec = read_spec(said, url)
        self.provenance: Mapping[str, Any] = provenance_of(said, url)
        self._url, self._stateful = url, said.get("stateful", True) is not False
        self._memories = EpisodeMemories(url, said)

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        """Return (batch, horizon, action_dim) float32; raises ServerError, and EpisodesLost."""
        reply = self._client.ask_together(
            [observation(o.images, o.state, o.instruction, o.episode, o.step) for o in observations]
        )
        actions: np.ndarray = reply["actions"]
        wanted = self.spec.horizon, self.spec.action.dim
        if actions.shape[1:] != wanted or actions.dtype.kind not in "fiu":
            raise ServerError(
                f"{self._url} answered {actions.dtype} actions of shape {actions.shape[1:]}, not {wanted}."
            )
        if self._memories.restarted(reply):
            self._memories.check_policy(self._client.metadata())
        lost = [self._memories.is_lost(o.episode, o.step, reply, row) for row, o in enumerate(observations)]
        chunks = actions.astype(np.float32, copy=False)
        return joined([None if gone else chunk for chunk, gone in zip(chunks, lost, strict=True)])

    def forget(self, episode: str) -> None:
        """Have the server forget an episode, if it remembers any."""
        self._memories.drop(episode)
        if self._stateful:
            self._client.end_episode(episode)
