"""GR00T's ZeroMQ service: request and reply in msgpack, for the clients of N1.5 and N1.6.

Source: NVIDIA/Isaac-GR00T ``gr00t/eval/service.py`` (N1.5) and ``gr00t/policy/server_client.py`` (N1.6). Their servers
hold a REP socket, which serves one client after the other; a ROUTER talks to the same clients, all at once.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Literal

import zmq
import zmq.asyncio

from vla_harness.errors import UserError

from ..core import fields
from ..core.decoding import decode
from ..core.refusal import Refusal
from ..core.security import GuessLimiter
from ..core.service import ActionService
from ..wire.arrays import WireError
from ..wire.codecs import GROOT
from . import forms
from .departures import Departures
from .groot_forms import modality_config, read_groot

log = logging.getLogger("vla_harness.servers")
Version = Literal["n1.5", "n1.6"]
UNAUTHORIZED = "Unauthorized: Invalid API token"

_MAX_MESSAGES, _MAX_BYTES = 256, 256 * 2**20
"""Requests, and bytes of them together, that are under way at a time; beyond it clients are told to send again."""

_WAITING = 4
"""Messages that wait for the server, and replies for the client, on each connection."""

_LINGER_MS = 1000
"""Milliseconds that the last replies get to leave."""

_HANDSHAKE_MS, _HEARTBEAT_MS = 10_000, 30_000
"""Milliseconds for ZeroMQ's own handshake, and between signs of life; four missing ones end a connection."""


