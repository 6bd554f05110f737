"""A websocket read one message ahead, so that a client's leaving is noticed while it waits for its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from fastapi import WebSocket


class Gone(Exception):
    """The client went away."""


class Conversation:
    """Reads and writes binary messages; every method raises Gone when the client has left."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._next = asyncio.ensure_future(websocket.receive())

    async def receive(self) -> bytes | str:
        """Return the next message."""
        message = await self._next
        if message["type"] == "websocket.disconnect":
            raise Gone
        self._next = asyncio.ensure_future(self._websocket.receive())
        data: bytes | str | None = message.get("bytes")
        return data if data is not None else message["text"]

    async def send(self, data: bytes | str) -> None:
        """Send a message."""
        try:
            await (self._websocket.send_text(data) if isinstance(data, str) else self._websocket.send_bytes(data))
        except Exception:  # each websocket library has its own for a closed one
            raise Gone from None

    async def unless_gone(self, work: Awaitable[Any]) -> Any:
        """Return what ``work`` returns; cancel it when the client goes away."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait((task, self._next), return_when=asyncio.FIRST_COMPLETED)
            if not task.done() and self._next.result()["type"] == "websocket.disconnect":
                raise Gone
            return await task
        finally:
            task.cancel()

    def close(self) -> None:
        """Stop reading ahead."""
        self._next.cancel()
