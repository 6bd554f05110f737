"""Depth, gray and transparent images are kept bit for bit, and what cannot be read is named."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.vla_harness.data import public
from vla_harness.data import convert_dataset, open_dataset
from vla_harness.data.__main__ import main
from vla_harness.data.check import check_dataset
from vla_harness.data.features import IMAGE_TYPE
from vla_harness.errors import UserError

SIZE = (public.SIZE, public.SIZE)
KINDS: dict[str, tuple[int, np.ndarray, str]] = {  # channels, the first image, file format
    "depth": (1, np.arange(public.SIZE**2, dtype=np.uint16).reshape(SIZE) * 61, "PNG"),
    "metres": (1, np.linspace(0, 3, public.SIZE**2, dtype=np.float32).reshape(SIZE), "TIFF"),
    "gray": (1, np.arange(public.SIZE**2).astype(np.uint8).reshape(SIZE), "PNG"),
    "alpha": (4, np.arange(4 * public.SIZE**2).astype(np.uint8).reshape(*SIZE, 4), "PNG"),
}


def encoded(array: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """openpi's layout with a camera of each kind, and a sound, which no version here knows."""
    path = public.write(tmp_path_factory.mktemp("kinds") / "mixed", "openpi")
    info = json.loads((path / "meta/info.json").read_text())
    for kind, (channels, _, _) in KINDS.items():
        info["features"][kind] = {"dtype": "image", "shape": [*SIZE, channels], "names": ["height", "width", "channel"]}
    info["features"]["sound"] = {"dtype": "audio", "shape": [1], "names": None}
    (path / "meta/info.json").write_text(json.dumps(info))
    for file in sorted((path / "data").rglob("*.parquet")):
        table = pq.read_table(file)
        for kind, (_, array, fmt) in KINDS.items():
            cells = [{"bytes": encoded(np.roll(array, row), fmt), "path": None} for row in range(table.num_rows)]
            table = table.append_column(kind, pa.array(cells, IMAGE_TYPE))
        pq.write_table(table.append_column("sound", pa.array([0.0] * table.num_rows)), file)
    return path


def test_every_kind_is_kept_bit_for_bit(mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(mixed), str(tmp_path / "v30"), "--version", "v3.0"]) == 0
    assert capsys.readouterr().out.startswith("left out: sound of the unknown dtype 'audio'\n")
    back = convert_dataset(open_dataset(tmp_path / "v30"), tmp_path / "v21", "v2.1")
    assert list(check_dataset(open_dataset(tmp_path / "v30"))) == list(check_dataset(back)) == []
    first = pq.read_table(mixed / "data/chunk-000/episode_000000.parquet")
    for path in (tmp_path / "v30", tmp_path / "v21"):
        dataset = open_dataset(path)
        stored = pq.read_table(next((path / "data").rglob("*.parquet"))).slice(0, public.ROWS)
        for kind, (channels, array, _) in KINDS.items():
            assert stored[kind].to_pylist() == first[kind].to_pylist()
            assert dataset.features[kind].shape == (*SIZE, channels)
            np.testing.assert_array_equal(dataset.episode(0).raw_images(kind, [0])[0], array)
    content = json.loads((tmp_path / "v30/meta/stats.json").read_text())
    assert np.shape(content["depth"]["mean"]) == (3, 1, 1)
    assert content["depth"]["max"][0][0][0] == pytest.approx(KINDS["depth"][1].max() / 255)


def test_colors_are_read_and_depth_is_refused_by_name(mixed: Path) -> None:
    episode = open_dataset(mixed).episode(0)
    np.testing.assert_array_equal(episode.images("gray", [0])[0], np.repeat(KINDS["gray"][1][..., None], 3, axis=2))
    np.testing.assert_array_equal(episode.images("alpha", [0])[0], KINDS["alpha"][1][..., :3])
    for kind in ("depth", "metres"):
        with pytest.raises(UserError, match=f"Episode 0 of .* row 3 of {kind}, has an image of the kind .* no color"):
            episode.images(kind, [3])


def test_what_a_conversion_into_videos_cannot_keep_is_named(
    mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "ours"
    assert main(["convert", str(mixed), str(out), "--version", "v2.1", "--convention", "openpi"]) == 0
    told = capsys.readouterr().out
    assert "left out: sound of" in told and "left out, as depth cannot become a video: depth, metres\n" in told
    assert list(check_dataset(open_dataset(out))) == []
    assert set(open_dataset(out).cameras) == {
        *("observation.images.agentview", "observation.images.wrist"),
        *("gray", "alpha"),
    }


def test_summary_plot_and_check_take_every_kind(
    mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["summary", str(mixed)]) == 0
    assert "left out   sound of the unknown dtype 'audio'\n" in capsys.readouterr().out
    assert main(["plot", str(mixed), "--out", str(tmp_path / "a.png")]) == 0
    assert main(["check", str(mixed)]) == 1
    told = capsys.readouterr().out
    assert "lists sound of the unknown dtype 'audio': it is left out" in told and "cannot be read" not in told