class Gr00tSocket:
    """One bound socket; ``serve`` answers its messages until it is cancelled."""

    def __init__(
        self,
        service: ActionService,
        host: str,
        port: int,
        token: str | None = None,
        version: Version = "n1.5",
        max_body: int = 64 * 2**20,
        stop: Callable[[], None] | None = None,
        guesses: GuessLimiter | None = None,
    ) -> None:
        """Bind; raises UserError when the port is taken.

        version: whose ``get_modality_config`` is answered: N1.5's clients read JSON text, N1.6's maps. stop: ends the
        server; called on ``kill``, which needs a token. port: 0 for any free one, then see ``self.port``.
        guesses: slows down whoever tries tokens.
        """
        self._service, self._token, self._version, self._stop = service, token, version, stop
        self._max_body, self._guesses = max_body, guesses or GuessLimiter()
        self._messages = self._bytes = 0
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._departures = Departures(self._socket)
        self._socket.setsockopt(zmq.RCVHWM, _WAITING)
        self._socket.setsockopt(zmq.SNDHWM, _WAITING)
        self._socket.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)
        self._socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS)
        self._socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 4 * _HEARTBEAT_MS)
        self._socket.setsockopt(zmq.MAXMSGSIZE, max_body)
        self._socket.setsockopt(zmq.IPV6, ":" in host)
        address = f"[{host.strip('[]')}]" if ":" in host else host
        try:
            self._socket.bind(f"tcp://{'127.0.0.1' if address == 'localhost' else address}:{port or '*'}")
        except zmq.ZMQError as error:
            self.close()
            raise UserError(
                f"Port {port} of {host} cannot be bound for ZeroMQ ({error}): give another --zmq-port."
            ) from None
        self.port = int(self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2])

    async def serve(self) -> None:
        """Answer messages, each in a task of its own, so that concurrent clients share batches."""
        departures = asyncio.create_task(self._departures.watch())
        tasks: set[asyncio.Task[None]] = set()
        try:
            while True:
                task = asyncio.create_task(self._reply(await self._socket.recv_multipart(copy=False)))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        finally:
            departures.cancel()
            with suppress(asyncio.CancelledError):
                await departures

    def close(self) -> None:
        """Free the port."""
        self._socket.disable_monitor()
        self._context.destroy(linger=_LINGER_MS)

    async def _reply(self, frames: Sequence[zmq.Frame]) -> None:
        """Answer a message: address, empty frame, body, as REQ sockets send it; DEALERs may leave the empty one out.

        Whatever happens there is an answer, because a REQ socket cannot go on without.
        """
        enveloped = len(frames) > 1 and not len(frames[1])
        head = [frame.bytes for frame in frames[: 2 if enveloped else 1]]
        body = [frame.bytes for frame in frames[len(head) :]]
        work = asyncio.ensure_future(self._packed(body, str(frames[0].get("Peer-Address"))))
        self._departures.note(frames[0], work)
        try:
            reply = await work
        except Refusal as refusal:
            reply = GROOT.pack({"error": refusal.sentence})
        except asyncio.CancelledError:
            reply = GROOT.pack({"error": "The client went away."})
        except Exception:
            log.exception("A ZeroMQ message could not be answered.")
            reply = GROOT.pack({"error": "The server failed on this message; its log says how."})
        with suppress(zmq.ZMQError):  # the server has ended
            await self._socket.send_multipart([*head, reply])

    async def _packed(self, body: Sequence[bytes], address: str) -> bytes:
        """Return the reply's bytes; raises Refusal."""
        with self._under_way(sum(map(len, body))):
            if len(body) != 1:
                raise Refusal(400, f"The message has {len(body)} parts: send one, in msgpack.")
            return GROOT.pack(await self.answer(body[0], address))

    @contextmanager
    def _under_way(self, size: int) -> Iterator[None]:
        """Count a message; raises Refusal (503) for more than the server holds at a time."""
        if self._messages >= _MAX_MESSAGES or self._bytes + size > max(_MAX_BYTES, self._max_body):
            raise Refusal(503, "Too many requests are under way; send it again.")
        self._messages += 1
        self._bytes += size
        try:
            yield
        finally:
            self._messages -= 1
            self._bytes -= size

    async def answer(self, body: bytes, address: str = "") -> Any:
        """Return the reply's value; raises Refusal. The token comes first, whatever else the message holds."""
        try:
            if self._token is not None:
                await asyncio.sleep(self._guesses.reserve(address))
                if not _is_token(await decode(len(body), lambda _: GROOT.peek(body)), self._token):
                    return {"error": UNAUTHORIZED}
                self._guesses.forgive(address)
            message = await decode(len(body), lambda _: GROOT.unpack(body))
        except WireError as error:
            raise Refusal(400, str(error)) from None
        if not isinstance(message, dict) or not all(isinstance(key, str) for key in message):
            raise Refusal(422, "The message is no map with text keys.")
        match message.get("endpoint", "get_action"):
            case "get_action":
                return await self._act(fields.table(message, "data"), len(body))
            case "ping":
                return {"status": "ok", "message": "Server is running"}
            case "get_modality_config":
                return modality_config(self._service, as_text=self._version == "n1.5")
            case "metadata":  # ours; GR00T's own servers do not know it
                return self._service.metadata()
            case "reset":
                return {}
            case "kill":
                if self._token is None or self._stop is None:
                    raise Refusal(403, "kill: a server without a token is stopped where it runs.", "endpoint")
                self._stop()
                return {"status": "ok", "message": "Server is shutting down"}
            case other:
                raise Refusal(
                    422,
                    f"Unknown endpoint: {fields.describe(other) if not isinstance(other, str) else other[:100]}",
                    "endpoint",
                )

    async def _act(self, data: Mapping[str, Any], size: int) -> Any:
        """Return the actions, as N1.6's pair of actions and information when its form was sent."""
        newer = isinstance(data.get("observation"), dict)
        observation = fields.table(data, "observation") if newer else data
        request = await decode(size, lambda pixels: read_groot(observation, self._service, pixels=pixels))
        actions = await forms.answer(request, self._service)
        return [actions, {}] if newer else actions


def _is_token(message: Any, token: str) -> bool:
    """Return whether the message shows the token; the comparison takes constant time."""
    shown = message.get("api_token") if isinstance(message, dict) else None
    return isinstance(shown, str) and hmac.compare_digest(shown.encode("utf-8", "surrogatepass"), token.encode())
