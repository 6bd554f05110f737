"""The same demonstrations as the public LIBERO datasets lay them out, written by our own writers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vla_harness.conventions import orient
from vla_harness.data import DatasetWriter, Feature, convert_dataset, open_dataset
from vla_harness.types import ImageOrientation

WORDS = "put the bowl on the plate"
EPISODES, ROWS, SIZE = 3, 24, 32
OURS = ("observation.images.agentview", "observation.images.wrist", "observation.state", "action")
LAYOUTS: dict[str, tuple[tuple[str, ...], ImageOrientation, tuple[float, float], int]] = {
    # columns, how frames lie, gripper open and closed, frames a second
    "own": (OURS, "upright", (-1, 1), 20),
    "openpi": (("image", "wrist_image", "state", "actions"), "mirrored", (-1, 1), 10),
    "lerobot": (
        ("observation.images.image", "observation.images.image2", "observation.state", "action"),
        *("mirrored", (-1, 1), 10),
    ),
    "openx": (
        ("observation.images.image", "observation.images.wrist_image", "observation.state", "action"),
        *("mirrored", (1, 0), 20),
    ),
}


def frames(episode: int) -> np.ndarray:
    """Return (ROWS, 2, SIZE, SIZE, 3) uint8, upright: no two rows and no two cameras alike, and no symmetry."""
    return np.random.default_rng(episode).integers(0, 256, (ROWS, 2, SIZE, SIZE, 3), np.uint8)


def numbers(episode: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (ROWS, 8) state and (ROWS, 7) actions, float32; the fingers do what the gripper is told."""
    draw = np.random.default_rng(100 + episode)
    closing = np.arange(ROWS) >= ROWS // 2
    actions = draw.uniform(-1, 1, (ROWS, 7)).astype(np.float32)
    actions[:, -1] = np.where(closing, 1, -1)
    fingers = 0.02 + np.cumsum(np.where(closing, -0.001, 0.001))
    state = np.concatenate([draw.normal(size=(ROWS, 6)), fingers[:, None], -fingers[:, None]], axis=1)
    return state.astype(np.float32), actions


def write(path: Path, layout: str, version: str = "v2.1") -> Path:
    """Write the demonstrations into the new folder ``path``; layout: a name of LAYOUTS."""
    columns, orientation, gripper, fps = LAYOUTS[layout]
    images = {name: Feature("image", (SIZE, SIZE, 3)) for name in columns[:2]}
    features = images | {columns[2]: Feature("float32", (8,)), columns[3]: Feature("float32", (7,))}
    first = path if version == "v2.1" else path.with_name(path.name + "_first")
    with DatasetWriter(first, fps, features, "panda") as writer:
        for number in range(EPISODES):
            state, actions = numbers(number)
            actions[:, -1] = np.where(actions[:, -1] > 0, gripper[1], gripper[0])
            turned = orient(frames(number), "upright", orientation)
            with writer.episode(WORDS) as episode:
                for row in range(ROWS):
                    episode.add(dict(zip(columns, (*turned[row], state[row], actions[row]), strict=True)))
    if version != "v2.1":
        convert_dataset(open_dataset(first), path, version)  # type: ignore[arg-type]
    return path
