"""Finds the benchmark's meshes and textures: a folder, the hub's cache, the hub, or else generated stand-ins."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from vla_harness.errors import AssetError

from .standins import standin_assets, standin_digest

HUB_REPOSITORY = "lerobot/libero-assets"
FOLDERS = (
    "articulated_objects",
    "scenes",
    "stable_hope_objects",
    "stable_scanned_objects",
    "textures",
    "turbosquid_objects",
)
HUB_ANSWER_SECONDS = 6.0
"""Longest wait for the hub's first answer; with imports and the cache's look-up this stays under ten seconds."""

_POINT = "give a folder with --assets PATH or LIBERO_ASSETS=PATH"
_T = TypeVar("_T")


@dataclass(frozen=True)
class AssetSource:
    """Where the assets of a run come from.

    kind: "path" (a folder the user named), "hub" (downloaded from the hub, now or before) or "primitive" (stand-ins).
    digest: sha256 of the names and sizes of the files the benchmark loads; equal digests mean the same files, up to
        edits that keep a file's size. Of stand-ins: sha256 of what they are generated from.
    revision: the hub's commit; "" for a folder.
    """

    kind: Literal["path", "hub", "primitive"]
    path: Path
    digest: str
    revision: str = ""

    @property
    def provenance(self) -> dict[str, str]:
        """The source as plain data for the results."""
        return {"kind": self.kind, "path": str(self.path), "digest": self.digest, "revision": self.revision}

    def __str__(self) -> str:
        origin = f"{HUB_REPOSITORY} at {self.revision[:12]}" if self.kind == "hub" else str(self.path)
        return f"{self.kind}: {origin} (digest {self.digest[:12]})"


def resolve_assets(choice: str) -> AssetSource:
    """Return the assets that ``--assets choice`` means.

    choice: "auto" ($LIBERO_ASSETS if it is set, else as "hub", else as "primitive" with a line on standard error),
    "hub" (the hub's cache, else a download, with progress on standard error), "primitive" (stand-ins, generated in
    seconds), or a folder.
    Raises AssetError when a folder is incomplete or, for "hub", the hub cannot be reached, which takes at most ten
    seconds.
    """
    if source := local_assets(choice):
        return source
    try:
        listed = ask_hub()
    except AssetError as error:
        if choice != "auto":
            raise
        print(f"Playing on generated stand-in assets, and every result will say so. {error}", file=sys.stderr)
        return _stand_ins()
    return _download(listed)


def local_assets(choice: str) -> AssetSource | None:
    """Return what ``resolve_assets(choice)`` finds on this machine; None where it would download. No network."""
    if choice == "primitive":
        return _stand_ins()
    if choice == "hub":
        return _from_cache()
    if choice != "auto":
        return _from_folder(Path(choice))
    named = os.environ.get("LIBERO_ASSETS")
    return _from_folder(Path(named)) if named else _from_cache()


def required_files() -> tuple[str, ...]:
    """Return the files that the tasks of the five suites load, relative to the asset folder.

    Collected from the 130 compiled models and the XML files read while building them; the published folder holds more.
    """
    return tuple(Path(__file__).with_name("asset_files.txt").read_text(encoding="utf-8").split())


def missing_files(folder: Path) -> list[str]:
    """Return the required files that ``folder`` lacks or holds empty."""
    return [name for name in required_files() if _size(folder / name) == 0]


def _from_folder(folder: Path) -> AssetSource:
    folder = folder.expanduser().resolve()
    if not folder.is_dir():
        raise AssetError(f"There is no asset folder {folder}: {_POINT}, or use --assets hub.")
    if digest := standin_digest(folder):
        return AssetSource("primitive", folder, digest)
    absent = [name for name in FOLDERS if not (folder / name).is_dir()]
    if absent:
        raise AssetError(f"{folder} is not LIBERO's asset folder: name the one that holds {', '.join(absent)}.")
    missing = missing_files(folder)
    if missing:
        raise AssetError(
            f"The asset folder {folder} lacks {len(missing)} of {len(required_files())} files, among them "
            f"{missing[0]}: copy it again or use --assets hub."
        )
    return AssetSource("path", folder, _digest(folder))


def _from_cache() -> AssetSource | None:
    """Return what an earlier download left, whole; None otherwise. Touches no network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(
            snapshot_download(
                HUB_REPOSITORY, repo_type="dataset", local_files_only=True, allow_patterns=list(required_files())
            )
        )
    except LocalEntryNotFoundError:
        return None
    return None if missing_files(folder) else AssetSource("hub", folder, _digest(folder), folder.name)


def ask_hub() -> dict[str, int]:
    """Return required file -> bytes as the hub lists them; AssetError when it has no such files or does not answer."""
    from huggingface_hub import HfApi, constants

    hub = constants.ENDPOINT
    try:
        info = _within(
            HUB_ANSWER_SECONDS,
            lambda: HfApi().dataset_info(HUB_REPOSITORY, files_metadata=True, timeout=HUB_ANSWER_SECONDS),
        )
    except Exception as error:  # network, proxy, certificate, offline mode, no such repository: one sentence for all
        raise AssetError(
            f"LIBERO's assets are not here and the hub {hub} cannot give them ({_brief(error)}): connect, or {_POINT}."
        ) from error
    listed = {file.rfilename: file.size or 0 for file in info.siblings or []}
    absent = [name for name in required_files() if name not in listed]
    if absent:
        raise AssetError(f"{HUB_REPOSITORY} on {hub} has no {absent[0]} ({len(absent)} files absent): {_POINT}.")
    return {name: listed[name] for name in required_files()}


def _stand_ins() -> AssetSource:
    folder = standin_assets()
    return AssetSource("primitive", folder, standin_digest(folder) or "")


def _download(listed: dict[str, int]) -> AssetSource:
    """Download what ``ask_hub`` listed into the hub's cache and check every size against it."""
    from huggingface_hub import constants, snapshot_download

    hub = constants.ENDPOINT
    megabytes = sum(listed.values()) / 1e6
    print(f"Downloading LIBERO's assets, {len(listed)} files, {megabytes:.0f} MB, from {hub}.", file=sys.stderr)
    try:
        folder = Path(snapshot_download(HUB_REPOSITORY, repo_type="dataset", allow_patterns=list(listed)))
    except Exception as error:
        raise AssetError(
            f"The download of LIBERO's assets from {hub} broke off ({_brief(error)}): run the command again, "
            f"which goes on where it stopped, or {_POINT}."
        ) from error
    broken = [name for name, size in listed.items() if size != _size(folder / name)]
    if broken:
        raise AssetError(
            f"{len(broken)} downloaded asset files differ from the hub's listing, among them {broken[0]}: "
            f"delete {folder} and run the command again."
        )
    return AssetSource("hub", folder, _digest(folder), folder.name)


def _within(seconds: float, call: Callable[[], _T]) -> _T:
    """Return ``call()``, or raise TimeoutError after ``seconds``.

    A thread, because a name server that does not answer, many addresses tried in turn, or an answer that comes byte by
    byte are under no timeout of the HTTP client. It is left behind when time is up, and does not hold up the exit.
    """
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(call())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError(f"nothing within {seconds:.0f} s")
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def _digest(folder: Path) -> str:
    listing = "".join(f"{name}\t{_size(folder / name)}\n" for name in required_files())
    return hashlib.sha256(listing.encode()).hexdigest()


def _size(path: Path) -> int:
    """Size in bytes; 0 when there is no such file."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _brief(error: Exception) -> str:
    """The first line of an error, or its kind when it has none."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".:") if lines else type(error).__name__
