"""LIBERO's demonstrations: one HDF5 file for each task, as the benchmark and its regenerations publish them.

Source: Lifelong-Robot-Learning/LIBERO ``scripts/create_dataset.py`` and openvla
``regenerate_libero_dataset.py``: data/demo_i/{actions, obs/{agentview_rgb, eye_in_hand_rgb, ee_pos, ee_ori,
gripper_states, joint_states}, rewards, dones}.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import h5py
import numpy as np

from ..conventions import orient
from ..errors import UserError
from .dataset import Dataset
from .features import BOOKKEEPING, Feature
from .lerobot import EpisodeRecord
from .modality import Modality, Part

FPS = 20.0
CAMERAS = {"observation.images.agentview": "agentview_rgb", "observation.images.wrist": "eye_in_hand_rgb"}
STATE = {"eef_pos": ("ee_pos", 3), "eef_axis_angle": ("ee_ori", 3), "gripper_qpos": ("gripper_states", 2)}
"""Parts of observation.state: our name -> (LIBERO's, length)."""


def open_demonstrations(path: Path) -> Dataset:
    """Open an .hdf5 file of LIBERO's demonstrations, or every one in a folder, as a dataset with an episode for each.

    Its frames, which LIBERO stores upside down, are turned upright. Raises UserError that names file and field.
    """
    files = sorted(path.glob("*.hdf5")) if path.is_dir() else [path]
    records: list[EpisodeRecord] = []
    places: list[tuple[Path, str, int]] = []
    tasks: dict[int, str] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        with _opened(file) as data:
            words = _instruction(file, data)
            task = next((number for number, known in tasks.items() if known == words), len(tasks))
            tasks[task] = words
            for name in sorted(data, key=_number):
                actions = _field(file, data, f"{name}/actions")
                if not len(actions):
                    raise UserError(f"{file} ({name}) has no actions: drop that demonstration.")
                records.append(EpisodeRecord(len(records), len(actions), (words,)))
                places.append((file, name, task))
                for feature, source in CAMERAS.items():
                    shapes.setdefault(feature, _field(file, data, f"{name}/obs/{source}").shape[1:])
    if not records:
        raise UserError(f"{path} holds no demonstrations: name an .hdf5 file of LIBERO's, or a folder of them.")
    start, parts = 0, {}
    for key, (_, length) in STATE.items():
        parts[key] = Part("observation.state", start, start + length)
        start += length
    features = {
        **{name: Feature("image", shape) for name, shape in shapes.items()},
        "observation.state": Feature(
            "float32", (start,), [f"{k}_{i}" for k, (_, n) in STATE.items() for i in range(n)]
        ),
        "observation.state.joint": Feature("float32", (7,)),
        "action": Feature("float32", (7,), ["x", "y", "z", "roll", "pitch", "yaw", "gripper"]),
        **BOOKKEEPING,
    }
    modality = Modality(
        {**parts, "joint": Part("observation.state.joint", 0, 7)},
        {"action": Part("action", 0, 7, absolute=False)},
        {name.removeprefix("observation.images."): name for name in CAMERAS},
        {"human.task_description": "task_index"},
    )
    storage = _Storage(tuple(records), tuple(places))
    return Dataset(
        path, "hdf5", FPS, "panda", features, tuple(CAMERAS), tasks, tuple(records), storage, own_modality=modality
    )


class _Storage:
    """See vla_harness.data.dataset.Storage."""

    def __init__(self, records: tuple[EpisodeRecord, ...], places: tuple[tuple[Path, str, int], ...]) -> None:
        self._records, self._places = records, places
        self._read = lru_cache(maxsize=256)(self._columns)

    def columns(self, episode: int) -> Mapping[str, np.ndarray]:
        """See Storage."""
        return self._read(episode)

    def _columns(self, episode: int) -> Mapping[str, np.ndarray]:
        file, name, task = self._places[episode]
        length = self._records[episode].length
        with _opened(file) as data:
            parts = {source: _rows(file, data, f"{name}/obs/{source}", length, n) for source, n in STATE.values()}
            joint = _rows(file, data, f"{name}/obs/joint_states", length, 7)
            actions = _rows(file, data, f"{name}/actions", length, 7)
        rows = np.arange(length)
        first = sum(record.length for record in self._records[:episode])
        return {
            "observation.state": np.concatenate(list(parts.values()), axis=1).astype(np.float32),
            "observation.state.joint": joint.astype(np.float32),
            "action": actions.astype(np.float32),
            "timestamp": (rows / FPS).astype(np.float32),
            "frame_index": rows,
            "episode_index": np.full(length, episode),
            "index": rows + first,
            "task_index": np.full(length, task),
        }

    def images(self, episode: int, camera: str, rows: Sequence[int]) -> np.ndarray:
        """See Storage."""
        file, name, _ = self._places[episode]
        wanted, order = np.unique(np.asarray(rows, np.int64), return_inverse=True)
        with _opened(file) as data:
            try:
                raw = _field(file, data, f"{name}/obs/{CAMERAS[camera]}")[wanted]
            except (OSError, IndexError, ValueError) as error:
                raise UserError(f"{file} ({name}/obs/{CAMERAS[camera]}) cannot be read ({error}).") from None
        return orient(raw[order], "upside_down", "upright")


@contextmanager
def _opened(file: Path) -> Iterator[h5py.Group]:
    try:
        opened = h5py.File(file, "r")
    except FileNotFoundError:
        raise UserError(f"There is no {file}: name an .hdf5 file of LIBERO's demonstrations.") from None
    except OSError as error:
        reason = str(error).split("(", 1)[-1].rstrip(")")
        raise UserError(f"{file} is no whole HDF5 file ({reason}): copy the file again.") from None
    with opened:
        if not isinstance(opened.get("data"), h5py.Group):
            raise UserError(f'{file} has no group "data": name an .hdf5 file of LIBERO\'s demonstrations.')
        yield opened["data"]


def _field(file: Path, data: h5py.Group, key: str) -> h5py.Dataset:
    if not isinstance(data.get(key), h5py.Dataset):
        raise UserError(f"{file} has no field data/{key}: name an .hdf5 file of LIBERO's demonstrations.")
    return data[key]


def _rows(file: Path, data: h5py.Group, key: str, length: int, size: int) -> np.ndarray:
    field = _field(file, data, key)
    if field.shape != (length, size):
        raise UserError(f"{file} has {field.shape} in data/{key} instead of {(length, size)}: copy the file again.")
    try:
        return np.asarray(field[()], np.float64)
    except (OSError, ValueError) as error:
        raise UserError(f"{file} (data/{key}) cannot be read ({error}): copy the file again.") from None


def _number(name: str) -> tuple[int, str]:
    digits = name.rpartition("_")[2]
    return (int(digits) if digits.isdigit() else 0, name)


def _instruction(file: Path, data: h5py.Group) -> str:
    """Return the task in words: LIBERO's attribute, or else the file's name."""
    try:
        words = json.loads(data.attrs["problem_info"])["language_instruction"]
        return str(words if isinstance(words, str) else "".join(words)).strip('"')
    except (KeyError, TypeError, ValueError):
        return file.stem.removesuffix("_demo").replace("_", " ")
