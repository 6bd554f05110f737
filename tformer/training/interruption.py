"""Stopping a training on SIGINT or SIGTERM without losing the steps taken."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from .distributed import leads

STOPPING = "\nstopping: the training is saved after this step; interrupt it again to leave at once without saving\n"


class StopRequest:
    """The wish to stop. The first signal sets it and says so at once, the second raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self.requested = False
        self._raises = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal; the arguments are those of ``signal.signal``'s handlers."""
        again, self.requested = self.requested, True
        if again or self._raises:
            raise KeyboardInterrupt
        if leads():
            os.write(2, STOPPING.encode())  # a handler must not use buffered streams, which it may have interrupted

    @contextmanager
    def raised(self) -> Iterator[None]:
        """Raise KeyboardInterrupt anywhere within the block, for work that can be repeated, such as a validation."""
        self._raises = True
        try:
            if self.requested:
                raise KeyboardInterrupt
            yield
        finally:
            self._raises = False


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a StopRequest within the block, so that a training stops between two steps."""
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield stop
        return
    before = {number: signal.signal(number, stop.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
