"""The samples that the policy from scratch learns from: rows of datasets, read into memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from ..data import Dataset, Episode
from ..data.conventions import check_gripper, fitting
from ..data.demonstrations import FRAME_IS_NEW, PRIVILEGED
from ..data.validation import require_valid
from ..errors import UserError

if TYPE_CHECKING:
    from .tformer import TformerOptions


@dataclass(frozen=True)
class Samples:
    """All rows that are learned from, in memory.

    frames: (N, K, H, W, 3) uint8. state: (N, D); aims: (N, 6) or (N, 0); actions: (N, T, 7); mask: (N, T), zero after
    an episode's end; all float32. instruction: (N,) numbers into ``instructions``. episode: (N,) of its episode.
    """

    frames: np.ndarray
    state: np.ndarray
    aims: np.ndarray
    actions: np.ndarray
    mask: np.ndarray
    instruction: np.ndarray
    episode: np.ndarray
    instructions: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.state)


def read_samples(datasets: Sequence[Dataset], options: TformerOptions) -> Samples:
    """Read every ``options.row_every``-th row whose frames were drawn, of every episode.

    Raises UserError for a dataset without the cameras or columns, and for a gripper that contradicts its fingers.
    """
    cameras = [_camera_features(dataset, options.cameras) for dataset in datasets]
    for dataset in datasets:
        require_valid(dataset, needs_instructions=options.language)
        check_gripper(dataset)
    with_aims = all(PRIVILEGED in dataset.features for dataset in datasets)
    rows: dict[str, list[np.ndarray]] = {name: [] for name in ("frames", "state", "aims", "actions", "mask")}
    numbers: list[int] = []
    owners: list[int] = []
    count = 0
    instructions: dict[str, int] = {}
    total = sum(len(dataset.episodes) for dataset in datasets)
    with tqdm(total=total, unit="episode", desc="reading", disable=None) as bar:
        for dataset, features in zip(datasets, cameras, strict=True):
            for position in range(len(dataset.episodes)):
                episode = dataset.episode(position)
                chosen = _chosen_rows(episode, options.row_every)
                actions, mask = _chunks(episode, chosen, options.horizon)
                rows["frames"].append(
                    np.stack([_resized(episode.images(f, chosen), options.image_size) for f in features], axis=1)
                )
                rows["state"].append(episode.column("observation.state")[chosen].astype(np.float32))
                aims = episode.column(PRIVILEGED)[chosen] if with_aims else np.zeros((len(chosen), 0))
                rows["aims"].append(aims.astype(np.float32))
                rows["actions"].append(actions)
                rows["mask"].append(mask)
                numbers += [instructions.setdefault(episode.instruction(r), len(instructions)) for r in chosen]
                owners += [count] * len(chosen)
                count += 1
                bar.update()
    joined = {name: np.concatenate(parts) for name, parts in rows.items()}
    return Samples(**joined, instruction=np.array(numbers), episode=np.array(owners), instructions=tuple(instructions))


def _camera_features(dataset: Dataset, cameras: Sequence[str]) -> list[str]:
    found = []
    for camera in cameras:
        matching = [name for name in dataset.cameras if name.rpartition(".")[2] == camera]
        if not matching:
            known = ", ".join(dataset.cameras) or "none"
            fits = "".join(f" give --convention {name}, or" for name in fitting(dataset))
            raise UserError(
                f"{dataset.path} has no camera {camera!r} (it has: {known}):{fits} name others with --cameras."
            )
        found.append(matching[0])
    return found


def _chosen_rows(episode: Episode, every: int) -> list[int]:
    columns = episode.columns
    drawn = np.flatnonzero(columns[FRAME_IS_NEW]) if FRAME_IS_NEW in columns else np.arange(episode.length)
    return drawn[::every].tolist()


def _chunks(episode: Episode, rows: Sequence[int], horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the actions from each row on, (n, T, A), and which of them exist, (n, T); both float32."""
    actions = episode.column("action").astype(np.float32)
    places = np.asarray(rows)[:, None] + np.arange(horizon)
    return actions[places.clip(max=len(actions) - 1)], (places < len(actions)).astype(np.float32)


def _resized(images: np.ndarray, size: int) -> np.ndarray:
    """Return (n, size, size, 3) uint8 of (n, H, W, 3)."""
    if images.shape[1:3] == (size, size):
        return images
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    small = nn.functional.interpolate(pixels, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return small.round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
