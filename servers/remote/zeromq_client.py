"""A client of GR00T's ZeroMQ servers, for ``load_policy("remote", url="tcp://…")``. It needs numpy, msgpack and pyzmq.

Source: NVIDIA/Isaac-GR00T ``gr00t/eval/service.py`` (N1.5).
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import zmq

from ..client import MAX_REPLY, AddressError, ServerError, TryAgain, keep_trying, speaks_tls
from ..wire.arrays import WireError
from ..wire.codecs import GROOT

SIGNATURE = b"\xff"
"""First byte that a ZeroMQ server sends, as soon as a client has connected."""
GREETING_S = 2.0
"""Seconds that it may take for that."""


class Gr00tClient:
    """A REQ socket that is opened anew after a question stayed without an answer."""

    def __init__(self, url: str, token: str | None = None, timeout_s: float = 60.0, patience_s: float = 60.0) -> None:
        """Name the server, tcp://host:port; nothing is sent yet."""
        self.url, self._token, self._timeout_s, self._patience_s = url, token, timeout_s, patience_s
        # A context of its own, collected together with its open socket, waits for that socket for ever.
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._socket: zmq.Socket[bytes] | None = None

    def call(self, endpoint: str, data: Mapping[str, Any] | None = None) -> Any:
        """Return the reply; raises ServerError, also for the error that a server replies with."""
        message: dict[str, Any] = {"endpoint": endpoint}
        if data is not None:
            message["data"] = dict(data)
        if self._token:
            message["api_token"] = self._token
        body = GROOT.pack(message)
        reply = keep_trying(lambda: self._once(body), self._patience_s, self.url)
        if isinstance(reply, dict) and "error" in reply:
            raise ServerError(f"{self.url} refused: {reply['error']}")
        return reply

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close(linger=0)
            self._socket = None

    def _once(self, body: bytes) -> Any:
        if self._socket is None:
            self._connect()
        assert self._socket is not None
        try:
            self._socket.send(body)
            return GROOT.unpack(self._socket.recv())
        except zmq.ZMQError:
            self.close()  # a REQ socket that waits for an answer can do nothing else
            raise TryAgain(f"no answer within {self._timeout_s:g} seconds") from None
        except WireError as error:
            raise ServerError(f"{self.url} answered something unreadable: {error}") from None

    def _connect(self) -> None:
        """Open the socket. Raises TryAgain when nobody listens, of which ZeroMQ itself says nothing."""
        parts = urlsplit(self.url)
        try:
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if not host or not port:
            raise ServerError(f"{self.url} is no address: give tcp://HOST:PORT.")
        try:
            with socket.create_connection((host, port), self._timeout_s) as probe:
                # A name may have addresses of both families, of which ZeroMQ would try one.
                reached = probe.getpeername()[0]
                probe.settimeout(min(self._timeout_s, GREETING_S))
                self._check_greeting(probe, host, port)
        except OSError as error:
            raise TryAgain(f"{type(error).__name__}: {error}") from None
        opened = self._context.socket(zmq.REQ)
        opened.setsockopt(zmq.RCVTIMEO, int(1000 * self._timeout_s))
        opened.setsockopt(zmq.SNDTIMEO, int(1000 * self._timeout_s))
        opened.setsockopt(zmq.MAXMSGSIZE, MAX_REPLY)
        opened.setsockopt(zmq.IPV6, 1)
        try:
            opened.connect(f"tcp://[{reached}]:{port}" if ":" in reached else f"tcp://{reached}:{port}")
        except zmq.ZMQError as error:
            opened.close(linger=0)
            raise ServerError(f"{self.url} is no address: {error}; give tcp://HOST:PORT.") from None
        self._socket = opened

    def _check_greeting(self, probe: socket.socket, host: str, port: int) -> None:
        """Raise AddressError where what listens is no ZeroMQ server: those speak first."""
        try:
            said = probe.recv(10)
        except TimeoutError:
            said = b""
        if said[:1] == SIGNATURE or (not said and self._is_mute(probe)):
            return
        if said:
            raise AddressError(f"{self.url} speaks no ZeroMQ: give the address of a GR00T server.")
        web = "https" if speaks_tls(host, port) else "http"
        raise AddressError(
            f"{self.url} speaks {web} and no ZeroMQ: give {web}:// for this project's server, or a GR00T server's port."
        )

    def _is_mute(self, probe: socket.socket) -> bool:
        """Return whether the server leaves a web browser's words unanswered, too."""
        try:
            probe.sendall(b"GET / HTTP/1.0\r\n\r\n")
            probe.recv(1)
        except TimeoutError:
            return True
        except OSError:
            return False  # it hung up on plain words, as servers of TLS do
        return False
