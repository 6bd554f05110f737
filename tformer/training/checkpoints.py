"""Checkpoints: written whole or not at all, refused when they belong to another configuration."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from ..finite import check_finite

FOLDER = "checkpoints"


def list_checkpoints(out: str | Path) -> list[Path]:
    """Return the checkpoints of the training in ``out``, oldest first."""
    return sorted((Path(out) / FOLDER).glob("step_*.pt"))


def save_checkpoint(out: Path, step: int, content: Mapping[str, Any], keep: int) -> Path:
    """Write ``content`` and drop all but the ``keep`` newest; the file appears only once it is complete."""
    path = out / FOLDER / f"step_{step:08d}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    try:
        torch.save(dict(content), unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    for old in list_checkpoints(out)[: -max(1, keep)]:
        old.unlink()
    return path


def find_checkpoint(name: str, out: Path) -> Path:
    """Return the checkpoint that ``--resume name`` means: "latest" of ``out``, or a path."""
    if name != "latest":
        return Path(name)
    checkpoints = list_checkpoints(out)
    if not checkpoints:
        raise UserError(f"{out} holds no checkpoint to resume from; start without --resume.")
    return checkpoints[-1]


def read_checkpoint(path: str | Path, configuration: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a checkpoint's content, on the CPU. configuration: what it must have been trained with.

    Raises UserError where it cannot be read or belongs to another configuration.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        stored = content["configuration"]
    except FileNotFoundError:
        raise UserError(f"there is no checkpoint {path}; name one that exists, or start without it.") from None
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError):
        raise UserError(f"{path} is no checkpoint of this program or is damaged; name another.") from None
    if isinstance(model := content.get("model"), Mapping):
        check_finite(model, path)
    if configuration is not None:
        check_configuration(path, stored, configuration)
    return content


def check_configuration(path: str | Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise UserError that names what differs, if anything does."""
    differing = sorted(key for key in stored.keys() | wanted.keys() if stored.get(key) != wanted.get(key))
    if differing:
        told = ", ".join(f"{key} {stored.get(key)!r} there and {wanted.get(key)!r} here" for key in differing[:3])
        raise UserError(f"{path} is a checkpoint of another configuration ({told}); give its options or another --out.")


def average_weights(paths: Sequence[str | Path]) -> dict[str, Tensor]:
    """Return the mean of the checkpoints' model weights, entry by entry."""
    models = [read_checkpoint(path)["model"] for path in paths]
    return {name: torch.stack([model[name].float() for model in models]).mean(dim=0) for name in models[0]}
