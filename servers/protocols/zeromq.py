"""GR00T's ZeroMQ service: request and reply in msgpack, for the clients of N1.5 and N1.6.

Source: NVIDIA/Isaac-GR00T ``gr00t/eval/service.py`` (N1.5) and ``gr00t/policy/server_client.py`` (N1.6). Their servers
hold a REP socket, which serves one client after the other; a ROUTER talks to the same clients, all at once.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Callable, Mapping
from typing import Any, Literal

import zmq
import zmq.asyncio

from vla_harness.errors import UserError

from ..core import fields
from ..core.refusal import Refusal
from ..core.service import ActionService
from ..wire.arrays import WireError
from ..wire.codecs import GROOT
from . import forms
from .groot_forms import modality_config, read_groot

log = logging.getLogger("vla_harness.servers")
Version = Literal["n1.5", "n1.6"]
UNAUTHORIZED = "Unauthorized: Invalid API token"


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
    ) -> None:
        """Bind; raises UserError when the port is taken.

        version: whose ``get_modality_config`` is answered: N1.5's clients read JSON text, N1.6's maps. stop: ends the
        server; called on ``kill``, which needs a token. port: 0 for any free one, then see ``self.port``.
        """
        self._service, self._token, self._version, self._stop = service, token, version, stop
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.MAXMSGSIZE, max_body)
        self._socket.setsockopt(zmq.LINGER, 1000)
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
        tasks: set[asyncio.Task[None]] = set()
        while True:
            frames = await self._socket.recv_multipart()
            if len(frames) == 3 and not frames[1]:  # address, empty, body: what a REQ socket sends
                task = asyncio.create_task(self._reply(frames[0], frames[2]))
                tasks.add(task)
                task.add_done_callback(tasks.discard)

    def close(self) -> None:
        """Free the port."""
        self._socket.close()
        self._context.term()

    async def _reply(self, address: bytes, body: bytes) -> None:
        try:
            reply = await self.answer(body)
        except Refusal as refusal:
            reply = {"error": refusal.sentence}
        except Exception:
            log.exception("A ZeroMQ message could not be answered.")
            reply = {"error": "The server failed on this message; its log says how."}
        await self._socket.send_multipart([address, b"", GROOT.pack(reply)])

    async def answer(self, body: bytes) -> Any:
        """Return the reply's value; raises Refusal."""
        try:
            message = GROOT.unpack(body)
        except WireError as error:
            raise Refusal(400, str(error)) from None
        if not isinstance(message, dict) or not all(isinstance(key, str) for key in message):
            raise Refusal(422, "The message is no map with text keys.")
        shown = message.get("api_token")
        if self._token is not None and not (
            isinstance(shown, str) and hmac.compare_digest(shown.encode("utf-8", "surrogatepass"), self._token.encode())
        ):
            return {"error": UNAUTHORIZED}
        match message.get("endpoint", "get_action"):
            case "get_action":
                return await self._act(fields.table(message, "data"))
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
                raise Refusal(422, f"Unknown endpoint: {str(other)[:100]}", "endpoint")

    async def _act(self, data: Mapping[str, Any]) -> Any:
        """Return the actions, as N1.6's pair of actions and information when its form was sent."""
        newer = isinstance(data.get("observation"), dict)
        observation = fields.table(data, "observation") if newer else data
        actions = await forms.answer(read_groot(observation, self._service), self._service)
        return [actions, {}] if newer else actions
