"""Datasets of others: they name no file outside themselves, ask for no absurd memory and steer no terminal."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.vla_harness.data import recorded as toy
from vla_harness import system_memory
from vla_harness.data import DatasetWriter, Feature, convert_dataset, open_dataset
from vla_harness.data.__main__ import main
from vla_harness.data.videos import VideoFile
from vla_harness.errors import UserError

VIDEO = f"videos/chunk-000/{toy.VIDEO}/episode_000001.mp4"
TABLE = "data/chunk-000/episode_000001.parquet"


@pytest.fixture
def damaged(v21: Path, tmp_path: Path) -> Path:
    root = tmp_path / "damaged"
    shutil.copytree(v21, root)
    return root


def refused(root: Path, tmp_path: Path) -> str:
    """Convert the dataset, which must be refused and leave nothing, and return the sentence."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError) as refusal:
        convert_dataset(open_dataset(root), tmp_path / "v3", "v3.0")
    assert sorted(tmp_path.rglob("*")) == before
    told = str(refusal.value)
    assert "\n" not in told and len(told) < 600
    return told


def change(root: Path, **fields: Any) -> None:
    """Change fields of info.json."""
    path = root / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def replace_text(root: Path, name: str, old: str, new: str) -> None:
    text = (root / name).read_text()
    assert old in text
    (root / name).write_text(text.replace(old, new, 1))


@pytest.mark.parametrize("name", ["../../escaped", "/tmp/escaped", "a/../../b", "..", "", "x\x1b[2J", "n" * 300])
def test_features_have_names_that_stay_inside(name: str, damaged: Path, tmp_path: Path) -> None:
    features = json.loads((damaged / "meta/info.json").read_text())["features"]
    features[name] = features.pop(toy.VIDEO)
    change(damaged, features=features)
    assert "which is no name for a column and its videos" in refused(damaged, tmp_path)
    with pytest.raises(UserError, match="is no name for a column"):
        DatasetWriter(tmp_path / "new", 10, {name: Feature("float32", (1,))})


@pytest.mark.parametrize("field", ["data_path", "video_path"])
@pytest.mark.parametrize(
    "template",
    [
        *("../{episode_index}.mp4", "/etc/{episode_index}", "a/../../{episode_index}", "{episode_index}\x00"),
        *("{episode_index.__class__}", "{episode_index:999999999d}", "{episode_index!r}", "{0}", "{}", "{{a}}", "{a"),
        *("{episode_chunk[0]}", "{episode_index:>9}", "n" * 300, 7, ["a"]),
    ],
)
def test_templates_are_filled_and_nothing_else(field: str, template: Any, damaged: Path, tmp_path: Path) -> None:
    change(damaged, **{field: template})
    assert field in refused(damaged, tmp_path)


def test_links_out_of_a_dataset_are_not_followed(damaged: Path, tmp_path: Path) -> None:
    shutil.move(damaged / "videos", tmp_path / "videos")
    (damaged / "videos").symlink_to(tmp_path / "videos")
    assert "which leads out of" in refused(damaged, tmp_path)


def test_playlists_and_pipes_are_no_videos(v21: Path, tmp_path: Path) -> None:
    shutil.copy(v21 / VIDEO, tmp_path / "other.mp4")
    assert len(VideoFile(tmp_path / "other.mp4")) == 15
    hls = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nother.mp4\n#EXT-X-ENDLIST\n"
    texts = {"concat.mp4": "ffconcat version 1.0\nfile 'other.mp4'\n", "hls.mp4": hls, "hls.m3u8": hls}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=f"{name} is no whole video"):
            VideoFile(tmp_path / name)
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(UserError, match=r"pipe\.mp4 is no whole video"):
        VideoFile(tmp_path / "pipe.mp4")


@pytest.mark.parametrize("name", ["meta/info.json", "meta/episodes.jsonl", TABLE])
def test_a_pipe_in_the_place_of_a_file_does_not_hang(name: str, damaged: Path, tmp_path: Path) -> None:
    (damaged / name).unlink()
    os.mkfifo(damaged / name)
    assert "is no ordinary file" in refused(damaged, tmp_path)


