"""HTTP connections with limits: how many, how large their headers, how long a request or an unread answer may take.

uvicorn has a limit of concurrent connections, which refuses the newest, and a keep-alive timeout that starts after the
first answer. Everything before and beside that is here, around its parser.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from tformer.values import PositiveDuration, PositiveInt

from .websockets import LimitedWebSocketProtocol

_CLOSING_S = 5.0
"""Seconds that a closed connection's last answer gets to leave."""


@dataclass(frozen=True)
class ConnectionLimits:
    """What one client, or all together, may take up before and while they are answered."""

    connections: PositiveInt = 512
    """Open at once, websockets included; beyond it the connection that has asked nothing for longest is closed."""

    header_kb: PositiveInt = 64
    """KiB of a request's first line, headers and trailers."""

    header_s: PositiveDuration = 10.0
    """Seconds until a request's headers are there, and until the first byte of a new connection."""

    request_s: PositiveDuration = 60.0
    """Seconds until all of a request is there."""

    reply_s: PositiveDuration = 60.0
    """Seconds that a reply may stay unread."""

    idle_s: PositiveDuration = 75.0
    """Seconds between two requests of a connection."""

    pipelined: PositiveInt = 8
    """Requests that a client may send before it has the reply to an earlier one."""

    upload_mb: PositiveInt = 256
    """MiB of all bodies together that are read or answered; beyond it clients get 503 and Retry-After."""


class _Refused(Exception):
    """Raised in the parser's callbacks, which turns it into the end of the connection."""


class LimitedHttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol with ``ConnectionLimits``. ``sweep`` is to be called about twice a second."""

    def __init__(self, limits: ConnectionLimits, **options: Any) -> None:
        super().__init__(**options)
        self._limits = limits
        self._header_limit = limits.header_kb * 2**10
        self._refusal = (400, "The request is no HTTP/1.1.")
        self._in_header = False
        self.since = 0.0
        self._header_size = 0
        self._due: float | None = None
        self._request_due = 0.0
        self._unread_since: float | None = None
        self._closing_since: float | None = None

    @property
    def waits(self) -> bool:
        """Whether no request of this connection is being read or answered, apart from an unfinished header."""
        answered = self.cycle is None or self.cycle.response_complete
        return answered and not self.pipeline

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; beyond the limit of connections another one goes, or this one is refused."""
        super().connection_made(transport)
        self.since = time.monotonic()
        self._due = self.since + self._limits.header_s
        if len(self.connections) > self._limits.connections:
            kinds = LimitedHttpProtocol, LimitedWebSocketProtocol
            others = [c for c in self.connections if isinstance(c, kinds) and c is not self and c.waits]
            if others:
                min(others, key=lambda connection: connection.since).transport.abort()
            else:
                self._refuse(503, "Too many connections are open; try again.")

    def data_received(self, data: bytes) -> None:
        """Feed the parser."""
        if self.transport.is_closing():
            return
        in_header = self._in_header
        super().data_received(data)
        if self.transport.is_closing():
            return
        if in_header and self._in_header:
            self._count(len(data), stop=False)
        elif self._due is None and self.waits:  # bytes that begin no request
            self._due = time.monotonic() + self._limits.header_s

    def on_message_begin(self) -> None:
        """Note when the request began."""
        super().on_message_begin()
        self.since = time.monotonic()
        self._in_header, self._header_size = True, 0
        self._due = self.since + self._limits.header_s
        self._request_due = self.since + self._limits.request_s

    def on_url(self, url: bytes) -> None:
        """Count the path's bytes."""
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header's bytes; trailers come here, too."""
        super().on_header(name, value)
        self._count(len(name) + len(value) + 4)

    def on_headers_complete(self) -> None:
        """Begin to answer."""
        if len(self.pipeline) >= self._limits.pipelined:
            raise _Refused
        super().on_headers_complete()
        self._in_header, self._due = False, self._request_due

    def on_message_complete(self) -> None:
        """Note that all of the request is there."""
        super().on_message_complete()
        self._due = None

    def on_response_complete(self) -> None:
        """Note when the connection became idle."""
        super().on_response_complete()
        self.since = time.monotonic()

    def pause_writing(self) -> None:
        """Note since when the client reads nothing."""
        super().pause_writing()
        self._unread_since = time.monotonic()

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        self._unread_since = None

    def shutdown(self) -> None:
        """End for the server's sake: an unfinished request will not be answered any more."""
        if self._due is not None:
            self.transport.abort()
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser cannot read, or what was refused while it read."""
        self._refuse(*self._refusal)

    def sweep(self, now: float, elapsed_s: float) -> None:
        """Close what has taken too long. now: of ``time.monotonic``. elapsed_s: since the last call."""
        if self.transport.is_closing():
            self._closing_since = self._closing_since or now
            if now - self._closing_since > _CLOSING_S:
                self.transport.abort()
        elif self._unread_since is not None and now - self._unread_since > self._limits.reply_s:
            self.transport.abort()
        elif self._due is not None and self.flow.read_paused:  # it is this server that does not read
            self._due += elapsed_s
        elif self._due is not None and now > self._due:
            if self.cycle is None and not self._in_header:
                self.transport.close()  # not a byte came
            else:
                self._refuse(408, "The request did not arrive in time.")

    def _count(self, size: int, stop: bool = True) -> None:
        self._header_size += size
        if self._header_size > self._header_limit:
            self._refusal = 431, f"The headers are larger than {self._header_limit} bytes."
            if stop:
                raise _Refused
            self._refuse(*self._refusal)

    def _refuse(self, status: int, sentence: str) -> None:
        """Send an answer and close; only close where another answer is under way, which this would mix with."""
        if not self.waits and (self.pipeline or self.cycle.response_started):
            self.transport.abort()
            return
        body = json.dumps({"error": sentence, "field": ""}).encode()
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n" % len(body)
        retry = b"retry-after: 1\r\n" if status == 503 else b""
        self.transport.write(STATUS_LINE[status] + head + retry + b"\r\n" + body)
        self.transport.close()


class UploadBudget:
    """Counts the bytes of all requests' bodies that are in memory together."""

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0

    def lease(self) -> Lease:
        """Return one request's share, which begins with nothing."""
        return Lease(self)


class Lease:
    """The bytes of one request; given back at the end of the ``with`` block."""

    def __init__(self, budget: UploadBudget) -> None:
        self._budget, self._size = budget, 0

    def take(self, size: int) -> bool:
        """Return whether ``size`` more bytes are within the limit; then they are counted."""
        if self._budget.used + size > self._budget.limit:
            return False
        self._budget.used += size
        self._size += size
        return True

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *exception: object) -> None:
        self._budget.used -= self._size
        self._size = 0
