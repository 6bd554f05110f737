"""Websocket connections with limits: fragments, the time of a message and of an unread reply, pings without end.

uvicorn's protocol has a limit of a message's bytes and asks for signs of life; the rest is here, around it.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

_MAX_FRAGMENTS = 1024
"""Fragments of a message: each costs more than its bytes."""

_SLICE = 16_384
"""Bytes that are read in one go: small frames take long, and other clients wait meanwhile."""

_MAX_UNREAD = 2**20
"""Bytes of unread answers to pings."""


class LimitedWebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's protocol with limits.

    request_s: seconds until all of a message is there. reply_s: seconds that a reply may stay unread.
    """

    def __init__(self, request_s: float, reply_s: float, **options: Any) -> None:
        super().__init__(**options)
        self._request_s, self._reply_s = request_s, reply_s
        self._fragments = 0
        self._unfinished: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self.since = time.monotonic()

    @property
    def waits(self) -> bool:
        """Whether the client has asked nothing that is not answered yet."""
        return self.handshake_complete and not self.read_paused and self._unfinished is None

    def data_received(self, data: bytes) -> None:
        """Read frames."""
        self.since = time.monotonic()
        for start in range(0, len(data), _SLICE):
            if self.transport.is_closing():
                break
            super().data_received(data[start : start + _SLICE])
        if not (self.frames or self.conn.reader.buffer):
            self._unfinished = _cancel(self._unfinished)
        elif self._unfinished is None:
            self._unfinished = self.loop.call_later(self._request_s, self._end, 1008, "the message did not arrive")

    def handle_text(self, event: Frame) -> None:
        """Begin a message."""
        self._fragments = 1
        super().handle_text(event)

    def handle_bytes(self, event: Frame) -> None:
        """Begin a message."""
        self._fragments = 1
        super().handle_bytes(event)

    def handle_cont(self, event: Frame) -> None:
        """Go on with a message."""
        self._fragments += 1
        if self._fragments > _MAX_FRAGMENTS:
            self._end(1009, f"more than {_MAX_FRAGMENTS} fragments")
        else:
            super().handle_cont(event)

    def handle_ping(self) -> None:
        """Answer a ping, unless nobody reads the answers."""
        super().handle_ping()
        if self.transport.get_write_buffer_size() > _MAX_UNREAD:
            self.transport.abort()

    def pause_writing(self) -> None:
        """The client reads nothing."""
        super().pause_writing()
        self._unread = self._unread or self.loop.call_later(self._reply_s, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        self._unread = _cancel(self._unread)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks."""
        self._unfinished, self._unread = _cancel(self._unfinished), _cancel(self._unread)
        self.frames = []
        super().connection_lost(exc)

    def _end(self, code: int, reason: str) -> None:
        """Close with a reason, and without waiting for the client."""
        if not self.transport.is_closing():
            self.frames = []
            self.conn.fail(code, reason)
            self.handle_parser_exception()


def _cancel(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """Stop a clock; returns None, which stands for one that does not run."""
    if timer is not None:
        timer.cancel()
    return None
