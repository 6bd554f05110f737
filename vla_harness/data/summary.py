"""A dataset in words, and an episode in a picture."""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys

    from vla_harness.launch import launch

    sys.exit(launch("vla_harness.data.__main__", ["summary", *sys.argv[1:]]))

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..printing import literal, printable
from ..results.files import explain_write_errors, new_file
from ..results.wording import duration, plural
from .conventions import in_our_terms
from .dataset import Dataset, Episode
from .modality import Part
from .validation import require_valid

STRIP_FRAMES = 6
"""Frames shown of each camera in an episode's picture."""


def summarize(dataset: Dataset) -> str:
    """Return what is in the dataset, in lines. Raises UserError where its values cannot be meant."""
    require_valid(dataset)
    return "\n".join(map(printable, _lines(dataset)))


def _lines(dataset: Dataset) -> Iterator[str]:
    lengths = sorted(record.length for record in dataset.episodes)
    robot = dataset.robot_type or "robot not stated"
    yield f"{dataset.name}: {dataset.kind}, {robot}, {dataset.fps:g} frames a second"
    if dataset.source:
        yield f"hub        {dataset.source} at {dataset.revision}"
    if dataset.translation:
        yield f"turned     {dataset.translation}"
    yield (
        f"episodes   {len(lengths):,} of {lengths[0]:,} to {lengths[-1]:,} frames (median"
        f" {int(np.median(lengths)):,}); {dataset.frames:,} frames, {duration(dataset.frames / dataset.fps)}"
    )
    if dataset.has_instructions:
        used = Counter(dataset.episode(i).instruction(0) for i in range(len(lengths)))
        yield f"tasks      {plural(len(used), 'task')}"
        yield from (f"           {plural(count, 'episode')}: {words}" for words, count in used.most_common())
    else:
        yield "tasks      the dataset has no instructions"
    for camera in dataset.cameras:
        height, width, _ = dataset.features[camera].shape
        codec = dataset.features[camera].info.get("video.codec", dataset.features[camera].dtype)
        yield f"camera     {camera} {width}x{height}, {codec}"
    for name in (n for n, f in dataset.features.items() if f.is_visual and n not in dataset.cameras):
        yield f"camera     {name} is listed, but has no videos"
    source = "meta/modality.json" if dataset.own_modality else "by default"
    if in_our_terms(dataset):
        source = "the harness's terms"
    groups: tuple[tuple[str, dict[str, Part]], ...] = (
        ("state", dict(dataset.modality.state)),
        ("action", dict(dataset.modality.action)),
    )
    for group, parts in groups:
        told = ", ".join(f"{key} {part.end - part.start}" for key, part in parts.items())
        yield f"{group:<10} {told or 'none'} ({source})"
    yield from (f"left out   {feature}" for feature in dataset.left_out)
    yield from (f"note       {notice}" for notice in dataset.notices)
    yield ""
    yield from _table(dataset)


def _table(dataset: Dataset) -> Iterator[str]:
    rows: list[tuple[str, ...]] = [("feature", "dtype", "shape", "min", "mean", "max")]
    for name, feature in dataset.features.items():
        if not feature.is_visual and name in dataset.statistics:
            found = dataset.statistics[name]
            numbers = (found["min"].min(), found["mean"].mean(), found["max"].max())
            rows.append((name, feature.dtype, "x".join(map(str, feature.shape)), *(f"{n:.4g}" for n in numbers)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        left = "  ".join(cell.ljust(width) for cell, width in zip(row[:3], widths[:3], strict=True))
        yield left + "  " + "  ".join(cell.rjust(width) for cell, width in zip(row[3:], widths[3:], strict=True))


def plot_episode(episode: Episode, path: Path) -> None:
    """Draw the episode to ``path`` (.png, .svg or .pdf): frames of each camera, and each part of state and action."""
    from matplotlib.figure import Figure

    dataset = episode.dataset
    panels = _panels(episode)
    if not panels and not dataset.cameras:
        raise UserError(f"Episode {episode.index} of {dataset.path} has no images, states or actions to draw.")
    heights = [1.1] * len(dataset.cameras) + [1.0] * len(panels)
    figure = Figure(figsize=(11, 1.9 * len(heights) + 0.8), layout="constrained")
    figure.suptitle(f"{literal(dataset.name)}, episode {episode.index}: {literal(episode.instruction(0))}", fontsize=11)
    grid = figure.add_gridspec(len(heights), STRIP_FRAMES, height_ratios=heights)
    shown = np.linspace(0, episode.length - 1, STRIP_FRAMES).round().astype(int).tolist()
    for line, camera in enumerate(dataset.cameras):
        for column, (row, image) in enumerate(zip(shown, episode.raw_images(camera, shown), strict=True)):
            axes = figure.add_subplot(grid[line, column])
            axes.imshow(image.squeeze(), cmap="gray")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_xlabel(f"{row / dataset.fps:.1f} s", fontsize=7)
            if column == 0:
                axes.set_ylabel(literal(camera.removeprefix("observation.images.")), fontsize=8)
    for line, (title, names, values) in enumerate(panels, len(dataset.cameras)):
        axes = figure.add_subplot(grid[line, :])
        lines = axes.plot(np.arange(episode.length) / dataset.fps, values, linewidth=1)
        axes.set_title(literal(title), fontsize=8, loc="left", pad=2)
        axes.tick_params(labelsize=7)
        axes.margins(x=0)
        axes.grid(alpha=0.3)
        if len(names) <= 8:
            axes.legend(
                lines, [literal(name) for name in names], fontsize=6, loc="upper left", bbox_to_anchor=(1.0, 1.0)
            )
    figure.axes[-1].set_xlabel("seconds", fontsize=8)
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as unfinished:
        figure.savefig(unfinished, format=path.suffix[1:], dpi=110)


def _panels(episode: Episode) -> list[tuple[str, Sequence[str], np.ndarray]]:
    """Return (title, names, (length, D) values) of each part of state and action."""
    modality = episode.dataset.modality
    panels: list[tuple[str, Sequence[str], np.ndarray]] = []
    for group, parts in (("state", modality.state), ("action", modality.action)):
        for key, part in parts.items():
            column = episode.column(part.original_key).reshape(episode.length, -1)
            names = episode.dataset.features[part.original_key].entry_names(part.original_key)
            panels.append((f"{group}.{key}", names[part.start : part.end], column[:, part.start : part.end]))
    return panels
