"""Videos: what is written can be read, and a half-written one never has the final name."""

from pathlib import Path

import av
import numpy as np
import pytest

from vla_harness.errors import UserError
from vla_harness.video import VideoWriter


def frames(count: int, height: int, width: int) -> np.ndarray:
    """Return (count, height, width, 3) uint8 frames of one grey each, brighter from frame to frame."""
    greys = np.linspace(20, 235, count).astype(np.uint8)
    return np.broadcast_to(greys[:, None, None, None], (count, height, width, 3))


@pytest.mark.parametrize(("height", "width"), [(64, 96), (65, 97)])
def test_frames_come_back(tmp_path: Path, height: int, width: int) -> None:
    path = tmp_path / "videos" / "episode.mp4"
    with VideoWriter(path, height, width, fps=20) as video:
        for frame in frames(12, height, width):
            video.add(frame)
        assert not path.exists()
    assert list(path.parent.iterdir()) == [path]
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 20
    assert [frame.shape for frame in decoded] == [(height + height % 2, width + width % 2, 3)] * 12
    for frame, wanted in zip(decoded, frames(12, height, width), strict=True):
        np.testing.assert_allclose(frame[:height, :width], wanted, atol=6)


def test_an_exception_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stop"), VideoWriter(tmp_path / "episode.mp4", 64, 64) as video:
        video.add(frames(1, 64, 64)[0])
        raise RuntimeError("stop")
    assert list(tmp_path.iterdir()) == []


def test_a_video_without_frames_is_no_file(tmp_path: Path) -> None:
    video = VideoWriter(tmp_path / "episode.mp4", 64, 64)
    video.close()
    video.close()
    video.abort()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("frame", [np.zeros((64, 32, 3), np.uint8), np.zeros((64, 64, 3), np.float32)])
def test_other_frames_are_refused(tmp_path: Path, frame: np.ndarray) -> None:
    with VideoWriter(tmp_path / "episode.mp4", 64, 64) as video, pytest.raises(ValueError, match="a frame is"):
        video.add(frame)


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        VideoWriter(tmp_path / "file" / "episode.mp4", 64, 64)
