"""Conversion between LeRobot v2.1, LeRobot v3.0 and LIBERO's HDF5 files."""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys

    from vla_harness.launch import launch

    sys.exit(launch("vla_harness.data.__main__", ["convert", *sys.argv[1:]]))

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from ..errors import UserError
from ..results.files import check_new_folder, new_folder
from .dataset import Dataset
from .features import BOOKKEEPING, Feature
from .lerobot_storage import LeRobotStorage
from .lerobot_v3 import write_v3
from .opening import open_dataset
from .writer import DatasetWriter

Version = Literal["v2.1", "v3.0", "hdf5"]


def convert_dataset(
    dataset: Dataset, out: Path, version: Version, progress: Callable[[int], object] = lambda done: None
) -> Dataset:
    """Write ``dataset`` as ``version`` into the new folder ``out``, and return it opened.

    LeRobot: episodes are numbered from 0; tasks keep their numbers, columns their values. Videos of LeRobot datasets
    are not encoded anew; frames of HDF5, and of datasets that are translated into our terms, become mp4. "hdf5":
    LIBERO's files, see ``write_demonstrations``.
    ``out`` appears once all is written. progress: is told the episodes done.
    Raises UserError where ``out`` exists, the source is damaged, or it has not what LIBERO's files need.
    """
    check_new_folder(out)
    if dataset.version == version and not dataset.translation:
        raise UserError(f"{dataset.path} is a {version} dataset already: choose another version.")
    with new_folder(out) as folder:
        if version == "hdf5":
            from .libero_hdf5_writer import write_demonstrations  # h5py is needed for these files alone

            write_demonstrations(dataset, folder, progress)
        elif version == "v2.1":
            _write_v2(dataset, folder, progress)
        elif dataset.version.startswith("v2.") and not dataset.translation:
            write_v3(dataset, folder)
        else:
            middle = folder / "v2.1"
            _write_v2(dataset, middle, progress)
            write_v3(open_dataset(middle), folder)
            shutil.rmtree(middle)
    return open_dataset(out)


def left_out(dataset: Dataset, version: Version) -> tuple[str, ...]:
    """Return a line for each reason why a conversion leaves features of ``dataset`` out."""
    lines = [f"left out: {feature}" for feature in dataset.left_out]
    if version == "hdf5":
        from .libero_hdf5_writer import left_out as without_place  # h5py is needed for these files alone

        if names := without_place(dataset):
            lines.append(f"left out, as LIBERO's files have no place for it: {', '.join(names)}")
    elif not isinstance(dataset.storage, LeRobotStorage) and (names := colorless(dataset)):
        lines.append(f"left out, as depth cannot become a video: {', '.join(names)}")
    return tuple(lines)


def colorless(dataset: Dataset) -> tuple[str, ...]:
    """Return the cameras whose frames are depth or the like."""
    return tuple(name for name in dataset.cameras if not dataset.episode(0).has_colors(name))


def _write_v2(dataset: Dataset, path: Path, progress: Callable[[int], object]) -> None:
    if dataset.fps != int(dataset.fps):
        raise UserError(f"{dataset.path} has {dataset.fps:g} frames a second, and v2.1 takes whole numbers.")
    own = {n: f for n, f in dataset.features.items() if n not in BOOKKEEPING}
    own = {n: f for n, f in own.items() if not f.is_visual or n in dataset.cameras}
    copies = isinstance(dataset.storage, LeRobotStorage)
    if not copies:
        own = {n: Feature("video", (*f.shape[:2], 3)) if f.is_visual else f for n, f in own.items()}
        own = {n: f for n, f in own.items() if n not in colorless(dataset)}
    with DatasetWriter(path, int(dataset.fps), own, dataset.robot_type, dataset.modality, dataset.tasks) as writer:
        for position in range(len(dataset.episodes)):
            episode = dataset.episode(position)
            if copies:
                writer.copy_episode(episode)
            else:
                cameras = [name for name, feature in own.items() if feature.is_visual]
                images = {name: episode.images(name, range(episode.length)) for name in cameras}
                with writer.episode(episode.instruction(0)) as target:
                    for row in range(episode.length):
                        values = {n: images[n][row] if f.is_visual else episode.column(n)[row] for n, f in own.items()}
                        target.add(values, episode.instruction(row))
            progress(position + 1)
