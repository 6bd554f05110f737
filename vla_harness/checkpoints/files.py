"""Finds a checkpoint's files: a folder on this machine, or a repository of the Hugging Face hub."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..hub import fetch_snapshot
from ..paths import path_inside
from .fields import Fields
from .kinds import describe_checkpoint
from .tensors import TensorFiles

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
DOWNLOADED = ("*.json", "*.safetensors", "*.model", "*.txt")
"""What is fetched from the hub unless more is asked for: no pickles, no remote code, no copies in other formats."""
LARGEST_JSON = 64 * 2**20
"""Bytes of the largest JSON file that is read; published ones have a few hundred kilobytes."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's files on this machine.

    name: as the user gave it. path: the folder. revision: the hub's commit; None for a folder of the user's.
    """

    name: str
    path: Path
    revision: str | None = None

    def json(self, file: str) -> dict[str, Any]:
        """Return the content of the JSON file ``file``; raises CheckpointError if it is absent or no JSON object."""
        path = self.path / file
        try:
            if path.stat().st_size > LARGEST_JSON:
                raise CheckpointError(f"{file} of {self.name} has {path.stat().st_size:,} bytes: fetch it again.")
            content = json.loads(path.read_text(encoding="utf-8"))
        except OSError:
            raise CheckpointError(f"{self.name} has no file {file}: give a complete checkpoint.") from None
        except ValueError as error:
            raise CheckpointError(f"{file} of {self.name} is no JSON ({error}): fetch the checkpoint again.") from None
        except RecursionError:
            raise CheckpointError(f"{file} of {self.name} is nested without end: fetch the checkpoint again.") from None
        if not isinstance(content, dict):
            raise CheckpointError(f"{file} of {self.name} holds no JSON object: fetch the checkpoint again.")
        return content

    def fields(self, file: str) -> Fields:
        """Return the content of the JSON file ``file`` for typed reading; raises CheckpointError as ``json`` does."""
        return Fields(self.json(file), f"{file} of {self.name}")

    def require(self, policy: str) -> None:
        """Raise CheckpointError that says what the folder holds and what to do, unless ``policy`` may play it."""
        kind = describe_checkpoint(self.path)
        if kind.policy not in (policy, None):
            raise CheckpointError(
                f"{self.name} is not a checkpoint of the policy {policy!r} but {kind.text}: {kind.advice}."
            )

    def has(self, file: str) -> bool:
        """Return whether the folder holds ``file``."""
        return (self.path / file).is_file()

    def tensors(self) -> TensorFiles:
        """Return the checkpoint's tensors: the files its index names, else ``model.safetensors``, else the only one.

        Raises CheckpointError when there are none, or a file that the index names is absent.
        """
        tensors, index = TensorFiles(self._weight_files(), self.name), self._index
        if index is not None and (absent := sorted(index.content.keys() - tensors.shapes.keys())):
            raise CheckpointError(
                f"{index.where} names {absent[0]}, which none of its files holds: fetch the checkpoint again."
            )
        return tensors

    @cached_property
    def sha256(self) -> str:
        """Hash of the names and contents of the weights and JSON files; computed once, seconds for gigabytes."""
        total = hashlib.sha256()
        patterns = ("*.safetensors", "*.pt", "*.json")
        files = {file for pattern in patterns for file in self.path.glob(pattern) if file.is_file()}
        for file in sorted(files | {self.path / shard for shard in self._shards}):
            with file.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            total.update(f"{file.relative_to(self.path).as_posix()} {digest}\n".encode())
        return total.hexdigest()

    @property
    def provenance(self) -> dict[str, str | None]:
        """What the results keep of it."""
        return {"checkpoint": self.name, "checkpoint_revision": self.revision, "checkpoint_sha256": self.sha256}

    @cached_property
    def _index(self) -> Fields | None:
        """The index's tensor name -> file name, None where there is no index."""
        indices = sorted(self.path.glob("*.safetensors.index.json"))
        return self.fields(indices[0].name).section("weight_map") if indices else None

    @cached_property
    def _shards(self) -> list[str]:
        """The files that the index names, all inside the folder; none without an index."""
        if self._index is None:
            return []
        shards = sorted({self._index.text(tensor) for tensor in self._index.content})
        for shard in shards:
            if Path(shard).name == shard and os.path.islink(self.path / shard):
                continue  # a link that the folder's owner made, to weights that are kept once
            path_inside(self.path, shard, f"{self._index.where} (weight_map)", CheckpointError)
        return shards

    def _weight_files(self) -> list[Path]:
        index = self._index
        if index is not None:
            shards = self._shards
            if not shards:
                raise CheckpointError(f"{index.where} names no tensors: fetch the checkpoint again.")
            if missing := [shard for shard in shards if not self.has(shard)]:
                raise CheckpointError(
                    f"{self.name} has no file {missing[0]}, which its index names: fetch the checkpoint again."
                )
            return [self.path / shard for shard in shards]
        if self.has("model.safetensors"):
            return [self.path / "model.safetensors"]
        files = sorted(self.path.glob("*.safetensors"))
        if len(files) != 1:
            kind = describe_checkpoint(self.path)
            raise CheckpointError(
                f"{self.name} has no model.safetensors and no model.safetensors.index.json"
                f"{f' but is {kind.text}' if kind.policy == '' else ''}: give a folder or hub id whose weights are"
                " safetensors."
            )
        return files


def find_checkpoint(name: str, revision: str | None = None, files: Sequence[str] = DOWNLOADED) -> Checkpoint:
    """Return the checkpoint ``name``: a folder that exists, else a hub id ("openvla/openvla-7b"), fetched when new.

    revision: a branch, tag or commit of the hub. files: patterns of the files to fetch.
    Raises CheckpointError when there is no such folder, or the hub has no such repository or cannot be reached.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise CheckpointError(f"{name} is a folder and has no revision {revision!r}: leave the revision out.")
        return Checkpoint(name, folder)
    if folder.is_file():
        kind = describe_checkpoint(folder)
        raise CheckpointError(f"{name} is {kind.text} and no checkpoint folder: {kind.advice}.")
    if folder.exists() or not HUB_ID.fullmatch(name):
        raise CheckpointError(f"There is no checkpoint folder {name}: give a folder or a hub id such as org/model.")
    path = fetch_snapshot(name, "model", files, revision, refusal=CheckpointError)
    return Checkpoint(name, path, revision=path.name)
