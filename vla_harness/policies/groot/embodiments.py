"""Which robot a checkpoint is used for: its slot in the weights, its data configuration, its statistics."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...types import UNKNOWN_ACTION, ActionConvention, ImageOrientation
from .normalizers import MODES

EMBODIMENT_SLOTS = {"gr1": 24, "oxe_droid": 17, "agibot_genie1": 26, "genie1_gripper": 26, "new_embodiment": 31}
"""Embodiment tag -> slot of its weights in the encoders and the decoder. Two tags name the same AgiBot data."""

NO_CONVENTION = UNKNOWN_ACTION
"""Stated for embodiments whose actions are joint positions and the like, which no environment here takes: it is refused
before the first episode."""
_BUILT_IN = Path(__file__).with_name("data_configs.toml")


@dataclass(frozen=True)
class Robot:
    """How an environment of this harness serves the data.

    cameras: in the order of the video keys. state_keys: parts whose concatenation is cut into the state keys.
    """

    cameras: tuple[str, ...]
    state_keys: tuple[str, ...]
    image_size: tuple[int, int]
    image_orientation: ImageOrientation
    action: ActionConvention


@dataclass(frozen=True)
class DataConfig:
    """What an embodiment's data are called and how they are normalised; see data_configs.toml for the fields.

    ``*_modes`` and ``*_rotations`` hold one entry per key that has one. robot: None where no environment serves it.
    """

    name: str
    video: tuple[str, ...]
    state: tuple[str, ...]
    action: tuple[str, ...]
    language: str
    state_modes: Mapping[str, str] = field(default_factory=dict)
    action_modes: Mapping[str, str] = field(default_factory=dict)
    state_rotations: Mapping[str, str] = field(default_factory=dict)
    action_rotations: Mapping[str, str] = field(default_factory=dict)
    state_sin_cos: bool = False
    robot: Robot | None = None

    @property
    def modality_config(self) -> dict[str, dict[str, list[Any]]]:
        """What ``Gr00tPolicy.get_modality_config`` answers: per modality the steps relative to now, and the keys."""
        return {
            "video": {"delta_indices": [0], "modality_keys": [f"video.{key}" for key in self.video]},
            "state": {"delta_indices": [0], "modality_keys": [f"state.{key}" for key in self.state]},
            "action": {"delta_indices": list(range(16)), "modality_keys": [f"action.{key}" for key in self.action]},
            "language": {"delta_indices": [0], "modality_keys": [self.language]},
        }


def data_config(name: str) -> DataConfig:
    """Return the built-in data configuration ``name``, or the only (or last) one of a TOML file of the same form.

    Raises UserError that lists the built-in ones, or names the entry of the file that is wrong.
    """
    if not name.endswith(".toml"):
        known = _tables(_BUILT_IN)
        if name not in known:
            raise UserError(
                f"There is no data configuration {name!r}: choose one of {', '.join(known)}, or a .toml file."
            )
        return _data_config(name, known)
    own = _tables(Path(name))
    if not own:
        raise UserError(f"{name} holds no data configuration: write one as a table, such as [my_robot].")
    return _data_config(list(own)[-1], _tables(_BUILT_IN) | own)


def key_widths(config: str, group: str, keys: Sequence[str], lengths: Sequence[int]) -> dict[str, int]:
    """Return key -> numbers, where ``keys`` cut the numbers of parts with these ``lengths``, side by side.

    A key for each part, or a number for each key and what is left for the last. Raises UserError for fewer numbers.
    """
    if len(keys) == len(lengths):
        return dict(zip(keys, lengths, strict=True))
    if not keys or len(keys) > sum(lengths):
        raise UserError(
            f"The data configuration {config} names {len(keys)} {group} keys for {sum(lengths)} numbers in"
            f" {len(lengths)} parts: name as many keys as parts or numbers."
        )
    return dict.fromkeys(keys[:-1], 1) | {keys[-1]: sum(lengths) - len(keys) + 1}


def embodiment_slot(tag: str) -> int:
    """Return the slot of the embodiment ``tag``; raises UserError that lists the known ones."""
    if tag not in EMBODIMENT_SLOTS:
        raise UserError(f"There is no embodiment {tag!r}: choose one of {', '.join(EMBODIMENT_SLOTS)}.")
    return EMBODIMENT_SLOTS[tag]


def _tables(file: Path) -> dict[str, dict[str, Any]]:
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"The data configuration {file} cannot be read ({error}): give a TOML file.") from None
    return {name: table for name, table in content.items() if isinstance(table, dict)}


def _data_config(name: str, tables: Mapping[str, Mapping[str, Any]]) -> DataConfig:
    table = dict(tables[name])
    if "like" in table:
        like = table.pop("like")
        if like not in tables:
            raise UserError(f"The data configuration {name} is like {like!r}, which there is not.")
        table = dict(tables[like]) | table
    for key in table:
        if key not in DataConfig.__dataclass_fields__ or key == "name":
            raise UserError(f"The data configuration {name} has an entry {key!r}, which means nothing here.")
    for key in ("video", "state", "action", "language"):
        if not table.get(key):
            raise UserError(f"The data configuration {name} needs the entry {key!r}.")
    for modality in ("state", "action"):
        keys = table[modality] = tuple(table[modality])
        modes = table.get(f"{modality}_modes", {})
        table[f"{modality}_modes"] = modes = dict.fromkeys(keys, modes) if isinstance(modes, str) else modes
        rotations = table.get(f"{modality}_rotations", {})
        for key in [*modes, *rotations]:
            if key not in keys:
                raise UserError(
                    f"The data configuration {name} speaks of {key!r}, which is none of its {modality} keys."
                )
        for key, mode in modes.items():
            if mode not in MODES:
                raise UserError(
                    f"The data configuration {name} wants {key!r} {mode!r}: choose one of {', '.join(MODES)}."
                )
    table["video"] = tuple(table["video"])
    if "robot" in table:
        table["robot"] = _robot(name, table["robot"])
    return DataConfig(name=name, **table)


def _robot(name: str, table: Mapping[str, Any]) -> Robot:
    try:
        height, width = table["image_size"]
        return Robot(
            cameras=tuple(table["cameras"]),
            state_keys=tuple(table["state_keys"]),
            image_size=(height, width),
            image_orientation=table["image_orientation"],
            action=ActionConvention(**table["action"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"The table robot of the data configuration {name} is incomplete: {error}.") from None
