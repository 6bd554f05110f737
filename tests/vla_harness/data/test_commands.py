"""``python -m vla_harness.data`` as a user meets it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.vla_harness.data import public
from tests.vla_harness.data.recorded import FIXTURES
from vla_harness.data import open_dataset
from vla_harness.data.__main__ import main
from vla_harness.data.convert import Version


def test_summary_says_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", str(FIXTURES / "groot_demo_piece")]) == 0
    told = capsys.readouterr().out
    assert "LeRobot v2.0, GR1ArmsOnly, 20 frames a second" in told
    assert "2 of 40 to 40 frames (median 40); 80 frames, 4.0 s" in told
    assert "1 episode: pick the pear from the counter and place it in the plate" in told
    assert "observation.images.ego_view 256x256, h264" in told and "egoview is listed, but has no videos" in told
    assert "state      left_arm 7, left_hand 6" in told and "(meta/modality.json)" in told
    assert told.splitlines()[-1].split()[:3] == ["next.done", "bool", "1"]


def test_check_leaves_with_1_where_anything_is_wrong(v21: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(v21)]) == 0
    assert capsys.readouterr().out == "3 episodes read: all is well.\n"
    assert main(["check", str(FIXTURES / "groot_demo_piece")]) == 1
    assert "complaints." in capsys.readouterr().out.splitlines()[-1]


def test_plot_draws_an_episode(v21: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "episode.png"
    assert main(["plot", str(v21), "--episode", "2", "--out", str(out)]) == 0
    with Image.open(out) as picture:
        assert picture.width > 1000 and len(picture.convert("RGB").getcolors(1 << 24) or []) > 100
    assert capsys.readouterr().out == f"{out}\n"


def test_convert_writes_the_other_version_and_touches_nothing_else(
    v21: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(v21, tmp_path / "out.partial")
    assert main(["convert", str(tmp_path / "out.partial"), str(out), "--version", "v3.0"]) == 0
    assert capsys.readouterr().out == f"{out}: 3 episodes, LeRobot v3.0\n"
    assert open_dataset(out).frames == 36 and open_dataset(tmp_path / "out.partial").frames == 36
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.partial"]


@pytest.mark.parametrize("kind", ["file", "folder", "link", "link to an empty folder", "below a file"])
def test_what_is_in_the_way_of_a_conversion_stays(
    kind: str, v21: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("mine")
    elif kind == "folder":
        out.mkdir()
        (out / "mine").touch()
    elif kind == "link":
        out.symlink_to(tmp_path / "nowhere")
    elif kind == "below a file":
        (tmp_path / "file").touch()
        out = tmp_path / "file" / "out"
    else:
        (tmp_path / "empty").mkdir()
        out.symlink_to(tmp_path / "empty")
    before = sorted(tmp_path.rglob("*"))
    assert main(["convert", str(v21), str(out), "--version", "v3.0"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and str(out) in told and ("exists already" in told or "cannot be" in told)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("version", ["v3.0", "hdf5"])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(version: Version, v21: Path, tmp_path: Path) -> None:
    """A limit on the size of files, whose errors are those of a full disk in all but their number."""
    source = v21 if version == "v3.0" else public.write(tmp_path / "source", "own")
    before = sorted(tmp_path.rglob("*"))
    script = "import sys, resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
    script += "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000));"
    script += "from vla_harness.data.__main__ import main; sys.exit(main())"
    command = [sys.executable, "-c", script, "convert", str(source), str(tmp_path / "out"), "--version", version]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.count("error: ") == 1 and "--resume" not in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["show"], "There is no command 'show': choose from summary, check, plot, convert"),
        (["summary"], "summary --help"),
        (["summary", "/nowhere"], "/nowhere is no dataset"),
        (["plot", "DATASET", "--episode", "3"], "give a number from 0 to 2"),
        (["plot", "DATASET", "--out", "a.txt"], "ends in .png, .svg or .pdf"),
        (["convert", "DATASET", "/tmp", "--version", "v3.0"], "exists already"),
        (["convert", "DATASET", "out"], "--version"),
    ],
)
def test_bad_usage_is_one_sentence_and_exit_code_2(
    arguments: list[str], advice: str, v21: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([str(v21) if word == "DATASET" else word for word in arguments]) == 2
    told = capfd.readouterr()
    assert told.out == "" and told.err.startswith("error: ") and told.err.count("\n") == 1 and advice in told.err
