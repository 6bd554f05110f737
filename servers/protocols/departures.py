"""Departures of ZeroMQ's clients: their requests are cancelled, so that their places in the queue are free.

A ROUTER socket does not say that a client has left. Its monitor does, by the number of the client's file descriptor,
which the operating system soon gives to the next connection.
"""

from __future__ import annotations

import asyncio
from typing import Any

import zmq
import zmq.asyncio
from zmq.utils.monitor import parse_monitor_message


class Departures:
    """Cancels the work for clients of ``socket`` that have left."""

    def __init__(self, socket: zmq.asyncio.Socket) -> None:
        self._socket = socket
        self._work: dict[int, dict[asyncio.Future[Any], bytes]] = {}

    def note(self, address: zmq.Frame, work: asyncio.Future[Any]) -> None:
        """Note what is done for the client at ``address``, the first frame of its message."""
        descriptor, name = int(address.get(zmq.SRCFD)), address.bytes
        known = self._work.setdefault(descriptor, {})
        for earlier, other in known.items():
            if other != name:  # its connection is gone: the descriptor is another one's now
                earlier.cancel()
        known[work] = name
        work.add_done_callback(lambda done: self._remove(descriptor, done))

    async def watch(self) -> None:
        """Cancel the work of whoever leaves, until cancelled."""
        with self._socket.get_monitor_socket(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED) as monitor:
            while True:
                self._take([await monitor.recv_multipart(), *_waiting(monitor)])

    def _take(self, messages: list[list[bytes]]) -> None:
        """Take all events there are: a descriptor that was given away again after a departure tells nothing."""
        last = {event["value"]: event["event"] for event in map(parse_monitor_message, messages)}
        for descriptor, event in last.items():
            if event == zmq.EVENT_DISCONNECTED:
                for work in self._work.get(descriptor, {}):
                    work.cancel()

    def _remove(self, descriptor: int, work: asyncio.Future[Any]) -> None:
        known = self._work.get(descriptor, {})
        known.pop(work, None)
        if not known:
            self._work.pop(descriptor, None)


def _waiting(monitor: zmq.asyncio.Socket) -> list[list[bytes]]:
    """Return the events that can be read without waiting."""
    messages = []
    while True:
        reading: asyncio.Future[list[bytes]] = monitor.recv_multipart(flags=zmq.NOBLOCK)  # type: ignore[assignment]
        try:
            messages.append(reading.result())
        except zmq.Again:
            return messages
