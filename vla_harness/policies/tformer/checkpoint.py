"""Checkpoints of the policy from scratch: ``model.safetensors`` and ``config.json``, in a folder or on the hub."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from tformer.policy import HeadConfig, HeadKind, PolicyConfig, VisuomotorPolicy
from tformer.tokenizers import PADDING, WordTokenizer

from ...checkpoints import Checkpoint, Fields, load_weights, parameters_on_meta
from ...errors import CheckpointError
from ...types import DELTA_EEF_POSE

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

    @property
    def tasks(self) -> tuple[str, ...] | None:
        """The instructions it was trained on; None where an older training did not store them."""
        told = self.training.get("instructions")
        return None if told is None else tuple(told)

    @classmethod
    def from_json(cls, content: Mapping[str, Any], name: str) -> PolicyCard:
        """Return the card that ``to_json`` wrote. Raises CheckpointError for other files."""
        if content.get("format") != FORMAT:
            raise CheckpointError(f"{name} is no checkpoint of the policy 'tformer': give one that its training wrote.")
        stored = Fields(content, f"{CONFIGURATION} of {name}")
        stored.only("format", *(one.name for one in fields(cls)))
        network = _read_network(stored.section("network"))
        words = stored.texts("words")
        if WordTokenizer(words).vocab_size != network.vocabulary:
            stored.refuse("words", f"a list of words that fits the network's vocabulary of {network.vocabulary}")
        height, width = stored.integers("image_size", 2, most=_LARGEST_FRAME)
        training = stored.section("training", optional=True)
        if training.has("instructions"):
            training.texts("instructions")
        return cls(
            network=network,
            words=words,
            cameras=stored.texts("cameras", count=len(network.reduce)),
            state_keys=stored.texts("state_keys"),
            image_size=(height, width),
            state=_read_scale(stored.section("state"), network.state_dim),
            action=_read_scale(stored.section("action"), network.action_dim),
            aim=_read_scale(stored.section("aim"), network.aim_dim),
            gripper=stored.numbers("gripper"),
            training=training.content,
        )


_LARGEST_FRAME = 4096
_LARGEST_WIDTH = 2**14
_MOST_LAYERS = 256


def _read_network(stored: Fields) -> PolicyConfig:
    stored.only(*(one.name for one in fields(PolicyConfig)))
    head = stored.section("head")
    head.only(*(one.name for one in fields(HeadConfig)))
    if head.text("kind") not in get_args(HeadKind):
        head.refuse("kind", " or ".join(get_args(HeadKind)))
    kind: HeadKind = head.content["kind"]
    heads = stored.integer("heads", most=_LARGEST_WIDTH)
    d_model = stored.integer("d_model", most=_LARGEST_WIDTH)
    if d_model % (2 * heads):
        stored.refuse("d_model", f"a multiple of 2 x {heads} heads")
    return PolicyConfig(
        vocabulary=stored.integer("vocabulary"),
        reduce=stored.integers("reduce", most=_LARGEST_FRAME),
        state_dim=stored.integer("state_dim", most=_LARGEST_WIDTH),
        aim_dim=stored.integer("aim_dim", least=0, most=_LARGEST_WIDTH),
        action_dim=stored.integer("action_dim", least=DELTA_EEF_POSE.dim, most=DELTA_EEF_POSE.dim),
        horizon=stored.integer("horizon", most=_LARGEST_FRAME),
        d_model=d_model,
        layers=stored.integer("layers", most=_MOST_LAYERS),
        heads=heads,
        width=stored.integer("width", most=_LARGEST_WIDTH),
        keypoints=stored.integer("keypoints", most=_LARGEST_WIDTH),
        words=stored.integer("words", most=_LARGEST_FRAME),
        language=stored.flag("language"),
        head=HeadConfig(kind, head.integer("layers", most=_MOST_LAYERS)),
    )


def _read_scale(stored: Fields, count: int) -> Scale:
    scale = stored.numbers("scale", count)
    if any(value <= 0 for value in scale):
        stored.refuse("scale", "numbers above 0")
    return Scale(stored.numbers("offset", count), scale)


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
    with parameters_on_meta():
        network = VisuomotorPolicy(card.network)
    load_weights(network, checkpoint.tensors(), rename=str, dtype=torch.float32, device=torch.device("cpu"))
    return card, network
