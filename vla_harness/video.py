"""Writing frames to an H.264 file that plays in every browser."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np

from .results.files import explain_write_errors, unfinished_path

READABLE = ("mov", "mp4", "matroska", "webm", "avi")
"""Formats of files that are read; others, such as playlists, name further files and addresses, which are opened."""


def open_video(path: Path) -> av.container.InputContainer:
    """Open a video to read; nothing but this file is read. Raises what PyAV raises, also for other formats."""
    if path.exists() and not path.is_file():  # reading a device or a pipe may never end
        raise OSError(errno.EINVAL, "no ordinary file", str(path))
    return av.open(os.path.abspath(path), container_options={"format_whitelist": ",".join(READABLE)})


class VideoWriter:
    """Writes (height, width, 3) uint8 frames to ``path`` as H.264, yuv420p, at ``fps`` frames a second.

    The file appears under its name when ``close`` has finished it; until then it has a random one. As a context manager
    it closes, or aborts when an exception leaves the block. Raises UserError when the disk is full or ``path`` cannot
    be written.
    """

    def __init__(
        self, path: str | Path, height: int, width: int, fps: int = 20, keyframe_every: int | None = None
    ) -> None:
        """``keyframe_every``: frames between those that decode alone (None: the encoder's choice, for watching)."""
        self.path = Path(path)
        self._shape = (height, width, 3)
        self._part = unfinished_path(self.path)
        with explain_write_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._part.touch()  # the library opens it at the first frame and not before
            # faststart puts the index first, so that a browser can begin before it has the whole file
            self._container = av.open(str(self._part), "w", format="mp4", options={"movflags": "faststart"})
        self._stream = self._container.add_stream("libx264", rate=fps)
        self._stream.height, self._stream.width = height + height % 2, width + width % 2  # yuv420p halves both
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"crf": "20", "preset": "veryfast"}
        if keyframe_every is not None:
            self._stream.options |= {"g": str(keyframe_every), "bf": "0"}
        self._stream.thread_count = 1  # the cores belong to the simulators
        self._frames = 0
        self._open = True

    def add(self, frame: np.ndarray) -> None:
        """Append one frame, (height, width, 3) uint8. Raises ValueError for another shape or dtype."""
        if frame.shape != self._shape or frame.dtype != np.uint8:
            raise ValueError(f"a frame is {frame.shape} {frame.dtype}, the video takes {self._shape} uint8")
        height, width, _ = self._shape
        if height % 2 or width % 2:
            frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        with explain_write_errors(self.path):
            self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        self._frames += 1

    def close(self) -> None:
        """Finish the file and give it its name. Without a frame, or after ``abort``, there is no file."""
        if not self._open:
            return
        if not self._frames:
            self.abort()
            return
        self._open = False
        with explain_write_errors(self.path):
            try:
                self._container.mux(self._stream.encode())
                self._container.close()
                self._part.replace(self.path)
            except BaseException:
                self._part.unlink(missing_ok=True)
                raise

    def abort(self) -> None:
        """Drop what was written."""
        if self._open:
            self._open = False
            with suppress(OSError):  # a full disk fails here again
                self._container.close()
            with suppress(OSError):
                self._part.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abort()
