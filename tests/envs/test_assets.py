"""Asset sources: folders are checked, the hub is spoken to for real (a local one), a silent hub is noticed soon."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.envs.hub_server import REVISION, HubServer
from vla_harness.envs.assets import FOLDERS, HUB_REPOSITORY, missing_files, required_files, resolve_assets
from vla_harness.errors import AssetError

FILES = {name: f"content of {name}".encode() for name in required_files()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A complete asset folder with toy contents."""
    for name, data in FILES.items():
        path = tmp_path / "assets" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "assets"


def resolve_in_child(choice: str, endpoint: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``resolve_assets`` in a process of its own: the hub's client reads HF_ENDPOINT when it is imported."""
    code = (
        "import sys\n"
        "from vla_harness.envs.assets import resolve_assets\n"
        "from vla_harness.errors import AssetError\n"
        "try:\n"
        "    source = resolve_assets(sys.argv[1])\n"
        "except AssetError as error:\n"
        "    sys.exit(f'error: {error}')\n"
        "print(source.kind, source.revision, source.path, sep='\\n')\n"
    )
    inherited = {key: value for key, value in os.environ.items() if key not in ("LIBERO_ASSETS", "HF_HUB_OFFLINE")}
    return subprocess.run(
        [sys.executable, "-c", code, choice],
        env={**inherited, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_list_of_required_files_covers_every_folder() -> None:
    assert {name.split("/")[0] for name in required_files()} == set(FOLDERS)
    assert len(set(required_files())) == len(required_files()) > 100


def test_a_folder_is_taken_with_a_digest_of_its_files(folder: Path, tmp_path: Path) -> None:
    source = resolve_assets(str(folder))
    assert (source.kind, source.path, source.revision) == ("path", folder, "")
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "unrelated.txt").write_text("not loaded by any task")
    assert resolve_assets(str(copy)).digest == source.digest
    (copy / required_files()[0]).write_text("a longer content than before: another mesh")
    assert resolve_assets(str(copy)).digest != source.digest
    assert source.provenance["digest"] == source.digest and source.provenance["kind"] == "path"


def test_auto_takes_the_variable_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIBERO_ASSETS", str(folder))
    assert resolve_assets("auto").path == folder


def test_an_incomplete_folder_is_refused_by_name(folder: Path) -> None:
    (folder / required_files()[3]).write_bytes(b"")
    with pytest.raises(AssetError, match=f"lacks 1 of {len(FILES)} files, among them {required_files()[3]}"):
        resolve_assets(str(folder))
    shutil.rmtree(folder / "scenes")
    with pytest.raises(AssetError, match="the one that holds scenes"):
        resolve_assets(str(folder))
    with pytest.raises(AssetError, match="no asset folder"):
        resolve_assets(str(folder / "absent"))


def test_the_hub_is_asked_once_and_the_cache_afterwards(tmp_path: Path) -> None:
    with HubServer(HUB_REPOSITORY, {**FILES, "scenes/unused.obj": b"large and unused"}) as hub:
        first = resolve_in_child("auto", hub.url, tmp_path)
        assert first.returncode == 0, first.stderr
        kind, revision, path = first.stdout.splitlines()
        assert (kind, revision) == ("hub", REVISION)
        assert missing_files(Path(path)) == []
        assert (Path(path) / required_files()[0]).read_bytes() == FILES[required_files()[0]]
        assert not (Path(path) / "scenes/unused.obj").exists()
        assert f"{len(FILES)} files" in first.stderr
        asked = len(hub.requests)
        second = resolve_in_child("hub", hub.url, tmp_path)
        assert second.stdout == first.stdout and len(hub.requests) == asked

        (Path(path) / required_files()[0]).unlink()  # as an interrupted download leaves it
        third = resolve_in_child("auto", hub.url, tmp_path)
        assert third.stdout == first.stdout and missing_files(Path(path)) == []


def test_a_download_that_differs_from_the_listing_is_refused(tmp_path: Path) -> None:
    with HubServer(HUB_REPOSITORY, FILES, listed_size_error=1) as hub:
        answer = resolve_in_child("hub", hub.url, tmp_path)
    assert answer.returncode == 1 and f"{len(FILES)} downloaded asset files differ" in answer.stderr


def test_a_repository_without_the_files_is_refused(tmp_path: Path) -> None:
    with HubServer(HUB_REPOSITORY, {"README.md": b"moved"}) as hub:
        answer = resolve_in_child("hub", hub.url, tmp_path)
    assert answer.returncode == 1 and "files absent" in answer.stderr


@pytest.mark.parametrize("silent", [False, True], ids=["closed port", "accepts and never answers"])
def test_an_unreachable_hub_is_said_within_ten_seconds(tmp_path: Path, silent: bool) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if silent:
            listener.listen()
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        start = time.monotonic()
        answer = resolve_in_child("hub", endpoint, tmp_path)
        seconds = time.monotonic() - start
    assert answer.returncode == 1 and seconds < 10
    lines = answer.stderr.strip().splitlines()
    assert len(lines) == 1 and endpoint in lines[0] and "LIBERO_ASSETS=PATH" in lines[0]


def test_auto_plays_on_stand_ins_when_the_hub_is_out_of_reach_and_says_why(tmp_path: Path) -> None:
    answer = resolve_in_child("auto", "http://127.0.0.1:9", tmp_path, XDG_CACHE_HOME=str(tmp_path))
    kind, revision, path = answer.stdout.splitlines()
    assert (kind, revision) == ("primitive", "") and Path(path).is_relative_to(tmp_path)
    (line,) = answer.stderr.splitlines()
    assert "stand-in" in line and "http://127.0.0.1:9" in line


def test_offline_mode_is_said_in_a_sentence(tmp_path: Path) -> None:
    answer = resolve_in_child("hub", "http://127.0.0.1:9", tmp_path, HF_HUB_OFFLINE="1")
    assert answer.returncode == 1 and "offline mode" in answer.stderr and len(answer.stderr.splitlines()) == 1
