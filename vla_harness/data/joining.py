"""Joining and cutting videos without encoding them anew."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path

import av

from ..errors import UserError
from ..results.files import new_file, unfinished_path
from ..video import VideoWriter, open_video
from .lerobot import VideoPart
from .videos import VideoFile

GAP_BETWEEN_KEYFRAMES = 2
"""Frames between keyframes of the videos written here, as in lerobot: any frame is decoded from at most two."""


class VideoJoiner:
    """Appends whole videos to one mp4. The file has its name once ``close`` has finished it."""

    def __init__(self, path: Path, fps: float) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.fps = path, Fraction(fps).limit_denominator(1001)
        self.frames = 0
        self._part = unfinished_path(path)
        self._container = av.open(str(self._part), "w", format="mp4", options={"movflags": "faststart"})
        self._stream: av.VideoStream | None = None

    def fits(self, part: VideoPart) -> bool:
        """Whether the video was encoded with the parameters of those before it."""
        if self._stream is None:
            return True
        with open_video(part.path) as source:
            context = source.streams.video[0].codec_context
            return context.extradata == self._extradata and context.name == self._codec

    def append(self, part: VideoPart) -> tuple[float, float]:
        """Append the whole of ``part``. Returns where it begins and ends in the joined file, in seconds."""
        start = self.frames / self.fps
        with open_video(part.path) as source:
            stream = source.streams.video[0]
            if self._stream is None:
                self._stream = _copied_stream(self._container, stream, part.path)
                self._extradata, self._codec = stream.codec_context.extradata, stream.codec_context.name
            assert stream.time_base is not None
            shift = round(start / stream.time_base)
            count = 0
            for packet in source.demux(stream):
                if not packet.size:  # the one that ends a stream
                    continue
                if packet.dts is None or packet.pts is None:
                    raise UserError(f"{part.path} holds packets without times, which cannot be joined: encode it anew.")
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                packet.stream = self._stream
                self._container.mux(packet)
                count += 1
        self.frames += count
        return float(start), float(self.frames / self.fps)

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._part.stat().st_size

    def close(self) -> None:
        """Finish the file and give it its name."""
        self._container.close()
        self._part.replace(self.path)


def _copied_stream(target: av.container.OutputContainer, source: av.VideoStream, path: Path) -> av.VideoStream:
    """Return a stream of ``target`` for packets of ``source``. Raises UserError for a codec that mp4 cannot carry."""
    try:
        # Opaque: by the codec's parameters. Else an encoder is looked up by the decoder's name, and for AV1 (libdav1d)
        # and VP9 there is none.
        return target.add_stream_from_template(source, opaque=True)
    except ValueError as error:
        raise UserError(f"{path} cannot be copied into an mp4 file ({error}): encode it anew as H.264.") from None


def extract_video(part: VideoPart, path: Path, fps: float) -> None:
    """Write the frames of ``part`` to ``path``: a copy where it is a whole file or begins with a keyframe."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if part.end is None:
        with new_file(path) as unfinished:
            shutil.copyfile(part.path, unfinished)
        return
    half = 0.5 / fps
    if not _cut(part, path, half):
        video = VideoFile(part.path)
        inside = [i for i, time in enumerate(video.times) if part.start - half <= time < part.end - half]
        with VideoWriter(path, video.height, video.width, round(fps), GAP_BETWEEN_KEYFRAMES) as writer:
            for frame in inside:
                writer.add(video.read([frame])[0])


def _cut(part: VideoPart, path: Path, half: float) -> bool:
    """Copy the packets of ``part`` to ``path``; False, and no file, where its first frame is no keyframe."""
    assert part.end is not None
    with open_video(part.path) as source:
        stream = source.streams.video[0]
        assert stream.time_base is not None
        packets = [
            packet
            for packet in source.demux(stream)
            if packet.pts is not None and part.start - half <= packet.pts * stream.time_base < part.end - half
        ]
        first = min((packet.pts for packet in packets if packet.pts is not None), default=None)
        if first is None or not packets[0].is_keyframe or packets[0].pts != first:
            return False
        with (
            new_file(path) as unfinished,
            av.open(str(unfinished), "w", format="mp4", options={"movflags": "faststart"}) as target,
        ):
            copied = _copied_stream(target, stream, part.path)
            for packet in packets:
                packet.pts, packet.dts = (packet.pts or 0) - first, (packet.dts or 0) - first
                packet.stream = copied
                target.mux(packet)
    return True
