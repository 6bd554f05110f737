"""Datasets of the hub, from a local server that speaks its API."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.envs.hub_server import REVISION, HubServer
from tests.vla_harness.data import public

COMMANDS = """
import sys
from vla_harness.data.__main__ import main
for words in sys.argv[1:]:
    print(f"exit {main(words.split())}", flush=True)
"""


def run(home: Path, url: str, *commands: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run commands of vla_harness.data in a process of its own: the hub's client reads HF_ENDPOINT at import."""
    inherited = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    settings |= {"HF_ENDPOINT": url, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    return subprocess.run(
        [sys.executable, "-c", COMMANDS, *commands],
        env=inherited | settings, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def files_of(folder: Path, inside: str = "") -> dict[str, bytes]:
    """Return the files below ``folder`` as a repository has them."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {f"{inside}{path.relative_to(folder)}": path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def lerobot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return public.write(tmp_path_factory.mktemp("hub") / "libero", "lerobot", "v3.0")


def test_a_lerobot_dataset_is_fetched_once(lerobot: Path, tmp_path: Path) -> None:
    with HubServer("someone/libero", files_of(lerobot) | {"other/large.bin": b"not needed", "README.md": b""}) as hub:
        done = run(tmp_path, hub.url, "summary someone/libero --convention lerobot", "check someone/libero")
        assert done.stdout.count("exit 0") == 2, done.stderr
        assert done.stdout.startswith("libero: LeRobot v3.0, panda, 10 frames a second\n")
        assert f"hub        someone/libero at {REVISION}\n" in done.stdout
        assert "3 episodes read: all is well." in done.stdout
        assert not any("large.bin" in asked for asked in hub.requests)
        assert sum(asked.startswith("GET") and "file-000.parquet" in asked for asked in hub.requests) == 2
    gone = run(tmp_path, hub.url, "summary someone/libero", HF_HUB_OFFLINE="1")
    assert "exit 0" in gone.stdout, gone.stderr


def test_a_folder_of_a_repository_is_fetched_alone(lerobot: Path, tmp_path: Path) -> None:
    suite = public.write(tmp_path / "suite", "own", "hdf5")
    files = files_of(suite, "libero_goal/") | files_of(suite, "libero_90/") | files_of(lerobot, "sets/first/")
    files["libero_goal/deeper/more.hdf5"] = b"not needed"
    with HubServer("someone/LIBERO-datasets", files) as hub:
        name = f"someone/LIBERO-datasets/libero_goal/{next(suite.iterdir()).name}"
        words = [f"summary {given}" for given in ("someone/LIBERO-datasets/libero_goal", name)]
        words += ["summary someone/LIBERO-datasets/sets/first", "summary someone/LIBERO-datasets"]
        done = run(tmp_path / "home", hub.url, *words)
    assert [line for line in done.stdout.splitlines() if line.startswith("exit")] == ["exit 0"] * 3 + ["exit 2"]
    assert "libero_goal: LIBERO's HDF5 demonstrations, panda, 20 frames a second" in done.stdout
    assert "first: LeRobot v3.0" in done.stdout
    assert "someone/LIBERO-datasets is no dataset" in done.stderr
    assert "ORG/NAME/FOLDER" in done.stderr
    assert not any("libero_90" in asked or "deeper" in asked for asked in hub.requests)


def test_what_the_hub_does_not_give_is_said_in_one_sentence(tmp_path: Path) -> None:
    with HubServer("someone/else", {}) as hub:
        missing = run(tmp_path, hub.url, "summary someone/libero", "summary some--one/libero..x", "summary libero")
    away = run(tmp_path, hub.url, "summary someone/libero")
    assert missing.stdout.count("exit 2") == 3
    assert away.stdout.count("exit 2") == 1
    lines = [line for line in (missing.stderr + away.stderr).splitlines() if line.startswith("error: ")]
    assert len(lines) == 4
    assert "Traceback" not in missing.stderr + away.stderr
    assert all("There is no folder someone/libero, and the hub did not give it (" in lines[i] for i in (0, 3))
    assert "is no dataset: name a folder with meta/info.json" in lines[2]
