"""Checkpoints of the policy from scratch: ``model.safetensors`` and ``config.json``, in a folder or on the hub."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tformer.policy import PolicyConfig, VisuomotorPolicy
from tformer.tokenizers import PADDING, WordTokenizer

from ...checkpoints.files import Checkpoint
from ...errors import CheckpointError

WEIGHTS, CONFIGURATION = "model.safetensors", "config.json"
FORMAT = "vla-harness-tformer-1"


@dataclass(frozen=True)
class Scale:
    """A linear map of each entry: ``(value - offset) / scale``."""

    offset: tuple[float, ...]
    scale: tuple[float, ...]

    def normalise(self, values: np.ndarray) -> np.ndarray:
        """values: (…, D). Returns (…, D) float32 of about unit size."""
        return ((values - np.array(self.offset)) / np.array(self.scale)).astype(np.float32)

    def restore(self, values: np.ndarray) -> np.ndarray:
        """Return what ``normalise`` was given, float32."""
        return (values * np.array(self.scale) + np.array(self.offset)).astype(np.float32)


@dataclass(frozen=True)
class PolicyCard:
    """All of a checkpoint but its weights; ``config.json``.

    network: of ``tformer.policy``. words: the vocabulary. cameras, state_keys: what it reads, in the harness's names.
    image_size: (height, width) of the frames. state, action, aim: normalisation. gripper: the only values that the
    gripper's entry had in the demonstrations, such as (-1, 0, 1), or none where it had many. training: how it came
    about.
    """

    network: PolicyConfig
    words: tuple[str, ...]
    cameras: tuple[str, ...]
    state_keys: tuple[str, ...]
    image_size: tuple[int, int]
    state: Scale
    action: Scale
    aim: Scale
    gripper: tuple[float, ...] = ()
    training: Mapping[str, Any] = field(default_factory=dict)

    def tokens(self, instructions: Sequence[str]) -> Tensor:
        """Return (B, W) int64, padded; words beyond the network's longest instruction are dropped."""
        tokenizer = WordTokenizer(self.words)
        rows = [tokenizer.encode(text.lower())[: self.network.words] or [PADDING + 1] for text in instructions]
        return torch.tensor([row + [PADDING] * (max(map(len, rows)) - len(row)) for row in rows])

    def actions(self, chunk: np.ndarray) -> np.ndarray:
        """Return the actions, (…, 7) float32 in [-1, 1], of the network's (…, 7) normalised ones.

        The gripper's entry becomes the nearest demonstrated value: where 0 holds still, 0.01 closes.
        """
        actions = np.clip(self.action.restore(chunk), -1.0, 1.0)
        if self.gripper:
            levels = np.array(self.gripper, np.float32)
            actions[..., -1] = levels[np.abs(actions[..., -1:] - levels).argmin(axis=-1)]
        return actions

    def to_json(self) -> str:
        """Return the content of ``config.json``."""
        return json.dumps({"format": FORMAT} | asdict(self) | {"network": self.network.to_dict()}, indent=2)

    @classmethod
    def from_json(cls, content: Mapping[str, Any], name: str) -> PolicyCard:
        """Return the card that ``to_json`` wrote. Raises CheckpointError for other files."""
        values = dict(content)
        if values.pop("format", None) != FORMAT:
            raise CheckpointError(f"{name} is no checkpoint of the policy 'tformer': give one that its training wrote.")
        try:
            for key in ("state", "action", "aim"):
                values[key] = Scale(**{part: tuple(numbers) for part, numbers in values[key].items()})
            for key in ("words", "cameras", "state_keys", "image_size", "gripper"):
                values[key] = tuple(values[key])
            return cls(**(values | {"network": PolicyConfig.from_dict(values["network"])}))
        except (KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{CONFIGURATION} of {name} is damaged ({error}): fetch the checkpoint again."
            ) from None


def images_to_network(images: np.ndarray) -> Tensor:
    """Return (B, K, 3, H, W) float32 in -1 … 1 of (B, K, H, W, 3) uint8 frames."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 1, 4, 2, 3).float() / 127.5 - 1


def save_policy(folder: Path, card: PolicyCard, weights: Mapping[str, Tensor]) -> None:
    """Write the two files, weights in float16, which halves them and moves actions by less than 1e-3.

    Each replaces the earlier one only when it is whole, so that a full disk does not cost the last epoch's export.
    """
    folder.mkdir(parents=True, exist_ok=True)
    half = {name: tensor.detach().to(torch.float16).contiguous().cpu() for name, tensor in weights.items()}
    unfinished = folder / f"{WEIGHTS}.unfinished"
    try:
        save_file(half, unfinished)
        os.replace(unfinished, folder / WEIGHTS)
        unfinished.write_text(card.to_json(), encoding="utf-8")
        os.replace(unfinished, folder / CONFIGURATION)
    finally:
        unfinished.unlink(missing_ok=True)


def read_policy(checkpoint: Checkpoint) -> tuple[PolicyCard, VisuomotorPolicy]:
    """Return a checkpoint's card and its network in float32 on the CPU, ready to act. Raises CheckpointError."""
    checkpoint.require("tformer")
    card = PolicyCard.from_json(checkpoint.json(CONFIGURATION), checkpoint.name)
    if not checkpoint.has(WEIGHTS):
        raise CheckpointError(f"{checkpoint.name} has no file {WEIGHTS}: give a complete checkpoint.")
    network = VisuomotorPolicy(card.network)
    try:
        weights = load_file(checkpoint.path / WEIGHTS)
        network.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    except Exception as error:
        told = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{WEIGHTS} of {checkpoint.name} does not fit its {CONFIGURATION} ({told}).") from None
    return card, network.eval().requires_grad_(False)
