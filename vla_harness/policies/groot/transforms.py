"""From a dictionary of modalities ("video.front", "state.single_arm", …) to the network's inputs, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...checkpoints import Fields
from ...errors import UserError
from .action_head import HeadConfig
from .embodiments import DataConfig
from .images import middle_crop
from .normalizers import MODES, Normalizer
from .prompts import Prompts, PromptStyle
from .rotations import BOUNDS, convert_rotation, rotation_width

MAX_WIDTH = 4096
"""Most numbers that a state or action key may have."""
Frames = Callable[[np.ndarray], Tensor]
"""(n, H, W, 3) uint8 frames -> (n, 3, 224, 224) float32 pixels in [-1, 1]."""


@dataclass(frozen=True)
class Inputs:
    """The network's inputs for one moment of one robot.

    pixels: (cameras, 3, 224, 224) float32; tokens: ids of the prompt; state: (1, 64) float32, normalised and padded.
    """

    pixels: Tensor
    tokens: tuple[int, ...]
    state: Tensor


@dataclass(frozen=True)
class _Key:
    """One state or action key: its widths and what happens to it, in the order rotation, normalisation."""

    name: str
    width: int
    rotation: tuple[str, str] | None
    normalizer: Normalizer | None
    sin_cos: bool = False

    @property
    def network_width(self) -> int:
        if self.sin_cos:
            return 2 * self.width
        return rotation_width(self.rotation[1]) if self.rotation else self.width

    def apply(self, x: np.ndarray) -> np.ndarray:
        if self.sin_cos:
            return np.concatenate([np.sin(x), np.cos(x)], axis=-1)
        if self.rotation is not None:
            x = convert_rotation(x, *self.rotation).astype(x.dtype)
        return x if self.normalizer is None else self.normalizer.normalise(x)

    def undo(self, x: np.ndarray) -> np.ndarray:
        x = x if self.normalizer is None else self.normalizer.restore(x)
        if self.rotation is not None:
            source, target = self.rotation
            x = convert_rotation(x, target, source).astype(x.dtype)
        return x


class Transforms:
    """What stands between an embodiment's data and the network."""

    def __init__(
        self,
        config: DataConfig,
        metadata: Mapping[str, Any],
        slot: int,
        prompts: Prompts,
        head: HeadConfig,
        where: str = "metadata.json",
    ) -> None:
        """metadata: the embodiment's entry of experiment_cfg/metadata.json; slot: of its weights; where: for messages.

        Raises UserError when a key of ``config`` is not in the metadata or described there as it cannot be, or there
        are more entries than fit.
        """
        stored = Fields(metadata, where)
        self.config, self.metadata, self.slot, self.prompts, self.head = config, metadata, slot, prompts, head
        self._state = _keys("state", config.state, config.state_modes, config.state_rotations, stored)
        if config.state_sin_cos:
            self._state = tuple(_Key(key.name, key.width, None, None, sin_cos=True) for key in self._state)
        self._action = _keys("action", config.action, config.action_modes, config.action_rotations, stored)
        for keys, most in ((self._state, head.max_state_dim), (self._action, head.action_dim)):
            if (width := sum(key.network_width for key in keys)) > most:
                raise UserError(f"The data configuration {config.name} has {width} entries; the network takes {most}.")

    @property
    def state_widths(self) -> dict[str, int]:
        """State key -> entries of the data, in the network's order."""
        return {key.name: key.width for key in self._state}

    @property
    def action_widths(self) -> dict[str, int]:
        """Action key -> entries of the data, in the network's order."""
        return {key.name: key.width for key in self._action}

    def inputs(self, example: Mapping[str, Any], style: PromptStyle = "policy", frames: Frames = middle_crop) -> Inputs:
        """Return the inputs for one moment.

        example: "video.KEY" (1, H, W, 3) or (H, W, 3) uint8, "state.KEY" (1, D) or (D,), and the instruction under the
        configuration's language key or any "annotation." one: a string or a list of one.
        frames: what makes pixels of frames; training passes its augmentation. Raises UserError for a missing key.
        """
        views = [np.asarray(_entry(example, f"video.{key}")) for key in self.config.video]
        views = [view.reshape(-1, *view.shape[-3:])[-1] for view in views]  # (H, W, 3) each
        if len({view.shape for view in views}) == 1:
            pixels = frames(np.stack(views))
        else:
            pixels = torch.cat([frames(view[None]) for view in views])
        tokens = self.prompts(self._instruction(example), len(views), style)
        parts = []
        for key in self._state:
            value = np.asarray(_entry(example, f"state.{key.name}"))
            value = value.astype(np.float64) if value.dtype.kind in "iub" else value
            parts.append(key.apply(_checked(value.reshape(-1, value.shape[-1])[-1:], key, "state")))
        state = np.concatenate(parts, axis=-1)
        return Inputs(pixels, tokens, torch.from_numpy(_padded(state, self.head.max_state_dim)).float())

    def normalised_action(self, example: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Return the (16, 32) float32 target and the (16, 32) bool mask of ``example``'s "action.KEY" (16, D)."""
        parts = [
            key.apply(_checked(np.asarray(_entry(example, f"action.{key.name}")), key, "action"))
            for key in self._action
        ]
        action = np.concatenate(parts, axis=-1)
        mask = torch.zeros(len(action), self.head.action_dim, dtype=torch.bool)
        mask[:, : action.shape[-1]] = True
        return torch.from_numpy(_padded(action, self.head.action_dim)).float(), mask

    def actions(self, normalised: np.ndarray) -> dict[str, np.ndarray]:
        """Return "action.KEY" -> (..., D) in the dataset's units of the network's (..., 32) output, float32."""
        actions, start = {}, 0
        for key in self._action:
            end = start + key.network_width
            actions[f"action.{key.name}"] = key.undo(normalised[..., start:end])
            start = end
        return actions

    def training_batch(
        self, examples: Sequence[Mapping[str, Any]], frames: Frames = middle_crop, style: PromptStyle = "train"
    ) -> dict[str, Tensor]:
        """Return the batch that ``Groot.loss`` takes, padded on the left, on the CPU.

        examples: as for ``inputs``, with "action.KEY" (16, D) beside.
        """
        inputs = [self.inputs(example, style, frames) for example in examples]
        longest = max(len(row.tokens) for row in inputs)
        tokens = torch.full((len(inputs), longest), self.prompts.padding)
        mask = torch.zeros(len(inputs), longest, dtype=torch.long)
        for i, row in enumerate(inputs):
            tokens[i, longest - len(row.tokens) :] = torch.tensor(row.tokens)
            mask[i, longest - len(row.tokens) :] = 1
        actions, action_masks = zip(*(self.normalised_action(example) for example in examples), strict=True)
        return {
            "pixels": torch.cat([row.pixels for row in inputs]),
            "tokens": tokens,
            "attention_mask": mask,
            "state": torch.stack([row.state for row in inputs]),
            "action": torch.stack(actions),
            "action_mask": torch.stack(action_masks),
            "embodiment": torch.full((len(inputs),), self.slot),
        }

    def _instruction(self, example: Mapping[str, Any]) -> str:
        names = [self.config.language, *(name for name in example if name.startswith("annotation."))]
        for name in names:
            if name in example:
                value = example[name]
                return value if isinstance(value, str) else str(np.asarray(value).reshape(-1)[0])
        raise UserError(f"The observation has no instruction: give it as {self.config.language!r}.")


def load_metadata(stored: Mapping[str, Any], embodiment: str, where: str) -> Mapping[str, Any]:
    """Return the embodiment's entry of a metadata.json; raises UserError that lists those it has."""
    if embodiment not in stored:
        raise UserError(
            f"{where} has no statistics for the embodiment {embodiment!r}, only for {', '.join(stored) or 'none'}:"
            " choose another embodiment, or give a metadata.json that has them."
        )
    entry = stored[embodiment]
    if not isinstance(entry, Mapping):
        raise UserError(f"{where} holds no object for {embodiment}: fetch the checkpoint again.")
    return entry


def _keys(
    modality: str,
    names: Sequence[str],
    modes: Mapping[str, str],
    rotations: Mapping[str, str],
    metadata: Fields,
) -> tuple[_Key, ...]:
    described, statistics = (metadata.section(part).section(modality) for part in ("modalities", "statistics"))
    keys = []
    for name in names:
        if name not in described.content:
            raise UserError(
                f"The statistics speak of no {modality} key {name!r}, only of {', '.join(described.content)}: choose a"
                " data configuration that fits the checkpoint's data."
            )
        card = described.section(name)
        width = _width(card)
        rotation = None
        if name in rotations:
            if not card.has("rotation_type"):
                raise UserError(f"The metadata does not say which rotation the {modality} key {name!r} is.")
            source = card.text("rotation_type")
            rotation = None if source == rotations[name] else (source, rotations[name])
        keys.append(_Key(name, width, rotation, _normalizer(name, modes, rotation, card, statistics, width)))
    return tuple(keys)


def _normalizer(
    name: str,
    modes: Mapping[str, str],
    rotation: tuple[str, str] | None,
    card: Fields,
    statistics: Fields,
    width: int,
) -> Normalizer | None:
    mode = modes.get(name)
    if mode is None:
        return None
    if rotation is not None:  # the statistics are of the representation in the data, so the target's bounds are taken
        if mode != "min_max" or not card.flag("absolute"):
            raise UserError(
                f"{name!r} is turned into {rotation[1]}, which only absolute rotations and min_max go with."
            )
        bounds = [BOUNDS.get(rotation[1], np.pi)] * rotation_width(rotation[1])
        return Normalizer(mode, {"min": [-bound for bound in bounds], "max": bounds})
    stored = statistics.section(name, optional=not MODES[mode])
    if missing := [key for key in MODES[mode] if not stored.has(key)]:
        raise UserError(f"The statistics of {name!r} lack {', '.join(missing)}, which {mode} needs.")
    numbers = {key: stored.numbers(key, width) for key in MODES[mode]}
    for low, high in (("min", "max"), ("q01", "q99")):
        if low in numbers and any(a > b for a, b in zip(numbers[low], numbers[high], strict=True)):
            stored.refuse(low, f"a list of numbers not above {high}")
    if any(one < 0 for one in numbers.get("std", ())):
        stored.refuse("std", "a list of numbers of 0 or more")
    return Normalizer(mode, numbers)


def _width(card: Fields) -> int:
    """Return how many numbers a key has."""
    shape = card.numbers("shape", 1)
    if not 1 <= shape[0] <= MAX_WIDTH or shape[0] != int(shape[0]):
        card.refuse("shape", f"a whole number from 1 to {MAX_WIDTH}, in a list,")
    return int(shape[0])


def _entry(example: Mapping[str, Any], name: str) -> Any:
    if name not in example:
        raise UserError(
            f"The observation has no {name!r}, which the data configuration names; it has {', '.join(example)}."
        )
    return example[name]


def _checked(value: np.ndarray, key: _Key, modality: str) -> np.ndarray:
    if value.shape[-1] != key.width:
        raise UserError(
            f"{modality}.{key.name} has {value.shape[-1]} entries, and the statistics are of {key.width}: the data are"
            " not of this embodiment."
        )
    return value


def _padded(x: np.ndarray, width: int) -> np.ndarray:
    return np.pad(x, ((0, 0), (0, width - x.shape[-1])))
