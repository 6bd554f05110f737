"""Packets of videos are copied bit for bit, whatever encoded them."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest

from tests.vla_harness.data.recorded import FIXTURES, bar_row
from vla_harness.data import convert_dataset, open_dataset
from vla_harness.data.check import check_dataset
from vla_harness.data.joining import VideoJoiner, extract_video
from vla_harness.data.lerobot import VideoPart
from vla_harness.data.videos import VideoFile
from vla_harness.errors import UserError

FRONT = "observation.images.front"


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


@pytest.mark.parametrize(("release", "version"), [("0.3.3", "v3.0"), ("0.4.4", "v2.1")])
def test_av1_of_lerobot_is_copied_bit_for_bit(release: str, version: str, tmp_path: Path) -> None:
    source = open_dataset(FIXTURES / f"written_by_lerobot_{release}")
    written = convert_dataset(source, tmp_path / "out", version)  # type: ignore[arg-type]
    stored = [
        [packet for file in sorted(one.path.rglob("*.mp4")) for packet in packets(file)] for one in (source, written)
    ]
    assert stored[0] == stored[1] and len(stored[0]) == 27
    assert written.features[FRONT].info["video.codec"] == "av1"
    for number in range(3):
        rows = range(8 + number)
        before, after = (one.episode(number).images(FRONT, rows) for one in (source, written))
        np.testing.assert_array_equal(after, before)
    assert list(check_dataset(written)) == []


def encode(path: Path, codec: str, form: str = "mp4") -> None:
    """Write ten frames; the bright bar stands at column 4 times the frame's number."""
    with av.open(str(path), "w", format=form) as container:
        stream = cast(av.VideoStream, container.add_stream(codec, rate=10))
        stream.width, stream.height = 64, 48
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for row in range(10):
            frame = np.full((48, 64, 3), (20, 40, 60), np.uint8)
            frame[:, 4 * row : 4 * row + 4] = (250, 200, 90)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.parametrize("codec", ["libsvtav1", "libvpx-vp9", "libx264", "mpeg4", "mjpeg"])
def test_every_codec_is_joined_and_cut_again(codec: str, tmp_path: Path) -> None:
    encode(tmp_path / "one.mp4", codec)
    joiner = VideoJoiner(tmp_path / "joined.mp4", 10)
    places = [joiner.append(VideoPart(tmp_path / "one.mp4")) for _ in range(2)]
    joiner.close()
    assert places == [(0.0, 1.0), (1.0, 2.0)]
    assert packets(tmp_path / "joined.mp4") == 2 * packets(tmp_path / "one.mp4")
    frames = VideoFile(tmp_path / "joined.mp4").read(range(20))
    assert [bar_row(frame) for frame in frames] == 2 * list(range(10))
    extract_video(VideoPart(tmp_path / "joined.mp4", *places[1]), tmp_path / "cut.mp4", 10)
    assert packets(tmp_path / "cut.mp4") == packets(tmp_path / "one.mp4")
    np.testing.assert_array_equal(VideoFile(tmp_path / "cut.mp4").read(range(10)), frames[10:])


def test_a_codec_that_mp4_cannot_carry_is_refused_in_a_sentence(tmp_path: Path) -> None:
    encode(tmp_path / "odd.mp4", "libvpx", "matroska")
    with pytest.raises(UserError, match=r"odd\.mp4 cannot be copied into an mp4 file .*vp8.*: encode it anew"):
        VideoJoiner(tmp_path / "joined.mp4", 10).append(VideoPart(tmp_path / "odd.mp4"))
