"""A client of GR00T's ZeroMQ servers, for ``load_policy("remote", url="tcp://…")``. It needs numpy, msgpack and pyzmq.

Source: NVIDIA/Isaac-GR00T ``gr00t/eval/service.py`` (N1.5).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import zmq

from ..client import ServerError, TryAgain, keep_trying
from ..wire.arrays import WireError
from ..wire.codecs import GROOT


class Gr00tClient:
    """A REQ socket that is opened anew after a question stayed without an answer."""

    def __init__(self, url: str, token: str | None = None, timeout_s: float = 60.0, patience_s: float = 60.0) -> None:
        """Name the server, tcp://host:port; nothing is sent yet."""
        self.url, self._token, self._timeout_s, self._patience_s = url, token, timeout_s, patience_s
        self._context = zmq.Context()
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
            self._socket = self._context.socket(zmq.REQ)
            self._socket.setsockopt(zmq.RCVTIMEO, int(1000 * self._timeout_s))
            self._socket.setsockopt(zmq.SNDTIMEO, int(1000 * self._timeout_s))
            try:
                self._socket.connect(self.url)
            except zmq.ZMQError as error:
                self.close()
                raise ServerError(f"{self.url} is no address: {error}; give tcp://HOST:PORT.") from None
        try:
            self._socket.send(body)
            return GROOT.unpack(self._socket.recv())
        except zmq.ZMQError:
            self.close()  # a REQ socket that waits for an answer can do nothing else
            raise TryAgain(f"no answer within {self._timeout_s:g} seconds") from None
        except WireError as error:
            raise ServerError(f"{self.url} answered something unreadable: {error}") from None
