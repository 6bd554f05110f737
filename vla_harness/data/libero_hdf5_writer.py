"""Writing LIBERO's demonstrations: one HDF5 file for each task, as the benchmark publishes them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..conventions import orient
from ..errors import UserError
from .conventions import STATE, state_parts
from .dataset import Dataset, Episode
from .features import BOOKKEEPING
from .hdf5_files import new_hdf5
from .libero_hdf5 import BEFORE, CAMERAS, FIELDS, FPS, JOINT, OBSERVED
from .modality import Part


def write_demonstrations(dataset: Dataset, folder: Path, progress: Callable[[int], object] = lambda done: None) -> None:
    """Write ``dataset`` as LIBERO's files into the empty ``folder``: one for each task, demo_0, demo_1, … in each.

    Taken are the cameras agentview and wrist, the states eef_pos, eef_axis_angle, gripper_qpos and joint, and the
    action; ``left_out`` names the rest. As in LIBERO's files the last row of a demonstration has reward and done 1.
    What only the simulator knows (its states, model, task file) is not written. progress: is told the episodes done.
    Raises UserError where the dataset does not have what LIBERO's files need.
    """
    sources = _sources(dataset)
    positions: dict[str, list[int]] = {}
    for position in range(len(dataset.episodes)):
        episode = dataset.episode(position)
        said = {episode.instruction(row) for row in range(episode.length)}
        if len(said) > 1:
            raise UserError(f"Episode {episode.index} of {dataset.path} has {len(said)} tasks, and LIBERO's have one.")
        positions.setdefault(said.pop(), []).append(position)
    size = dataset.frames * row_bytes([dataset.features[camera].shape[:2] for camera in sources[1].values()])
    free = shutil.disk_usage(folder).free
    if size > free:
        raise UserError(
            f"LIBERO's files of {dataset.path} take about {size / 1e6:.3g} MB, and {free / 1e6:.3g} MB are free at"
            f" {folder}: free some space or choose another place."
        )
    done = 0
    for name, (words, chosen) in zip(_file_names(list(positions)), positions.items(), strict=True):
        with new_hdf5(folder / name) as file:
            data = file.create_group("data")
            data.attrs["problem_info"] = json.dumps({"language_instruction": words})
            data.attrs["macros_image_convention"] = "opengl"
            data.attrs["env_args"] = json.dumps(_env_args(dataset, sources[1]))
            data.attrs[OBSERVED] = BEFORE
            data.attrs["num_demos"] = len(chosen)
            data.attrs["total"] = sum(dataset.episodes[position].length for position in chosen)
            for number, position in enumerate(chosen):
                _write_demonstration(data.create_group(f"demo_{number}"), dataset.episode(position), sources)
                done += 1
                progress(done)


def row_bytes(frames: Sequence[tuple[int, ...]]) -> int:
    """Return the bytes of a row: ``frames`` of (height, width) uncompressed, and about 28 numbers of 8 bytes."""
    return sum(3 * height * width for height, width in frames) + 8 * 28


def _env_args(dataset: Dataset, cameras: Mapping[str, str]) -> dict[str, Any]:
    """Return what robomimic's and LIBERO's readers expect to find; which task it was, no dataset says."""
    height, width, _ = dataset.features[cameras["agentview_rgb"]].shape
    return {
        "type": 1,  # robomimic's EnvType.ROBOSUITE_TYPE
        "env_name": "LIBERO",
        "env_kwargs": {
            "robots": ["Panda"],
            "control_freq": int(FPS),
            "camera_names": ["robot0_eye_in_hand", "agentview"],
            "camera_heights": height,
            "camera_widths": width,
            "camera_depths": False,
            "use_camera_obs": True,
            "has_renderer": False,
        },
    }


def left_out(dataset: Dataset) -> tuple[str, ...]:
    """Return the features of ``dataset`` that ``write_demonstrations`` leaves out, for want of a place in the files."""
    parts, cameras = _sources(dataset)
    taken = {part.original_key for part in parts.values()} | set(cameras.values()) | {"action"} | BOOKKEEPING.keys()
    return tuple(name for name in dataset.features if name not in taken)


def _sources(dataset: Dataset) -> tuple[dict[str, Part], dict[str, str]]:
    """Return LIBERO's name -> part of the dataset's columns, and LIBERO's name -> camera."""

    def refuse(what: str, where: str) -> UserError:
        return UserError(
            f"{dataset.path} has no {what}, which LIBERO's files need: name it in meta/modality.json{where}."
        )

    if dataset.fps != FPS:
        raise UserError(f"{dataset.path} has {dataset.fps:g} frames a second, and LIBERO's files have {FPS:g}.")
    if "action" not in dataset.features or dataset.features["action"].shape != (7,):
        raise UserError(f"{dataset.path} has no action of 7 numbers, an end-effector's, which LIBERO's files need.")
    known = dict(dataset.modality.state)
    whole = dataset.features.get("observation.state")
    if whole is not None and whole.shape == (8,):  # every LeRobot version of LIBERO has these 8
        known = state_parts() | known
    parts = {}
    for key, name in FIELDS.items():
        part = known.get(key)
        if part is None or part.end - part.start != STATE[key]:
            raise refuse(f"state.{key} of {STATE[key]} numbers", "")
        parts[name] = part
    joint = known.get("joint")
    if joint is not None and joint.end - joint.start == JOINT[2]:
        parts[JOINT[1]] = joint
    cameras = {}
    for feature, name in CAMERAS.items():
        key = feature.removeprefix("observation.images.")
        if dataset.modality.video.get(key) not in dataset.cameras:
            raise refuse(f"camera {key!r}", " (frames upright)")
        cameras[name] = dataset.modality.video[key]
    return parts, cameras


def _write_demonstration(
    group: h5py.Group, episode: Episode, sources: tuple[Mapping[str, Part], Mapping[str, str]]
) -> None:
    parts, cameras = sources
    observations = group.create_group("obs")
    for name, part in parts.items():
        column = episode.column(part.original_key).reshape(episode.length, -1)
        observations[name] = column[:, part.start : part.end].astype(np.float64)
    observations["ee_states"] = np.concatenate([observations["ee_pos"], observations["ee_ori"]], axis=1)
    for name, camera in cameras.items():
        observations[name] = orient(episode.images(camera, range(episode.length)), "upright", "upside_down")
    group["actions"] = episode.column("action").astype(np.float64)
    last = (np.arange(episode.length) == episode.length - 1).astype(np.uint8)
    group["rewards"], group["dones"] = last, last
    group.attrs["num_samples"] = episode.length


def _file_names(tasks: Sequence[str]) -> list[str]:
    """Return a file name for each task in words, as LIBERO forms it; a number tells those apart that would be alike."""
    names: list[str] = []
    for words in tasks:
        stem = re.sub(r"\W+", "_", words, flags=re.ASCII).strip("_")[:200] or "task"
        twins = sum(name.startswith(f"{stem}_demo") for name in names)
        names.append(f"{stem}_demo{twins + 1 if twins else ''}.hdf5")
    return names
