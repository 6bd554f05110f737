"""The light client: asks a server of this project for actions, from a robot or a simulator.

It needs numpy and msgpack beside the standard library, and nothing else of this project than ``servers/wire``::

    from vla_harness.servers.client import connect

    with connect("http://workstation:8000", token="…") as server:
        chunk = server.act({"agentview": frame}, state, "open the drawer", episode="monday-3", step=0)
"""

from __future__ import annotations

import http.client
import json
import logging
import random
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import numpy as np

from .wire.arrays import WireError
from .wire.codecs import VLA_EVAL

T = TypeVar("T")
log = logging.getLogger("vla_harness.servers.client")

MAX_REPLY = 64 * 2**20
"""Bytes of the largest reply that clients read."""

_BUSY_S = 2.0
"""Seconds of waiting for a busy server without a word: queues that are full for a moment are nothing to report."""

_said_until: dict[str, float] = {}
_said_lock = threading.Lock()


class ServerError(Exception):
    """The server refused, failed or could not be reached; the message is one sentence that names its address."""


class AddressError(ServerError):
    """The address is not that of such a server; the sentence says what to give instead."""


class TryAgain(Exception):
    """Something that passes: the server starts, is full, or the connection broke.

    after_s: seconds to wait at least. busy: the server answered, and asks to wait.
    """

    def __init__(self, reason: str, after_s: float = 0.0, busy: bool = False) -> None:
        super().__init__(reason)
        self.after_s, self.busy = after_s, busy


def keep_trying(attempt: Callable[[], T], patience_s: float, url: str) -> T:
    """Return what ``attempt`` returns; after TryAgain, again for ``patience_s`` seconds, with growing pauses.

    One line on the log, by default on stderr, says that it waits: at once, or after two seconds of a busy server.
    Raises ServerError when patience is at its end.
    """
    until = time.monotonic() + patience_s
    pause = 0.1
    while True:
        try:
            return attempt()
        except TryAgain as reason:
            wait = max(reason.after_s, pause * random.uniform(0.5, 1.0))  # clients that failed together come apart
            left = until - time.monotonic()
            if wait > left:
                raise ServerError(f"{url} gave no action within {patience_s:g} seconds: {reason}.") from None
            if not reason.busy or left < patience_s - _BUSY_S:
                _say_waiting(url, left, str(reason))
            time.sleep(wait)
            pause = min(2 * pause, 5.0)


def _say_waiting(url: str, left_s: float, reason: str) -> None:
    """Log once, whichever thread comes first, that ``url`` is waited for."""
    now = time.monotonic()
    with _said_lock:
        if now < _said_until.get(url, 0.0):
            return
        _said_until[url] = now + left_s
    log.warning("%s: %s; waiting up to %g seconds.", url, reason.rstrip("."), round(left_s, 1))


def is_tls_failure(error: Exception) -> bool:
    """Return whether no second attempt helps: nobody vouches for the certificate, or the server speaks no TLS."""
    return isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError)


def check_address(url: str, schemes: Sequence[str]) -> tuple[str, int | None]:
    """Return host and port (None where it is left out) of ``url``; raises AddressError for what is no address."""
    with suppress(ValueError):  # brackets, a port out of range, a host that no name can be
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        host.encode("idna")
        if parts.scheme in schemes and host and url.isprintable() and not any(map(str.isspace, url)):
            return host, port
    known = ", ".join(f"{scheme}://" for scheme in schemes)
    raise AddressError(f"{url!r} is no address of a server: give HOST:PORT behind one of {known}.")


def tls_error(error: Exception, url: str, way: str = "") -> AddressError:
    """Return what to say of an error that ``is_tls_failure``; way: words for a proxy on the way."""
    said = f"{url} cannot be spoken to over TLS{way}"
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = error.verify_message.rstrip(".")
        if "mismatch" in reason:
            return AddressError(f"{said}, as its certificate is another's ({reason}): give an address that it names.")
        return AddressError(
            f"{said}, as nobody here vouches for its certificate ({reason}): name the PEM file of its issuer, or its"
            " own, in $SSL_CERT_FILE."
        )
    reason = str(getattr(error, "reason", "") or error).replace("_", " ").lower()
    if reason in ("wrong version number", "record layer failure", "unknown protocol", "http request"):
        plain = url.replace("https://", "http://", 1).replace("wss://", "ws://", 1)
        return AddressError(f"{said}, as it speaks none: give {plain}, or have it serve TLS.")
    return AddressError(f"{said} ({reason}): have it serve a certificate that this machine can check.")


