"""Opens datasets: a folder or file of this machine, or a dataset repository of the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import UserError
from ..hub import fetch_snapshot
from ..paths import is_name
from ..types import ImageOrientation
from .conventions import ConventionName, present_names, translate, with_state_parts
from .dataset import Dataset
from .files import read_json
from .lerobot import EpisodeFiles, read_layout
from .lerobot_storage import LeRobotStorage
from .modality import read_modality
from .statistics import read_statistics

HUB_NAME = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:/([\w-][\w./-]*))?")
"""ORG/NAME, or ORG/NAME/FOLDER for a folder or file in it."""


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """How a dataset is to be read; the docstrings of the fields are the help."""

    convention: ConventionName | None = None
    """What a public LIBERO dataset in LeRobot's format follows; its names, frames and gripper are turned into the
    harness's: openpi (physical-intelligence/libero), lerobot (lerobot/libero), openx (IPEC-COMMUNITY's). Default: they
    are left as they are."""
    image_orientation: ImageOrientation | None = None
    """How the stored frames lie, where neither the convention nor the HDF5 file says so or both are wrong."""
    shift_observations: bool = False
    """Pair each action of an HDF5 file with the row before: LIBERO's own files hold in row i what was seen after action
    i, OpenVLA's regenerated ones what was seen before it. The first action, of which nothing was seen, is left out."""


def open_dataset(
    name: str | Path,
    convention: ConventionName | None = None,
    image_orientation: ImageOrientation | None = None,
    shift_observations: bool = False,
) -> Dataset:
    """Open a LeRobot dataset (v2.0, v2.1, v3.0), or LIBERO's demonstrations: an .hdf5 file or a folder of them.

    name: a folder or file, else a dataset of the hub, "ORG/NAME" or "ORG/NAME/FOLDER", which is fetched when new.
    convention: what a LeRobot dataset follows that has not the harness's names; see ``conventions``.
    image_orientation: how the stored frames lie; frames are read upright.
    shift_observations: pair each action of HDF5 files with the row before.
    Reads the metadata only. Raises UserError, in one sentence that names file and field, where they are damaged.
    """
    root, revision = _find(str(name))
    source = None if revision is None else str(name)
    if root.is_file() or (root.is_dir() and not (root / "meta").exists() and any(root.glob("*.hdf5"))):
        from .libero_hdf5 import open_demonstrations  # h5py is needed for these files alone

        if convention is not None:
            raise UserError(f"{name} holds LIBERO's HDF5 files, which have one convention: leave --convention out.")
        return replace(
            open_demonstrations(root, image_orientation, shift_observations), source=source, revision=revision
        )
    if shift_observations:
        raise UserError(f"{name} is no HDF5 file, whose rows alone may be shifted: leave --shift-observations out.")
    if not (root / "meta" / "info.json").exists():
        raise UserError(
            f"{name} is no dataset: name a folder with meta/info.json (LeRobot), .hdf5 demonstrations of LIBERO, or one"
            " of these on the hub, such as lerobot/libero or ORG/NAME/FOLDER."
        )
    dataset = replace(_open_lerobot(root), source=source, revision=revision)
    if convention is not None or image_orientation is not None:
        dataset = translate(dataset, convention, image_orientation)
    return with_state_parts(dataset)


def _open_lerobot(root: Path) -> Dataset:
    layout = read_layout(root)
    layout = replace(layout, features=present_names(layout.features))
    read_statistics(root, layout.features)  # refuses what no command may use
    modality = root / "meta" / "modality.json"
    own = read_modality(read_json(modality), modality, layout.features) if modality.exists() else None
    visual = [name for name, feature in layout.features.items() if feature.is_visual]
    # GR00T's own demo lists a camera whose videos were not published.
    cameras = tuple(name for name in visual if layout.features[name].dtype == "image" or _has_video(layout.files, name))
    return Dataset(
        path=root,
        version=layout.info["codebase_version"],
        fps=layout.fps,
        robot_type=str(layout.info.get("robot_type") or ""),
        features=layout.features,
        cameras=cameras,
        tasks=layout.tasks,
        episodes=layout.episodes,
        storage=LeRobotStorage(layout),
        own_modality=own,
        info=layout.info,
        left_out=layout.left_out,
    )


def _has_video(files: Sequence[EpisodeFiles], name: str) -> bool:
    return any(one.videos[name].path.exists() for one in files)


def _find(name: str) -> tuple[Path, str | None]:
    """Return where the dataset lies, and the commit of the hub that it was fetched at."""
    path = Path(name).expanduser()
    parts = HUB_NAME.fullmatch(name)
    if not is_name(name):
        raise UserError(f"{name[:60]}… is no name of a file or folder: name a dataset.")
    if path.exists() or parts is None or ".." in name:
        return path, None
    repository, inside = parts[1], (parts[2] or "").rstrip("/")
    folder = f"{inside}/" if inside else ""
    if inside.endswith(".hdf5"):
        root = fetch_snapshot(repository, "dataset", [inside])
        return root / inside, root.name
    # What the repository holds decides what is fetched: its other folders may be large.
    root = fetch_snapshot(repository, "dataset", [f"{folder}meta/*"])
    if (root / folder / "meta").is_dir():
        wanted, without = [f"{folder}{part}/*" for part in ("meta", "data", "videos")], []
    else:
        wanted, without = [f"{folder}*.hdf5"], [f"{folder}*/*"]
    root = fetch_snapshot(repository, "dataset", wanted, root.name, without)
    return root / folder, root.name