def test_hdf5_files_hold_all_that_is_read(own: Path, tmp_path: Path) -> None:
    (source,) = convert_dataset(open_dataset(own), tmp_path / "whole", "hdf5").path.iterdir()
    with h5py.File(source) as whole, h5py.File(tmp_path / "secret.h5", "w") as secret:
        actions = whole["data/demo_0/actions"][()]
        secret["x"] = actions
    (tmp_path / "raw.bin").write_bytes(actions.tobytes())
    layout = h5py.VirtualLayout(actions.shape, actions.dtype)
    layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "x", actions.shape)
    raw = [(str(tmp_path / "raw.bin"), 0, actions.nbytes)]
    texts = np.full(actions.shape, "a", h5py.string_dtype())
    damages: dict[str, tuple[Callable[[h5py.Group], Any], str]] = {
        "external": (lambda demo: demo.__setitem__("actions", h5py.ExternalLink(tmp_path / "secret.h5", "x")), "link"),
        "soft": (lambda demo: demo.__setitem__("actions", h5py.SoftLink("/data/demo_1/actions")), "has a link at"),
        "storage": (lambda demo: demo.create_dataset("actions", actions.shape, "f8", external=raw), "in another file"),
        "virtual": (lambda demo: demo.create_virtual_dataset("actions", layout), "in another file"),
        "sparse": (lambda demo: demo.create_dataset("actions", (2**40, 7), "f8", chunks=(1, 7)), "a uint8 frame of 3"),
        "scalar": (lambda demo: demo.__setitem__("actions", 3), "has no actions"),
        "texts": (lambda demo: demo.__setitem__("actions", texts), "cannot be read"),
    }
    for name, (damage, sentence) in damages.items():
        path = tmp_path / f"{name}.hdf5"
        shutil.copy(source, path)
        with h5py.File(path, "r+") as file:
            del file["data/demo_0/actions"]
            damage(file["data/demo_0"])
        with pytest.raises(UserError, match=sentence):
            _ = open_dataset(path).episode(0).columns
    with h5py.File(tmp_path / "all.hdf5", "w") as file:
        file["data"] = h5py.ExternalLink(str(source), "data")
    with pytest.raises(UserError, match="has a link at data"):
        open_dataset(tmp_path / "all.hdf5")
    with h5py.File(source, "r+") as file:
        file["data"].attrs["problem_info"] = "[" * 20_000
    assert open_dataset(source).tasks == {0: "put the bowl on the plate"}  # the file's name


def many_rows(root: Path) -> None:
    """Put a table of 2^22 equal rows into the place of an episode's: little on the disk."""
    names = pq.read_schema(root / TABLE).names
    zeros = pa.array(np.zeros(2**22, np.int64))
    pq.write_table(pa.table([zeros] * len(names), names), root / TABLE, compression="zstd")
    assert (root / TABLE).stat().st_size < 1_000_000


def test_absurd_sizes_are_refused_before_memory_is_asked_for(
    damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9 kB\nMemAvailable: 100000 kB\n")
    monkeypatch.setattr(system_memory, "MEMINFO", meminfo)
    features = json.loads((damaged / "meta/info.json").read_text())["features"]
    features["action"]["shape"] = [10**12]
    lines = "meta/episodes.jsonl"
    damages: dict[str, tuple[Callable[[Path], Any], str]] = {
        "shape": (lambda root: change(root, features=features), r"of features\.action\.shape, which is too large"),
        "fps": (lambda root: change(root, fps=1e300), "of fps"),
        "chunk": (lambda root: change(root, chunks_size=-3), "says -3 of chunks_size"),
        "length": (lambda root: replace_text(root, lines, '"length": 12', f'"length": {10**30}'), "0's length"),
        "index": (lambda root: replace_text(root, lines, '_index": 2', f'_index": {10**30}'), "of episode_index"),
        "nested": (lambda root: (root / "meta/info.json").write_text("[" * 100_000), "nested too deeply"),
        "rows": (many_rows, r"with its 4,194,304 rows takes 0.3 GiB of memory, and 0.1 are free"),
    }
    for name, (damage, sentence) in damages.items():
        root = tmp_path / name
        shutil.copytree(damaged, root)
        damage(root)
        with pytest.raises(UserError, match=sentence):
            _ = open_dataset(root).episode(1).columns


def test_what_datasets_say_does_not_steer_the_terminal(damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(damaged, robot_type="arm\x1b]0;title\x07")
    replace_text(damaged, "meta/tasks.jsonl", "open the drawer", r"open\u001b[2J $1 and $2_{")
    replace_text(damaged, "meta/tasks.jsonl", "lift the cup", r"lift\r the cup")
    assert main(["summary", str(damaged)]) == 0
    told = capsys.readouterr().out
    assert r"arm\x1b]0;title\x07" in told and r"open\x1b[2J $1" in told and r"lift\r the cup" in told
    assert main(["plot", str(damaged), "--episode", "1", "--out", str(damaged / "a.png")]) == 0
    change(damaged, **{"codebase_version": "v2.\x1b[31m"})
    assert main(["check", str(damaged)]) == 0
    assert main(["convert", str(damaged), str(damaged / "out"), "--version", "v3.0"]) == 0
    assert "\x1b" not in "".join(capsys.readouterr())


def test_names_that_no_file_system_takes_are_one_sentence(v21: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["summary", "n" * 300], ["convert", str(v21), "/tmp/" + "n" * 300, "--version", "v3.0"]):
        assert main(arguments) == 2
        assert capsys.readouterr().err.count("\n") == 1
