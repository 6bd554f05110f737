"""Where messages are decoded: small ones in the event loop, large ones and pictures in two threads beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ..wire.pictures import EncodedPicture, PixelBudget

T = TypeVar("T")

_IN_LOOP = 1_000_000
"""Most bytes of a message that the event loop decodes: smaller ones take less time than handing them over."""

_threads = ThreadPoolExecutor(2, "decode")
"""No more than two, so that no more than two messages' pictures are unpacked at a time."""


async def decode(size: int, read: Callable[[PixelBudget], T]) -> T:
    """Return what ``read`` makes of a message of ``size`` bytes, whose images share the pixels it is given.

    It may be called twice, because whether there are pictures to decode is found out on the way. What it raises passes
    through.
    """
    if size <= _IN_LOOP:
        try:
            return read(PixelBudget(decode=False))
        except EncodedPicture:
            pass
    return await asyncio.get_running_loop().run_in_executor(_threads, read, PixelBudget())
