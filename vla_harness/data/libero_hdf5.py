"""LIBERO's demonstrations: one HDF5 file for each task, as the benchmark and its regenerations publish them.

Source: Lifelong-Robot-Learning/LIBERO ``scripts/create_dataset.py`` and openvla
``regenerate_libero_dataset.py``: data/demo_i/{actions, obs/{agentview_rgb, eye_in_hand_rgb, ee_pos, ee_ori, ee_states,
gripper_states, joint_states}, rewards, dones}.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import h5py
import numpy as np

from ..conventions import orient
from ..errors import UserError
from ..system_memory import require_memory
from ..types import ImageOrientation
from .conventions import ACTION_NAMES, STATE, STATE_NAMES, libero_modality
from .dataset import Dataset
from .features import BOOKKEEPING, Feature
from .hdf5_files import hdf5_field, hdf5_item, hdf5_rows, opened_hdf5
from .lerobot import EpisodeRecord
from .modality import Part

FPS = 20.0
CAMERAS = {"observation.images.agentview": "agentview_rgb", "observation.images.wrist": "eye_in_hand_rgb"}
FIELDS = {"eef_pos": "ee_pos", "eef_axis_angle": "ee_ori", "gripper_qpos": "gripper_states"}
"""Parts of observation.state: our name -> LIBERO's."""
JOINT = ("observation.state.joint", "joint_states", 7)
"""Our feature, LIBERO's field, length. A file may lack it."""
OBSERVED, BEFORE = "observations", "before the action"
"""Attribute of the files written here, and its value: LIBERO's own hold in row i what was seen after action i."""
UNKNOWN_ORDER = (
    "LIBERO's own HDF5 files hold in row i what was seen after action i, OpenVLA's regenerated ones what was seen"
    " before it, and these do not say which; rows are paired as stored, --shift-observations pairs each action with the"
    " row before it"
)
IMAGE_CONVENTIONS: Mapping[str, ImageOrientation] = {"opengl": "upside_down", "opencv": "upright"}
"""robosuite's macro, which LIBERO's files keep: how their frames lie."""


def open_demonstrations(
    path: Path, image_orientation: ImageOrientation | None = None, shift_observations: bool = False
) -> Dataset:
    """Open an .hdf5 file of LIBERO's demonstrations, or every one in a folder, as a dataset with an episode for each.

    Its frames, which LIBERO stores upside down, are turned upright. image_orientation: how they lie, where the file
    does not say so. shift_observations: pair each action with the row before, and drop the first.
    Raises UserError that names file and field.
    """
    files = sorted(path.glob("*.hdf5")) if path.is_dir() else [path]
    records: list[EpisodeRecord] = []
    places: list[_Place] = []
    tasks: dict[int, str] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    has_joints, before, shift = True, True, int(shift_observations)
    for file in files:
        with opened_hdf5(file) as data:
            words = _instruction(file, data)
            task = next((number for number, known in tasks.items() if known == words), len(tasks))
            tasks[task] = words
            frames = image_orientation or _orientation(file, data)
            stated = str(data.attrs.get(OBSERVED)) == BEFORE
            before = before and stated
            if shift and stated:
                raise UserError(
                    f"{file} says that its rows hold what was seen before each action: leave --shift-observations out."
                )
            for name in sorted(data, key=_number):
                actions = hdf5_field(file, data, f"{name}/actions")
                length = actions.shape[0] if actions.shape else 0
                if not length:
                    raise UserError(f"{file} ({name}) has no actions: drop that demonstration.")
                if length <= shift:
                    raise UserError(f"{file} ({name}) has one action, and shifting drops the first: drop it.")
                records.append(EpisodeRecord(len(records), length - shift, (words,)))
                places.append(_Place(file, name, task, frames, shift))
                for feature, source in CAMERAS.items():
                    frames_of = hdf5_field(file, data, f"{name}/obs/{source}")
                    shape = frames_of.shape
                    wanted = (length, *shapes.setdefault(feature, shape[1:3]), 3)
                    if shape != wanted or frames_of.dtype != np.uint8:
                        raise UserError(
                            f"{file} has {shape} {frames_of.dtype} in data/{name}/obs/{source} and {length} actions: a"
                            " uint8 frame of 3 colors for each, all of one size, is needed."
                        )
                has_joints = has_joints and hdf5_item(file, data, f"{name}/obs/{JOINT[1]}") is not None
    if not records:
        raise UserError(f"{path} holds no demonstrations: name an .hdf5 file of LIBERO's, or a folder of them.")
    joints = {JOINT[0]: Feature("float32", (JOINT[2],))} if has_joints else {}
    features = {
        **{name: Feature("image", (*shape, 3)) for name, shape in shapes.items()},
        "observation.state": Feature("float32", (len(STATE_NAMES),), list(STATE_NAMES)),
        **joints,
        "action": Feature("float32", (7,), list(ACTION_NAMES)),
        **BOOKKEEPING,
    }
    modality = libero_modality(
        [name.removeprefix("observation.images.") for name in CAMERAS],
        {"joint": Part(JOINT[0], 0, JOINT[2])} if has_joints else None,
    )
    storage = _Storage(tuple(records), tuple(places), has_joints)
    dataset = Dataset(
        path, "hdf5", FPS, "panda", features, tuple(CAMERAS), tasks, tuple(records), storage, own_modality=modality
    )
    return dataset if before or shift else replace(dataset, notices=(UNKNOWN_ORDER,))


