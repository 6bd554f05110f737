"""Opens GR00T with all it needs: the network, its transforms, and where they came from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...checkpoints import Checkpoint, Precision, choose_device, choose_precision, find_checkpoint
from ...errors import UserError
from .embodiments import data_config, embodiment_slot
from .model import CONFIG, METADATA, Groot, load_groot, read_config
from .prompts import Prompts
from .transforms import Transforms, load_metadata

GROOT_3B = "nvidia/GR00T-N1.5-3B"
EAGLE_TOKENIZER = "lerobot/eagle2hg-processor-groot-n1p5"
"""Where the tokenizer is fetched from when the checkpoint holds none, as NVIDIA's does not."""


@dataclass(frozen=True)
class GrootParts:
    """An opened checkpoint.

    metadata: embodiment tag -> statistics and modalities, all that the checkpoint (or the given file) holds.
    """

    model: Groot
    transforms: Transforms
    checkpoint: Checkpoint
    metadata: Mapping[str, Any]
    embodiment: str
    tokenizer: Checkpoint
    precision: Precision
    device: torch.device


def open_groot(
    checkpoint: str = GROOT_3B,
    tokenizer: str | None = None,
    embodiment: str = "new_embodiment",
    config: str = "libero",
    precision: str | None = None,
    device: str = "auto",
    base: str | None = None,
    metadata: Mapping[str, Any] | str | None = None,
) -> GrootParts:
    """Load the network and make the transforms of one embodiment.

    checkpoint: a folder or hub id, in NVIDIA's layout or lerobot's. tokenizer: a folder or hub id with Eagle's; None
    for the checkpoint's own, else the one on the hub. config: a built-in data configuration or a .toml file.
    precision, device: see ``vla_harness.checkpoints``. base: the checkpoint that states what this one leaves out, which
    lerobot's layout does: sizes and statistics; None for the one that it names itself, or the 3B model.
    metadata: instead of the checkpoint's statistics: the content of a metadata.json, or the path of one.
    Raises UserError (CheckpointError included) in one sentence for all that a user can mend.
    """
    settings = data_config(config)  # what is quick to check comes before what takes minutes
    slot = embodiment_slot(embodiment)
    chosen_device = choose_device(device)
    chosen_precision = choose_precision(precision, chosen_device)
    found = find_checkpoint(checkpoint)
    if base is None:
        found.require("groot")
    complete = _base(found, base)
    words = _tokenizer(found, tokenizer)
    sizes = read_config(found, complete, words)
    stored, where = _metadata(metadata, found, complete)
    entry = load_metadata(stored, embodiment, where)
    prompts = Prompts(words, int(sizes.eagle["image_token_index"]))
    transforms = Transforms(settings, entry, slot, prompts, sizes.head, f"{where} ({embodiment})")
    model = load_groot(found, sizes, chosen_precision, chosen_device)
    return GrootParts(model, transforms, found, stored, embodiment, words, chosen_precision, chosen_device)


def _base(checkpoint: Checkpoint, base: str | None) -> Checkpoint:
    if base is not None:
        return find_checkpoint(base)
    stored = checkpoint.json(CONFIG) if checkpoint.has(CONFIG) else {}
    if "action_head_cfg" in stored:
        return checkpoint
    # Without the weights, which the checkpoint has.
    return find_checkpoint(str(stored.get("base_model_path") or GROOT_3B), files=("*.json",))


def _tokenizer(checkpoint: Checkpoint, tokenizer: str | None) -> Checkpoint:
    if tokenizer is not None:
        return find_checkpoint(tokenizer)
    return checkpoint if checkpoint.has("vocab.json") else find_checkpoint(EAGLE_TOKENIZER)


def _metadata(
    given: Mapping[str, Any] | str | None, checkpoint: Checkpoint, base: Checkpoint
) -> tuple[Mapping[str, Any], str]:
    if isinstance(given, str):
        try:
            content = json.loads(Path(given).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"The metadata {given} cannot be read ({error}): give a metadata.json.") from None
        if not isinstance(content, dict):
            raise UserError(f"The metadata {given} hold no JSON object: give a metadata.json.")
        return content, given
    if given is not None:
        return given, "The given metadata"
    source = checkpoint if checkpoint.has(METADATA) else base
    return source.json(METADATA), f"{METADATA} of {source.name}"
