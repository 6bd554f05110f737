"""What public LIBERO datasets in LeRobot's format call things and how they store them, and the way to our terms.

Our terms, which the environments share: cameras ``agentview`` and ``wrist``, frames upright, ``observation.state`` =
eef_pos 3, eef_axis_angle 3, gripper_qpos 2, ``action`` = delta pose 6, gripper 1 (-1 opens, 1 closes).

Sources: openpi ``examples/libero/convert_libero_data_to_lerobot.py``; lerobot ``LiberoProcessorStep``; any4lerobot
``openx2lerobot`` with OpenVLA's ``libero_dataset_transform``, and Isaac-GR00T N1.5 ``examples/Libero``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ..conventions import orient
from ..errors import UserError
from ..types import DELTA_EEF_POSE, ActionConvention, ImageOrientation
from .dataset import Dataset
from .features import Feature
from .modality import Modality, Part, part_values
from .storage import Storage

STATE = {"eef_pos": 3, "eef_axis_angle": 3, "gripper_qpos": 2}
"""Parts of observation.state, with their lengths."""
STATE_NAMES = ("x", "y", "z", "axis_angle_x", "axis_angle_y", "axis_angle_z", "gripper_left", "gripper_right")
ACTION_NAMES = ("dx", "dy", "dz", "drx", "dry", "drz", "gripper")
EARLIER_STATE_NAMES = tuple(f"{key}_{i}" for key, length in STATE.items() for i in range(length))
"""What conversions called the state's entries before recording and converting had the same names."""
ConventionName = Literal["openpi", "lerobot", "openx"]

GRIPPER = Part("action", DELTA_EEF_POSE.dim - 1, DELTA_EEF_POSE.dim)
FINGERS = Part("observation.state", sum(STATE.values()) - 2, sum(STATE.values()))
LOOKED_AT = 20
"""Episodes in which the gripper is watched."""
MOVES = 5e-4
"""Metres in a row by which moving fingers come nearer or go apart."""


@dataclass(frozen=True)
class DatasetConvention:
    """How a dataset stores demonstrations of LIBERO.

    cameras: ours -> its column. state, action: its columns of 8 and 7 numbers. frames: how its frames lie.
    gripper_open, gripper_closed: values of the action's last entry.
    """

    cameras: Mapping[str, str]
    state: str
    action: str
    frames: ImageOrientation = "mirrored"  # LIBERO's raw frame is upside down; these sets turn it by 180 degrees
    gripper_open: float = -1.0
    gripper_closed: float = 1.0


CONVENTIONS: dict[ConventionName, DatasetConvention] = {
    "openpi": DatasetConvention({"agentview": "image", "wrist": "wrist_image"}, "state", "actions"),
    "lerobot": DatasetConvention(
        {"agentview": "observation.images.image", "wrist": "observation.images.image2"}, "observation.state", "action"
    ),
    "openx": DatasetConvention(
        {"agentview": "observation.images.image", "wrist": "observation.images.wrist_image"},
        "observation.state",
        "action",
        gripper_open=1.0,
        gripper_closed=0.0,
    ),
}
"""openpi: physical-intelligence/libero. lerobot: lerobot/libero, HuggingFaceVLA/libero. openx: the sets that were made
from OpenVLA's RLDS through Open X-Embodiment's transforms, IPEC-COMMUNITY/libero_*_lerobot, lerobot/libero_*_image."""
_OURS = DatasetConvention(
    {name: f"observation.images.{name}" for name in ("agentview", "wrist")}, "observation.state", "action", "upright"
)


def state_parts() -> dict[str, Part]:
    """Return the parts of observation.state."""
    start, parts = 0, {}
    for key, length in STATE.items():
        parts[key] = Part("observation.state", start, start + length)
        start += length
    return parts


def libero_modality(cameras: Sequence[str], more_state: Mapping[str, Part] | None = None) -> Modality:
    """Return what a dataset in our terms has. cameras: short names."""
    return Modality(
        state_parts() | dict(more_state or {}),
        {"action": Part("action", 0, DELTA_EEF_POSE.dim, absolute=False)},
        {name: f"observation.images.{name}" for name in cameras},
        {"human.task_description": "task_index"},
    )


