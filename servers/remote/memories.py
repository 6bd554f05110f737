"""Detection of episodes whose memory a server lost: it was restarted, or dropped the episode to make room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vla_harness.errors import EpisodesLost

from ..client import ServerError

LOST = "the server lost what its policy remembered of the episode"


class EpisodeMemories:
    """The memory in which each episode's questions were answered, as one of this project's servers says it."""

    def __init__(self, url: str, metadata: Mapping[str, Any]) -> None:
        self._url, self._policy = url, _identity(metadata)
        self._incarnation = metadata.get("incarnation")
        self._known: dict[str, tuple[Any, Any]] = {}

    def restarted(self, reply: Mapping[str, Any]) -> bool:
        """Return whether another incarnation of the server answered than the last time."""
        return reply.get("incarnation", self._incarnation) != self._incarnation

    def check_policy(self, metadata: Mapping[str, Any]) -> None:
        """Note the server's present incarnation; raises ServerError when it serves another policy than before."""
        if _identity(metadata) != self._policy:
            raise ServerError(f"{self._url} was started again with another policy: start a new run for it.")
        self._incarnation = metadata.get("incarnation")

    def is_lost(self, episode: str, step: int, reply: Mapping[str, Any], row: int = 0) -> bool:
        """Return whether the ``row``-th answer was given in another memory than the episode's earlier ones."""
        numbers = reply.get("memories")
        if not isinstance(numbers, list) or row >= len(numbers):
            return False  # a policy that remembers nothing
        memory = reply.get("incarnation"), numbers[row]
        if step == 0:
            self._known[episode] = memory
        return self._known.setdefault(episode, memory) != memory

    def drop(self, episode: str) -> None:
        """Forget an episode that has ended."""
        self._known.pop(episode, None)


def joined(chunks: Sequence[np.ndarray | None]) -> np.ndarray:
    """Return the batch's actions; raises EpisodesLost when some are None."""
    found = [chunk for chunk in chunks if chunk is not None]
    if len(found) < len(chunks):
        raise EpisodesLost(LOST, chunks)
    return np.stack(found)


def _identity(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {key: metadata.get(key) for key in ("policy", "spec", "provenance", "client_images", "unnorm_keys")}
