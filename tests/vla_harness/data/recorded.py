"""A small dataset as the writer makes it, whose every value is a function of its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vla_harness.data import DatasetWriter, Feature, Modality, Part

FIXTURES = Path(__file__).parents[2] / "data" / "lerobot"
LENGTHS = (12, 15, 9)
VIDEO, IMAGE = "observation.images.front", "observation.images.wrist"
FEATURES = {
    VIDEO: Feature("video", (48, 64, 3)),
    IMAGE: Feature("image", (16, 24, 3)),
    "observation.state": Feature("float32", (4,), ["a", "b", "c", "d"]),
    "grid": Feature("float64", (2, 3)),
    "action": Feature("float32", (3,)),
    "next.done": Feature("bool", (1,)),
    "note": Feature("string", (1,)),
}
MODALITY = Modality(
    state={"arm": Part("observation.state", 0, 3), "hand": Part("observation.state", 3, 4)},
    action={"arm": Part("action", 0, 2, absolute=False), "hand": Part("action", 2, 3)},
    video={"front": VIDEO, "wrist": IMAGE},
    annotation={"human.task_description": "task_index"},
)


def frame(episode: int, row: int) -> dict[str, object]:
    """The values of a row; the video's bright bar stands at column 4 row."""
    video = np.full((48, 64, 3), (20, 40 * episode, 60), np.uint8)
    video[:, 4 * row : 4 * row + 4] = (250, 200, 90)
    image = np.random.default_rng([episode, row]).integers(0, 256, (16, 24, 3), np.uint8)
    return {
        VIDEO: video,
        IMAGE: image,
        "observation.state": np.array([episode, row, episode * row, -row], np.float32),
        "grid": np.arange(6.0).reshape(2, 3) + row / 7,
        "action": np.array([row / 10, episode, 1 - row], np.float32),
        "next.done": row == LENGTHS[episode] - 1,
        "note": f"row {row}",
    }


def write(writer: DatasetWriter, episodes: tuple[int, ...] = (0, 1, 2)) -> None:
    """Record the episodes; those with an even number do one task, the others another."""
    for episode in episodes:
        with writer.episode(("lift the cup", "open the drawer")[episode % 2]) as target:
            for row in range(LENGTHS[episode]):
                target.add(frame(episode, row))


def record(path: Path) -> Path:
    """Write the whole dataset into ``path``."""
    with DatasetWriter(path, 10, FEATURES, "toy", MODALITY) as writer:
        write(writer)
    return path


def bar_row(image: np.ndarray) -> int:
    """The row whose bright bar the video frame shows."""
    return int(image.astype(int).sum(axis=(0, 2)).reshape(-1, 4).sum(axis=1).argmax())
