"""Who plays which episode, for policies that keep a memory of each."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from .refusal import Refusal

TAKEOVER_S = 15.0
"""An episode that was silent for so long may be taken over: its client was killed and plays it again."""


class Sessions:
    """Keeps the episodes whose memory the policy holds, at most ``limit``; the longest silent one is forgotten first.

    forget: called with an episode whose memory is to be dropped.
    """

    def __init__(self, forget: Callable[[str], None], limit: int = 1024) -> None:
        self._forget, self._limit = forget, limit
        self._episodes: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._episodes)

    def use(self, episode: str, session: str) -> None:
        """Note that the client ``session`` plays ``episode``; raises Refusal (409) while another one does."""
        now = time.monotonic()
        owner, last = self._episodes.get(episode, (session, now))
        if owner != session:
            if now - last < TAKEOVER_S:
                raise Refusal(
                    409,
                    f"episode: another client is playing {episode!r}; use another name, or wait until it stops.",
                    "episode",
                    retry_after_s=5,
                )
            self._forget(episode)
        self._episodes[episode] = (session, now)
        self._episodes.move_to_end(episode)
        while len(self._episodes) > self._limit:
            oldest, _ = self._episodes.popitem(last=False)
            self._forget(oldest)

    def end(self, episode: str, session: str) -> None:
        """Forget ``episode`` if ``session`` plays it."""
        if episode in self._episodes and self._episodes[episode][0] == session:
            del self._episodes[episode]
            self._forget(episode)
