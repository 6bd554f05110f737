"""Who plays which episode, for policies that keep a memory of each."""

from __future__ import annotations

import itertools
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from .refusal import Refusal

TAKEOVER_S = 15.0
"""An episode that was silent for so long may be taken over: its client was killed and plays it again."""


class _Episode(NamedTuple):
    session: str
    last: float
    step: int
    memory: int


class Sessions:
    """Keeps the episodes whose memory the policy holds, at most ``limit``; the longest silent one is forgotten first.

    forget: called with an episode whose memory is to be dropped.
    """

    def __init__(self, forget: Callable[[str], None], limit: int = 1024) -> None:
        self._forget, self._limit = forget, limit
        self._episodes: OrderedDict[str, _Episode] = OrderedDict()
        self._memories = itertools.count()

    def __len__(self) -> int:
        return len(self._episodes)

    def use(self, episode: str, session: str, step: int = 0) -> int:
        """Note that the client ``session`` plays ``episode``; raises Refusal (409) while another one does.

        step: of the episode; back at 0 after later ones it is another episode of the same name, so that what is
        remembered is forgotten. Returns a number of the memory: the same while nothing of the episode was forgotten.
        """
        now = time.monotonic()
        known = self._episodes.get(episode)
        if known is not None and known.session != session and now - known.last < TAKEOVER_S:
            raise Refusal(
                409,
                f"episode: another client is playing {episode!r}; use another name, or wait until it stops.",
                "episode",
                retry_after_s=5,
            )
        if known is not None and (known.session != session or step == 0 < known.step):
            self._forget(episode)
            known = None
        memory = next(self._memories) if known is None else known.memory
        self._episodes[episode] = _Episode(session, now, step, memory)
        self._episodes.move_to_end(episode)
        while len(self._episodes) > self._limit:
            oldest, _ = self._episodes.popitem(last=False)
            self._forget(oldest)
        return memory

    def end(self, episode: str, session: str) -> None:
        """Forget ``episode`` if ``session`` plays it."""
        if episode in self._episodes and self._episodes[episode].session == session:
            del self._episodes[episode]
            self._forget(episode)
