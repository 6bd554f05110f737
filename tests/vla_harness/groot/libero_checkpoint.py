"""Writes the tiny GR00T as a checkpoint for LIBERO's data, which is complete by itself as a fine-tune of ours is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.vla_harness.groot.goldens import CHECKPOINT, TOKENIZER
from vla_harness.policies.groot.assembly import open_groot
from vla_harness.policies.groot.model import save_checkpoint


def libero_metadata() -> dict[str, Any]:
    """Return statistics under which the tiny network's actions stay small, for LIBERO's keys."""
    keys = {"x": 1, "y": 1, "z": 1, "roll": 1, "pitch": 1, "yaw": 1, "gripper": 2}

    def cards(last: int) -> dict[str, Any]:
        widths = keys | {"gripper": last}
        card = {"absolute": True, "rotation_type": None, "continuous": True}
        return {key: card | {"shape": [width]} for key, width in widths.items()}

    state, action = cards(2), cards(1)
    statistics = {
        modality: {
            key: {"min": [low] * card["shape"][0], "max": [1.0] * card["shape"][0]} for key, card in described.items()
        }
        for modality, described, low in (("state", state, -1.0), ("action", action, -1.0))
    }
    statistics["action"]["gripper"]["min"] = [0.0]
    return {"new_embodiment": {"statistics": statistics, "modalities": {"state": state, "action": action}}}


def write_libero_checkpoint(folder: Path) -> Path:
    """Write the checkpoint into ``folder``, and return it."""
    metadata = libero_metadata()
    parts = open_groot(CHECKPOINT, TOKENIZER, config="libero", precision="fp32", metadata=metadata)
    save_checkpoint(folder, parts.model, metadata, parts.checkpoint, parts.tokenizer)
    return folder