def speaks_tls(host: str, port: int, timeout_s: float = 2.0) -> bool:
    """Return whether a server that gave no readable answer to plain words shakes hands over TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent or believed
    try:
        with (
            socket.create_connection((host, port), timeout_s) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return True
    except OSError:
        return False


class ActionClient:
    """One connection to ``POST /act``, kept open. Threads take turns."""

    def __init__(self, url: str, token: str | None = None, timeout_s: float = 60.0, patience_s: float = 60.0) -> None:
        """Name the server; nothing is sent yet.

        url: http://host:port or https://…. timeout_s: for one answer. patience_s: for all attempts at one together.
        """
        hostname, given_port = check_address(url, ("http", "https"))
        parts = urlsplit(url)
        self.url = url.rstrip("/")
        self._patience_s = patience_s
        self._base = parts.path.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        secure = parts.scheme == "https"
        port = given_port or (443 if secure else 80)
        self._connection: http.client.HTTPConnection = (
            http.client.HTTPSConnection(hostname, port, timeout=timeout_s, context=ssl.create_default_context())
            if secure
            else http.client.HTTPConnection(hostname, port, timeout=timeout_s)
        )
        self._address, self._is_plain = (hostname, port), not secure
        self._lock = threading.Lock()
        self._session = uuid.uuid4().hex

    def metadata(self) -> dict[str, Any]:
        """Return what the server's policy reads and writes, and what it was made of."""
        return self._ask("GET", "/metadata")

    def act(
        self,
        images: Mapping[str, np.ndarray],
        state: np.ndarray | Sequence[float],
        instruction: str,
        episode: str = "",
        step: int = 0,
    ) -> np.ndarray:
        """Return (horizon, action_dim) float32 actions in the convention that ``metadata()["spec"]`` states.

        images: camera -> (H, W, 3) uint8, upright. state: the parts of ``metadata()["spec"]["state_keys"]`` side by
        side. episode: names it, for policies that remember; each client has a default of its own. Raises ServerError.
        """
        return self.act_together([observation(images, state, instruction, episode or self._session, step)])[0]

    def act_together(self, observations: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Return (batch, horizon, action_dim) float32 for several of ``observation``'s maps; raises ServerError."""
        actions: np.ndarray = self.ask_together(observations)["actions"]
        return actions

    def ask_together(self, observations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the server's whole reply: ``actions`` as of ``act_together``, ``incarnation`` and ``memories``.

        The incarnation is new each time the server starts. Of a policy that remembers episodes there is a number for
        each observation, which stays the same while nothing of its episode was forgotten. Raises ServerError.
        """
        reply = self._ask("POST", "/act", {"observations": list(observations), "session": self._session})
        actions = reply.get("actions") if isinstance(reply, dict) else None
        if not isinstance(actions, np.ndarray) or actions.ndim != 3 or len(actions) != len(observations):
            raise ServerError(f"{self.url} answered without actions for {len(observations)} observations.")
        return dict(reply)

    def end_episode(self, episode: str) -> None:
        """Have the server forget an episode. A server that is gone has forgotten it."""
        with suppress(TryAgain, ServerError):
            self._once("POST", f"/forget?episode={quote(episode, safe='')}&session={self._session}", None)

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> ActionClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _ask(self, method: str, path: str, message: Any = None) -> Any:
        body = None if message is None else VLA_EVAL.pack(message)
        return keep_trying(lambda: self._once(method, path, body), self._patience_s, self.url)

    def _once(self, method: str, path: str, body: bytes | None) -> Any:
        headers = self._headers | ({"Content-Type": "application/msgpack"} if body is not None else {})
        with self._lock:
            try:
                self._connection.request(method, self._base + path, body, headers)
                response = self._connection.getresponse()
                data = response.read(MAX_REPLY + 1)
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                if is_tls_failure(error):
                    raise tls_error(error, self.url) from None
                if isinstance(error, http.client.BadStatusLine) and self._is_plain and speaks_tls(*self._address):
                    raise AddressError(f"{self.url} speaks TLS: give https://{self.url.partition('://')[2]}.") from None
                raise TryAgain(f"{type(error).__name__}: {error}") from None
        if len(data) > MAX_REPLY:
            self._connection.close()
            raise ServerError(f"{self.url}{path} answered more than {MAX_REPLY} bytes.")
        if response.status == 200:
            try:
                kind = response.headers.get_content_type()
                return VLA_EVAL.unpack(data) if kind == "application/msgpack" else json.loads(data)
            except (WireError, ValueError):
                raise ServerError(f"{self.url}{path} answered something unreadable.") from None
        sentence = _sentence(data) or response.reason
        if response.status in (409, 429, 502, 503, 504):
            raise TryAgain(sentence.rstrip("."), float(response.headers.get("Retry-After") or 0), busy=True)
        raise ServerError(f"{self.url} refused ({response.status}): {sentence}")


def connect(url: str, token: str | None = None, timeout_s: float = 60.0, patience_s: float = 60.0) -> ActionClient:
    """Return a client of the server at ``url``, which is asked for its metadata; raises ServerError."""
    client = ActionClient(url, token, timeout_s, patience_s)
    if not isinstance(said := client.metadata(), dict) or said.get("server") != "vla-harness":
        raise ServerError(f"{url} is no action server of vla-harness: its /metadata says nothing of a policy.")
    return client


def observation(
    images: Mapping[str, np.ndarray], state: np.ndarray | Sequence[float], instruction: str, episode: str, step: int
) -> dict[str, Any]:
    """Return an observation as ``act_together`` takes it."""
    return {
        "images": {camera: np.ascontiguousarray(frame) for camera, frame in images.items()},
        "state": np.asarray(state, np.float32),
        "instruction": instruction,
        "episode": episode,
        "step": int(step),
    }


def _sentence(data: bytes) -> str:
    try:
        said = json.loads(data)
        return str(said.get("error") or said.get("detail") or "")
    except (ValueError, AttributeError):
        return ""
