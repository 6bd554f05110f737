"""Frames of videos by time, exactly: an index of every frame first, then seeking and decoding by PyAV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np

from ..errors import UserError
from ..system_memory import require_memory
from ..video import open_video


@contextmanager
def opened_video(path: Path) -> Iterator[av.container.InputContainer]:
    """Open a video to read. Raises UserError, also within the block, where it is missing or damaged."""
    try:
        with open_video(path) as container:
            if not container.streams.video:
                raise UserError(f"{path} has no video stream: copy the file again.")
            yield container
    except FileNotFoundError:
        raise UserError(f"There is no {path}, which the dataset's metadata names: copy the dataset again.") from None
    except (av.error.FFmpegError, OSError) as error:
        reason = str(error).split(":")[0].split("] ")[-1]
        raise UserError(f"{path} is no whole video ({reason}): copy the file again.") from None


class VideoFile:
    """One video file. times: (frames,) float64 seconds, rising. Raises UserError where it is missing or damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        points = []
        with opened_video(self.path) as container:
            stream = container.streams.video[0]
            base = float(stream.time_base or 0)
            for packet in container.demux(stream):
                if packet.pts is not None and packet.size:
                    points.append((packet.pts, packet.is_keyframe))
            self.height, self.width = stream.codec_context.height, stream.codec_context.width
            self.codec, self.pixel_format = stream.codec_context.name, stream.codec_context.pix_fmt
        if not points:
            raise UserError(f"{path} holds no frame: copy the file again.")
        points.sort()
        self._pts = np.array([pts for pts, _ in points], np.int64)
        self._keyframes = np.array([pts for pts, key in points if key] or [points[0][0]], np.int64)
        self.times = self._pts * base

    def __len__(self) -> int:
        return len(self._pts)

    def nearest(self, times: np.ndarray, first: int = 0, last: int | None = None) -> np.ndarray:
        """Return (n,) int64: the frame nearest to each of the (n,) ``times``, within frames ``first`` to ``last``."""
        end = len(self) if last is None else min(last + 1, len(self))
        known = self.times[first:end]
        right = np.clip(np.searchsorted(known, times), 1, max(1, len(known) - 1))
        left = right - 1
        right = np.minimum(right, len(known) - 1)
        nearer_left = times - known[left] <= known[right] - times
        return first + np.where(nearer_left, left, right)

    def read(self, frames: Sequence[int] | np.ndarray, depth: bool = False) -> np.ndarray:
        """Return (n, height, width, 3) uint8: the n ``frames``, in the order asked for.

        depth: return (n, height, width) uint16 instead, the brightness as it is encoded, in 16 bits.
        """
        wanted = np.asarray(frames, np.int64)
        require_memory(len(wanted) * self.height * self.width * 3, f"{self.path} with {len(wanted):,} frames")
        size = len(wanted), self.height, self.width
        output = np.empty(size, np.uint16) if depth else np.empty((*size, 3), np.uint8)
        if not len(wanted):
            return output
        unique, positions = np.unique(wanted, return_inverse=True)
        with opened_video(self.path) as container:
            stream = container.streams.video[0]
            stream.thread_count = 1  # callers decode several videos at once
            decoded: Iterator[av.VideoFrame] = iter(())
            reached: int | None = None
            group = -1
            for i, pts in enumerate(self._pts[unique]):
                key = int(np.searchsorted(self._keyframes, pts, side="right")) - 1
                if reached is None or key > group:  # in the same group of pictures, decoding on is the shortest way
                    container.seek(int(self._keyframes[max(0, key)]), stream=stream, backward=True)
                    decoded, group = container.decode(stream), key
                for frame in decoded:
                    reached = frame.pts
                    if reached == pts:
                        break
                if reached != pts:
                    raise UserError(f"{self.path} ends or skips at frame {unique[i]}: copy the file again.")
                output[positions == i] = frame.to_ndarray(format="gray16le" if depth else "rgb24")
        return output