def present_names(features: Mapping[str, Feature]) -> dict[str, Feature]:
    """Return the features with the present names of state and action where they have the earlier ones."""
    present, state = dict(features), features.get("observation.state")
    if state is not None and state.names == list(EARLIER_STATE_NAMES):
        for name, names in (("observation.state", STATE_NAMES), ("action", ACTION_NAMES)):
            if name in present and len(names) == present[name].size:
                present[name] = replace(present[name], names=list(names))
    return present


def in_our_terms(dataset: Dataset) -> bool:
    """Return whether the dataset has the harness's columns, as recordings, translated and HDF5 datasets have."""
    return _missing(dataset, _OURS) is None


def with_state_parts(dataset: Dataset) -> Dataset:
    """Return a dataset in our terms with the parts of its observation.state named; any other as it is."""
    if not in_our_terms(dataset):
        return dataset
    known = dataset.modality
    return replace(dataset, own_modality=replace(known, state=state_parts() | dict(known.state)))


def fitting(dataset: Dataset) -> list[ConventionName]:
    """Return the conventions whose columns the dataset has."""
    return [name for name, convention in CONVENTIONS.items() if _missing(dataset, convention) is None]


def translate(
    dataset: Dataset, name: ConventionName | None = None, image_orientation: ImageOrientation | None = None
) -> Dataset:
    """Return the LeRobot ``dataset`` in our terms; its columns, frames and gripper are turned as they are read.

    name: the convention that it follows; None if it has our names already. image_orientation: how its frames lie, where
    that is not what the convention says. Raises UserError where its columns are not the convention's.
    """
    convention = None if name is None else CONVENTIONS[name]
    frames = image_orientation or ("upright" if convention is None else convention.frames)
    told = f"frames stored {frames}"
    renamed: dict[str, str] = {}
    changes: dict[str, Feature] = {}
    if convention is not None:
        complaint = _missing(dataset, convention)
        if complaint is not None:
            others = [other for other in fitting(dataset) if other != name]
            hint = f" its columns are those of --convention {others[0]}" if others else " give the one it follows"
            raise UserError(f"{dataset.path} does not follow the convention {name!r}: it has {complaint};{hint}.")
        renamed = {f"observation.images.{ours}": theirs for ours, theirs in convention.cameras.items()}
        renamed |= {"observation.state": convention.state, "action": convention.action}
        state, action = dataset.features[convention.state], dataset.features[convention.action]
        changes = {
            "observation.state": Feature(state.dtype, state.shape, list(STATE_NAMES)),
            "action": Feature(action.dtype, action.shape, list(ACTION_NAMES)),
        }
        told += f", gripper {convention.gripper_open:g} open and {convention.gripper_closed:g} closed ({name})"
    theirs = {old: new for new, old in renamed.items()}
    features = {theirs.get(key, key): feature for key, feature in dataset.features.items()}
    return replace(
        dataset,
        features={key: changes.get(key, feature) for key, feature in features.items()},
        cameras=tuple(theirs.get(camera, camera) for camera in dataset.cameras),
        storage=TranslatedStorage(
            dataset.storage,
            renamed,
            lambda images: orient(images, frames, "upright"),
            None if convention is None else lambda actions: _gripper_turned(actions, convention),
        ),
        own_modality=dataset.own_modality if convention is None else libero_modality(list(convention.cameras)),
        translation=told,
    )


def _missing(dataset: Dataset, convention: DatasetConvention) -> str | None:
    """Return what the dataset has not, in words; None if it has all that the convention names."""
    for camera in convention.cameras.values():
        if camera not in dataset.cameras:
            return f"no camera {camera} (but {', '.join(dataset.cameras) or 'none'})"
    for column, length in ((convention.state, sum(STATE.values())), (convention.action, DELTA_EEF_POSE.dim)):
        feature = dataset.features.get(column)
        if feature is None or feature.shape != (length,):
            return f"no column {column} of {length} numbers"
    return None