@dataclass(frozen=True)
class _Place:
    """Where a demonstration lies. task: its number. frames: how its frames lie. shift: of actions against rows."""

    file: Path
    name: str
    task: int
    frames: ImageOrientation
    shift: int


class _Storage:
    """See vla_harness.data.dataset.Storage."""

    def __init__(self, records: tuple[EpisodeRecord, ...], places: tuple[_Place, ...], joints: bool) -> None:
        self._records, self._places, self._joints = records, places, joints
        self._read = lru_cache(maxsize=256)(self._columns)

    def columns(self, episode: int) -> Mapping[str, np.ndarray]:
        """See Storage."""
        return self._read(episode)

    def _columns(self, episode: int) -> Mapping[str, np.ndarray]:
        place = self._places[episode]
        file, name = place.file, place.name
        length = self._records[episode].length
        stored = length + place.shift
        with opened_hdf5(file) as data:
            parts = {
                source: hdf5_rows(file, data, f"{name}/obs/{source}", stored, STATE[key])
                for key, source in FIELDS.items()
            }
            joint = (
                {JOINT[0]: hdf5_rows(file, data, f"{name}/obs/{JOINT[1]}", stored, JOINT[2])} if self._joints else {}
            )
            actions = hdf5_rows(file, data, f"{name}/actions", stored, 7)
        rows = np.arange(length)
        first = sum(record.length for record in self._records[:episode])
        return {
            "observation.state": np.concatenate(list(parts.values()), axis=1)[:length].astype(np.float32),
            **{key: values[:length].astype(np.float32) for key, values in joint.items()},
            "action": actions[place.shift :].astype(np.float32),
            "timestamp": (rows / FPS).astype(np.float32),
            "frame_index": rows,
            "episode_index": np.full(length, episode),
            "index": rows + first,
            "task_index": np.full(length, place.task),
        }

    def images(self, episode: int, camera: str, rows: Sequence[int]) -> np.ndarray:
        """See Storage."""
        place = self._places[episode]
        file, name = place.file, place.name
        wanted, order = np.unique(np.asarray(rows, np.int64), return_inverse=True)
        with opened_hdf5(file) as data:
            field = hdf5_field(file, data, f"{name}/obs/{CAMERAS[camera]}")
            require_memory(len(rows) * math.prod(field.shape[1:]), f"{file} ({name}) with {len(rows)} frames")
            try:
                raw = field[wanted]
            except (OSError, IndexError, ValueError) as error:
                raise UserError(f"{file} ({name}/obs/{CAMERAS[camera]}) cannot be read ({error}).") from None
        return orient(raw[order], place.frames, "upright")

    def raw_images(self, episode: int, camera: str, rows: Sequence[int]) -> list[np.ndarray]:
        """See Storage."""
        return list(self.images(episode, camera, rows))

    def has_colors(self, episode: int, camera: str) -> bool:
        """See Storage."""
        return True

    def check_frames(self, episode: int, camera: str) -> None:
        """See Storage. Opening has compared the shapes."""


def _number(name: str) -> tuple[int, str]:
    digits = re.search(r"_([0-9]{1,9})$", name)
    return (int(digits[1]) if digits else 0, name)


def _instruction(file: Path, data: h5py.Group) -> str:
    """Return the task in words: LIBERO's attribute, or else the file's name."""
    try:
        words = json.loads(data.attrs["problem_info"])["language_instruction"]
        return str(words if isinstance(words, str) else "".join(words)).strip('"')
    except (OSError, KeyError, TypeError, ValueError, RecursionError):
        return file.stem.removesuffix("_demo").replace("_", " ")


def _orientation(file: Path, data: h5py.Group) -> ImageOrientation:
    """Return how the frames lie by LIBERO's attribute: what robosuite's macro was when they were rendered."""
    said = data.attrs.get("macros_image_convention")
    known = IMAGE_CONVENTIONS.get(said.decode(errors="replace") if isinstance(said, bytes) else str(said))
    if known is None:
        raise UserError(
            f"{file} does not say how its frames lie (macros_image_convention is {said!r:.80}): give"
            " --image-orientation, upside_down for files as LIBERO and OpenVLA's regeneration write them."
        )
    return known
