"""Faults in a dataset's values that would teach or test a policy something else than was recorded.

``Episode`` asks for those of its columns whenever they are read, ``require_valid`` for all that is found without
decoding frames, and ``check`` for everything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from ..errors import UserError

if TYPE_CHECKING:
    from .dataset import Dataset, Episode


def require_valid(dataset: Dataset, needs_instructions: bool = False, episodes: int | None = None) -> None:
    """Read every column and index every video of ``dataset``; decode nothing.

    Args:
        dataset: What is to be trained on, converted or summed up.
        needs_instructions: Whether a dataset without instructions is refused too.
        episodes: How many episodes to look at, from the first; None for all.

    Raises:
        UserError: The first fault, by dataset, episode, row and column.
    """
    if needs_instructions and not dataset.has_instructions:
        raise UserError(f"{dataset.path} has no instructions, which are needed here: name a dataset that has them.")
    positions = range(len(dataset.episodes))[:episodes]
    for position in tqdm(positions, unit="episode", desc="checking", disable=None, leave=False):
        _ = dataset.episode(position).columns  # reading checks them
        for camera in dataset.cameras:
            dataset.storage.check_frames(position, camera)


def column_faults(episode: Episode, columns: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Yield a sentence for each column with values that cannot be meant."""
    label = f"Episode {episode.index} of {episode.dataset.path}"
    for name, values in columns.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            row, *entry = np.argwhere(~np.isfinite(values))[0].tolist()
            place = f"row {row}" + (f", entry {', '.join(map(str, entry))}" if entry else "")
            yield (
                f"{label} has values of {name} that are no finite numbers ({values[row, *entry]} in {place}): mend or"
                " drop the episode."
            )
    yield from _timestamp_faults(label, columns)
    yield from _task_faults(label, episode, columns)


def _timestamp_faults(label: str, columns: Mapping[str, np.ndarray]) -> Iterator[str]:
    stamps = columns.get("timestamp", np.zeros(0))
    falling = np.flatnonzero(np.diff(stamps) <= 0)  # never true beside NaN, which is a fault of its own
    if len(falling):
        row = int(falling[0])
        yield (
            f"{label} has a timestamp of {stamps[row + 1]:g} s in row {row + 1} after {stamps[row]:g} s in row {row}:"
            " timestamps must rise, mend or drop the episode."
        )


def _task_faults(label: str, episode: Episode, columns: Mapping[str, np.ndarray]) -> Iterator[str]:
    dataset = episode.dataset
    if not dataset.has_instructions:
        return
    numbers = columns.get("task_index")
    if numbers is None:
        if len(episode.tasks) != 1 or not episode.tasks[0].strip():
            yield (
                f"{label} has no task_index in its rows and {len(episode.tasks)} tasks in the metadata, so that it is"
                " not known which one is done: add the column."
            )
        return
    for number in np.unique(numbers).tolist():
        row = int(np.flatnonzero(numbers == number)[0])
        if number not in dataset.tasks:
            known = ", ".join(map(str, sorted(dataset.tasks)[:5])) + ("…" if len(dataset.tasks) > 5 else "")
            yield (
                f"{label} has a task_index that is no task of the dataset ({number} in row {row}; it has {known}): mend"
                " the column or meta/tasks."
            )
        elif not dataset.tasks[number].strip():
            yield f"{label} has in row {row} the task_index {number}, whose words are empty: mend meta/tasks."