class TranslatedStorage:
    """See Storage; another storage in other terms."""

    def __init__(
        self,
        source: Storage,
        renamed: Mapping[str, str],
        turn_images: Callable[[np.ndarray], np.ndarray],
        turn_actions: Callable[[np.ndarray], np.ndarray] | None,
    ) -> None:
        """renamed: our name -> the source's. turn_images, turn_actions: of all frames, and of the column "action"."""
        self.source, self._renamed = source, renamed
        self._turn_images, self._turn_actions = turn_images, turn_actions

    def columns(self, episode: int) -> Mapping[str, np.ndarray]:
        """See Storage."""
        ours = {theirs: name for name, theirs in self._renamed.items()}
        columns = {ours.get(name, name): values for name, values in self.source.columns(episode).items()}
        if self._turn_actions is not None and "action" in columns:
            columns["action"] = self._turn_actions(columns["action"])
        return columns

    def images(self, episode: int, camera: str, rows: Sequence[int]) -> np.ndarray:
        """See Storage."""
        return self._turn_images(self.source.images(episode, self._renamed.get(camera, camera), rows))

    def raw_images(self, episode: int, camera: str, rows: Sequence[int]) -> list[np.ndarray]:
        """See Storage."""
        images = self.source.raw_images(episode, self._renamed.get(camera, camera), rows)
        return [self._turn_images(image.reshape(*image.shape[:2], -1)[None])[0] for image in images]

    def has_colors(self, episode: int, camera: str) -> bool:
        """See Storage."""
        return self.source.has_colors(episode, self._renamed.get(camera, camera))

    def check_frames(self, episode: int, camera: str) -> None:
        """See Storage."""
        self.source.check_frames(episode, self._renamed.get(camera, camera))


def _gripper_turned(actions: np.ndarray, convention: DatasetConvention) -> np.ndarray:
    """Return (length, 7) actions whose gripper is open at -1 and closed at 1."""
    ends = (convention.gripper_open, convention.gripper_closed)
    wanted = (DELTA_EEF_POSE.gripper_open, DELTA_EEF_POSE.gripper_closed)
    if ends == wanted:
        return actions
    turned = actions.copy()
    turned[:, -1] = wanted[0] + (actions[:, -1] - ends[0]) / (ends[1] - ends[0]) * (wanted[1] - wanted[0])
    return turned


def check_gripper(dataset: Dataset) -> None:
    """Raise UserError where a dataset in our terms contradicts itself about the gripper; see ``check_gripper_part``."""
    shapes = {name: feature.shape for name, feature in dataset.features.items()}
    if shapes.get("action") != (DELTA_EEF_POSE.dim,):
        return  # of another robot
    with_fingers = shapes.get("observation.state") == (sum(STATE.values()),)
    read_as = dataset.translation or "the harness stores it"
    check_gripper_part(dataset, GRIPPER, FINGERS if with_fingers else None, DELTA_EEF_POSE, read_as)


def check_gripper_part(
    dataset: Dataset, gripper: Part, fingers: Part | None, convention: ActionConvention, read_as: str
) -> None:
    """Raise UserError where the gripper's entry of the actions is not what ``convention`` says.

    It must lie between open and closed, and where it closes the fingers must come nearer to each other, where it opens
    go apart: looked up in 20 episodes, if the dataset has the fingers' places and they move. read_as: for the message.
    """
    opened, closed = convention.gripper_open, convention.gripper_closed
    agreed = moved = 0
    count = len(dataset.episodes)
    for position in np.unique(np.linspace(0, count - 1, min(count, LOOKED_AT)).round().astype(int)).tolist():
        episode = dataset.episode(position)
        stored = part_values(episode, gripper)[:, 0]
        commands = 2 * (stored - opened) / (closed - opened) - 1  # -1 opens, 1 closes
        if np.abs(commands).max() > 1 + 1e-3:
            raise UserError(
                f"The gripper's entry of the actions of {dataset.path} goes from {stored.min():g} to"
                f" {stored.max():g} (read as {read_as}), not from {opened:g} (open) to {closed:g} (closed):"
                f" {_advice(dataset)}."
            )
        if fingers is not None:
            nearer = -np.diff(np.abs(part_values(episode, fingers)).sum(axis=1))
            looked = (np.abs(nearer) > MOVES) & (commands[:-1] != 0)
            agreed += int((nearer[looked] * commands[:-1][looked] > 0).sum())
            moved += int(looked.sum())
    if moved >= LOOKED_AT and agreed < 0.2 * moved:
        raise UserError(
            f"The fingers of {dataset.path} open where its actions close them (read as {read_as}), in {moved - agreed}"
            f" of {moved} rows: {_advice(dataset)}."
        )


def _advice(dataset: Dataset) -> str:
    others = [] if dataset.translation else fitting(dataset)
    return f"give --convention {others[0]}" if others else "give the --convention that it follows, or turn its gripper"
