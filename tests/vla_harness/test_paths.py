"""Paths and texts of others: what leaves its folder or steers a terminal is told from what does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from vla_harness.errors import CheckpointError
from vla_harness.paths import path_inside
from vla_harness.printing import printable


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a file, and links to files in it and out of it; beside it, a secret."""
    root = tmp_path / "root"
    (root / "videos").mkdir(parents=True)
    (root / "videos" / "a.mp4").touch()
    (tmp_path / "secret").touch()
    (root / "within").symlink_to("videos/a.mp4")
    (root / "out").symlink_to(tmp_path / "secret")
    (root / "above").symlink_to(tmp_path)
    return root


@pytest.mark.parametrize("name", ["videos/a.mp4", "videos/new.mp4", "new/er.mp4", "within", "..a", "a..", "é"])
def test_what_stays_inside_is_returned(name: str, root: Path) -> None:
    assert path_inside(root, name, "x") == root / name


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        *((name, "leads out of") for name in ("../secret", "videos/../../secret", "/etc/passwd", "out")),
        *((name, "leads out of") for name in ("..", "videos/..", "above/secret")),
        *((name, "no name of a file") for name in ("", "a\0b", "a\x1b[2J", "a\n", "n" * 300, "v/" + "n" * 300)),
    ],
)  # fmt: skip
def test_what_leaves_is_refused_in_a_sentence(name: str, sentence: str, root: Path) -> None:
    with pytest.raises(CheckpointError, match=sentence) as refusal:
        path_inside(root, name, "index.json (file)", CheckpointError)
    told = str(refusal.value)
    assert told.startswith("index.json (file) says ") and printable(told) == told and len(told) < 400


def test_the_hubs_links_from_snapshot_to_blobs_stay_inside(tmp_path: Path) -> None:
    snapshot = tmp_path / "datasets--a--b" / "snapshots" / "0123"
    (snapshot / "meta").mkdir(parents=True)
    (tmp_path / "datasets--a--b" / "blobs").mkdir()
    (snapshot / "meta" / "info.json").symlink_to("../../../blobs/abc")
    assert path_inside(snapshot, "meta/info.json", "x") == snapshot / "meta" / "info.json"
    (snapshot / "other").symlink_to("../../refs/main")
    with pytest.raises(CheckpointError):
        path_inside(snapshot, "other", "x", CheckpointError)


def test_texts_cannot_steer_a_terminal() -> None:
    assert printable("plain – é 漢字 می\u200cخواهم 🙂") == "plain – é 漢字 می\u200cخواهم 🙂"
    assert printable("\x1b]0;hi\x07\r\n\t") == r"\x1b]0;hi\x07\r\n\t"
    assert printable("a\u202eb\x9bc\u2028\ud800") == r"a\u202eb\x9bc\u2028\ud800"
