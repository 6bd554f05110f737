"""Clients of the websocket servers of openpi and vla-eval, for ``load_policy("remote", url="ws://…")``.

They need numpy, msgpack and websockets. Sources: openpi-client 0.1.2, vla-eval 0.8.0 ``connection.py``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

from websockets.exceptions import (
    InvalidMessage,
    InvalidProxy,
    InvalidStatus,
    InvalidURI,
    ProxyError,
    WebSocketException,
)
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as open_websocket

from ..client import (
    MAX_REPLY,
    AddressError,
    ServerError,
    TryAgain,
    is_tls_failure,
    keep_trying,
    speaks_tls,
    tls_error,
)
from ..wire.arrays import WireError
from ..wire.codecs import OPENPI, VLA_EVAL, Codec
from .network import describe_proxy, proxy_for

HELLO = {"harness_version": "vla-harness", "protocol_version": 1}


@contextmanager
def _connected(url: str, headers: Mapping[str, str] | None, timeout_s: float) -> Iterator[ClientConnection]:
    """Yield a connection; raises TryAgain, or ServerError where no second attempt helps, for what fails meanwhile."""
    proxy = proxy_for(url)
    way = f", {describe_proxy(proxy, url)}" if proxy else ""
    connected = False
    try:
        with open_websocket(
            url,
            additional_headers=headers,
            compression=None,
            max_size=MAX_REPLY,
            open_timeout=timeout_s,
            close_timeout=1.0,
            ping_interval=None,
            proxy=proxy,
        ) as opened:
            connected = True
            yield opened
    except InvalidStatus as error:
        if error.response.status_code in (502, 503, 504):
            raise TryAgain(f"{error}{way}") from None
        raise ServerError(f"{url} refused the connection: {error}{way}.") from None
    except InvalidURI as error:
        raise ServerError(f"{url} is no address of a websocket: {error}.") from None
    except (ProxyError, InvalidProxy, ImportError) as error:
        raise ServerError(f"{url} cannot be reached{way}: {error}.") from None
    except (OSError, TimeoutError, WebSocketException) as error:
        if is_tls_failure(error):
            raise tls_error(error, url, way) from None
        parts = urlsplit(url)
        plain = parts.scheme == "ws" and not proxy and isinstance(error, InvalidMessage)
        if plain and speaks_tls(parts.hostname or "", parts.port or 80):
            raise AddressError(f"{url} speaks TLS: give wss://{url.partition('://')[2]}.") from None
        if proxy and not connected and isinstance(error, OSError):  # a proxy is there, or is not: it does not start
            raise ServerError(f"{url} cannot be reached{way}: {type(error).__name__}: {error}.") from None
        raise TryAgain(f"{type(error).__name__}: {error}{way}") from None


class EpisodeBroken(ServerError):
    """The connection broke within an episode, and with it what the server remembered of the episode."""


class _WebSocket:
    """A connection that opens when it is needed and again after it broke."""

    codec: Codec

    def __init__(self, url: str, token: str | None, timeout_s: float, patience_s: float) -> None:
        self.url, self._timeout_s, self._patience_s = url, timeout_s, patience_s
        self._headers = {"Authorization": f"Api-Key {token}"} if token else None
        self._socket: ClientConnection | None = None
        self._opened = ExitStack()

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            with suppress(OSError, WebSocketException, TryAgain, ServerError):
                self._opened.close()
            self._socket = None

    def _open(self) -> ClientConnection:
        """Return the connection; a new one is greeted."""
        if self._socket is not None:
            return self._socket
        self._socket = self._opened.enter_context(_connected(self.url, self._headers, self._timeout_s))
        self._greet()
        return self._socket

    def _greet(self) -> None:
        raise NotImplementedError

    def _receive(self) -> Any:
        """Return the next message; raises TryAgain when the connection breaks, ServerError for a text: an error."""
        assert self._socket is not None
        try:
            data = self._socket.recv(timeout=self._timeout_s)
        except (OSError, TimeoutError, WebSocketException) as error:
            self.close()
            raise TryAgain(f"{type(error).__name__}: {error}") from None
        if isinstance(data, str):
            self.close()
            raise ServerError(f"{self.url} failed: {data.strip().splitlines()[-1] if data.strip() else 'no reason'}")
        try:
            return self.codec.unpack(data)
        except WireError as error:
            self.close()
            raise ServerError(f"{self.url} answered something unreadable: {error}") from None

    def _send(self, message: Any) -> None:
        assert self._socket is not None
        try:
            self._socket.send(self.codec.pack(message))
        except (OSError, WebSocketException) as error:
            self.close()
            raise TryAgain(f"{type(error).__name__}: {error}") from None


class OpenpiClient(_WebSocket):
    """A connection to openpi's policy server. ``metadata`` is what it said when the connection opened."""

    codec = OPENPI

    def __init__(self, url: str, token: str | None = None, timeout_s: float = 60.0, patience_s: float = 60.0) -> None:
        """Connect; raises ServerError."""
        super().__init__(url, token, timeout_s, patience_s)
        self.metadata: dict[str, Any] = {}
        keep_trying(self._open, patience_s, url)

    def infer(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """Return the reply to an observation; raises ServerError."""

        def once() -> Any:
            self._open()
            self._send(dict(observation))
            return self._receive()

        reply = keep_trying(once, self._patience_s, self.url)
        if not isinstance(reply, dict) or "actions" not in reply:
            raise ServerError(f"{self.url} answered without actions: is it openpi's server?")
        return reply

    def _greet(self) -> None:
        said = self._receive()
        self.metadata = said if isinstance(said, dict) else {}


class VlaEvalClient(_WebSocket):
    """A connection to one of vla-eval's model servers. ``hello`` is its answer to ours."""

    codec = VLA_EVAL

    def __init__(self, url: str, token: str | None = None, timeout_s: float = 60.0, patience_s: float = 60.0) -> None:
        """Connect; raises ServerError."""
        super().__init__(url, token, timeout_s, patience_s)
        self.hello: dict[str, Any] = {}
        self._number = 0
        self._config: dict[str, Any] | None = None
        keep_trying(self._open, patience_s, url)

    def start_episode(self, config: Mapping[str, Any]) -> None:
        """Begin an episode; it has no answer."""

        def once() -> None:
            self._open()
            self._tell("episode_start", config)

        self._config = dict(config)
        keep_trying(once, self._patience_s, self.url)

    def end_episode(self, result: Mapping[str, Any]) -> None:
        """End the episode; a server that is gone has ended it."""
        self._config = None
        with suppress(TryAgain, AssertionError):
            self._tell("episode_end", result)

    def act(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """Return the payload that answers an observation; raises ServerError.

        It is EpisodeBroken when the connection broke: what the server kept of the episode is lost, and with it the rest
        of its chunk, so that going on would play something else.
        """
        if self._socket is None and self._config is not None:
            raise EpisodeBroken(f"{self.url} lost the connection within an episode, and what it remembered of it.")
        try:
            self._tell("observation", observation)
            return self._answer("action")
        except TryAgain as error:
            raise EpisodeBroken(f"{self.url} lost the connection within an episode: {error}.") from None

    def _greet(self) -> None:
        self._tell("hello", HELLO)
        self.hello = self._answer("hello")

    def _tell(self, kind: str, payload: Mapping[str, Any]) -> None:
        self._number += 1
        self._send({"type": kind, "payload": dict(payload), "seq": self._number, "timestamp": time.time()})

    def _answer(self, kind: str) -> dict[str, Any]:
        """Return the payload of the answer to the last message."""
        while True:
            message = self._receive()
            if not isinstance(message, dict) or not isinstance(payload := message.get("payload"), dict):
                raise ServerError(f"{self.url} does not speak vla-eval's protocol.")
            if message.get("type") == "error":
                raise ServerError(f"{self.url} failed: {payload.get('error', 'no reason')}")
            if message.get("type") == kind and message.get("seq") == self._number:
                return payload


def speaks_first(url: str, token: str | None, wait_s: float = 2.0) -> bool:
    """Return whether the server says something before it is spoken to: openpi's does, vla-eval's does not."""
    headers = {"Authorization": f"Api-Key {token}"} if token else None
    with _connected(url, headers, 10.0) as socket:
        try:
            socket.recv(timeout=wait_s)
        except TimeoutError:
            return False
        return True
