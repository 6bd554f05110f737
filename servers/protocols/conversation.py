"""Notices that a client has left while it waits for its answer; websockets are read one message ahead for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from fastapi import WebSocket


class Gone(Exception):
    """The client went away."""


async def unless_gone(work: Awaitable[Any], heard: asyncio.Future[Any]) -> Any:
    """Return what ``work`` returns; cancel it, and raise Gone, when the client goes away.

    heard: the next ASGI message of the client. Any other message than a disconnect changes nothing.
    """
    task = asyncio.ensure_future(work)

    def left() -> bool:
        if not heard.done() or heard.cancelled():
            return False
        return heard.exception() is not None or heard.result()["type"].endswith(".disconnect")

    def look(_: object) -> None:
        if left():
            task.cancel()

    heard.add_done_callback(look)
    try:
        return await task
    except asyncio.CancelledError:
        if left():
            raise Gone from None
        raise
    finally:
        heard.remove_done_callback(look)
        task.cancel()


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
        return await unless_gone(work, self._next)

    def close(self) -> None:
        """Stop reading ahead."""
        self._next.cancel()
