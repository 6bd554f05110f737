"""A dataset in the terms of a GR00T data configuration: as it is stored, or turned from the harness's terms into them.

What a policy is shown while it acts is turned by the configuration's table ``robot``: frames into its orientation, the
gripper out of its values. The same must hold for what it learns from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..conventions import Adapter, orient
from ..data import Dataset, Modality, Part
from ..data.conventions import (
    GRIPPER,
    TranslatedStorage,
    check_gripper,
    check_gripper_part,
    fitting,
    in_our_terms,
)
from ..errors import UserError
from ..policies.groot.embodiments import DataConfig, Robot, key_widths
from ..types import DELTA_EEF_POSE, EnvironmentSpec, PolicySpec


def dataset_for(dataset: Dataset, config: DataConfig) -> Dataset:
    """Return ``dataset`` with the parts, frames and gripper that ``config`` names.

    Where an environment serves the configuration (its table robot) and the dataset is in the harness's terms, as
    recordings, HDF5 files and datasets read by a convention are, frames and gripper are turned into the
    configuration's. Any other dataset is taken as it is stored; with an environment its gripper is checked. Raises
    UserError for parts that the dataset lacks, a gripper that is not as stated, and a meta/modality.json that would
    have the harness's terms taken for the configuration's.
    """
    named = dataset.modality.keys
    groups = [group["modality_keys"] for name, group in config.modality_config.items() if name != "language"]
    missing = [key for keys in groups for key in keys if key not in named]
    if config.robot is not None and in_our_terms(dataset):
        if not missing:
            action, orientation = config.robot.action, config.robot.image_orientation
            raise UserError(
                f"{dataset.path / 'meta/modality.json'} names the parts of {config.name} as they are stored, frames"
                f" upright and the gripper -1 open and 1 closed, and the data configuration states {orientation}"
                f" frames, {action.gripper_open:g} and {action.gripper_closed:g}: take those parts out,"
                " then all is turned."
            )
        check_gripper(dataset)
        return _turned(dataset, config, config.robot)
    if missing:
        fits = fitting(dataset) if config.robot is not None else []
        advice = (
            f"give --convention {fits[0]}, whose columns it has"
            if fits
            else "name its parts in meta/modality.json, or choose a data configuration that fits it"
        )
        raise UserError(
            f"{dataset.path} names no {', '.join(missing)}, which the data configuration {config.name} reads (it names:"
            f" {', '.join(named)}): {advice}."
        )
    if config.robot is None:
        return dataset
    _check_as_stored(dataset, config, config.robot)
    orientation = config.robot.image_orientation
    if not dataset.translation:  # else --image-orientation says how the frames lie, and they are read upright
        return dataset
    turned = TranslatedStorage(dataset.storage, {}, lambda images: orient(images, "upright", orientation), None)
    return replace(dataset, storage=turned, translation=f"{dataset.translation}, turned {orientation}")


def reading_note(dataset: Dataset, config: DataConfig) -> str:
    """Return how the frames and the gripper of what ``dataset_for`` returned are read, in words; "" without a robot."""
    if config.robot is None or dataset.translation:
        return dataset.translation
    action = config.robot.action
    return (
        f"as stored: frames {config.robot.image_orientation}, gripper {action.gripper_open:g} open and"
        f" {action.gripper_closed:g} closed ({config.name}); how frames lie cannot be checked"
    )


def _turned(dataset: Dataset, config: DataConfig, robot: Robot) -> Dataset:
    cameras = {key: f"observation.images.{camera}" for key, camera in zip(config.video, robot.cameras, strict=True)}
    for camera in cameras.values():
        if camera not in dataset.cameras:
            raise UserError(f"{dataset.path} has no camera {camera}, which the data configuration {config.name} reads.")
    known = dataset.modality.state
    for key in robot.state_keys:
        if key not in known:
            raise UserError(
                f"{dataset.path} has no state.{key}, which the data configuration {config.name} reads (it has:"
                f" {', '.join(known)})."
            )
    arm = DELTA_EEF_POSE.arm_dim
    pose = [Part("action", 0, 3), Part("action", 3, arm - 1), GRIPPER]
    modality = Modality(
        _cut(config, "state", config.state, [known[key] for key in robot.state_keys]),
        _cut(config, "action", config.action, pose),
        cameras,
        {config.language.removeprefix("annotation."): "task_index"},
    )
    # The dataset plays the policy here, and the configuration the environment that takes its actions.
    turn = Adapter(
        EnvironmentSpec((), {}, robot.action, dataset.fps),
        PolicySpec(name=dataset.name, action=DELTA_EEF_POSE),
        f"data configuration {config.name}",
    )
    storage = TranslatedStorage(
        dataset.storage, {}, lambda images: orient(images, "upright", robot.image_orientation), turn.actions
    )
    ends = robot.action.gripper_open, robot.action.gripper_closed
    told = f"frames turned {robot.image_orientation}, gripper {ends[0]:g} open and {ends[1]:g} closed ({config.name})"
    before = f"{dataset.translation}; " if dataset.translation else ""
    return replace(dataset, storage=storage, own_modality=modality, translation=before + told)


def _cut(config: DataConfig, group: str, keys: Sequence[str], parts: Sequence[Part]) -> Mapping[str, Part]:
    """Return ``keys``, in order, as parts of ``parts``; see ``key_widths``."""
    widths = key_widths(config.name, group, keys, [part.end - part.start for part in parts])
    entries = [replace(part, start=i, end=i + 1) for part in parts for i in range(part.start, part.end)]
    cut, first = {}, 0
    for key, width in widths.items():
        own = entries[first : first + width]
        if any(one.original_key != own[0].original_key or one.start != own[0].start + i for i, one in enumerate(own)):
            raise UserError(
                f"The {group} key {key!r} of the data configuration {config.name} has numbers of several columns: name"
                " a key for each part."
            )
        cut[key] = replace(own[0], end=own[-1].end)
        first += width
    return cut


def _check_as_stored(dataset: Dataset, config: DataConfig, robot: Robot) -> None:
    action = dataset.modality.action[config.action[-1]]
    gripper = replace(action, start=action.end - 1)
    fingers = None
    if robot.state_keys[-1:] == ("gripper_qpos",):
        state = dataset.modality.state[config.state[-1]]
        fingers = replace(state, start=state.end - 2) if state.end - state.start >= 2 else None
    check_gripper_part(
        dataset, gripper, fingers, robot.action, f"the data configuration {config.name} reads it, as it is stored"
    )
