"""Draws a contact sheet: each of LIBERO's forty tasks with the benchmark's assets and with the generated stand-ins.

python eval/bench/standin_sheet.py --assets PATH --out docs/standins.jpg
"""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys
    from pathlib import Path

    if not __package__:  # a file of a checkout, which need not be installed
        sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from vla_harness.launch import launch

    sys.exit(launch("vla_harness.eval.bench.standin_sheet"))

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from PIL import Image, ImageDraw

from tformer.values import PositiveInt
from vla_harness.command import parse_options, run_command
from vla_harness.envs.libero.benchmark import suite_tasks

_FRAME, _GAP, _LINE = 256, 3, 15
"""Pixels of a frame as it is drawn, between frames, and of a line of text."""

_LEGEND = "Each task from the agentview and the wrist camera: the benchmark's assets left, generated stand-ins right."


@dataclass(frozen=True)
class StandinSheet:
    """One picture of forty tasks, from both cameras, real assets left and stand-ins right."""

    out: Path = Path("standins.jpg")
    """Picture to write, .jpg or .png."""
    assets: str = "auto"
    """The benchmark's own assets: auto, hub or a folder."""
    size: PositiveInt = 128
    """Height and width, in pixels, to which frames of 256 x 256 are reduced."""
    columns: PositiveInt = 4
    """Tasks side by side."""


def draw(config: StandinSheet) -> int:
    """Draw and write the sheet."""
    cells = [cell(config, suite, task) for suite in ("spatial", "object", "goal", "10") for task in range(10)]
    width, height = cells[0].width + 3 * _GAP, cells[0].height + _GAP
    rows = -(-len(cells) // config.columns)
    sheet = Image.new("RGB", (config.columns * width, _LINE + rows * height), "white")
    ImageDraw.Draw(sheet).text((2, 2), _LEGEND, "black")
    for number, picture in enumerate(cells):
        row, column = divmod(number, config.columns)
        sheet.paste(picture, (column * width, _LINE + row * height))
    config.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(config.out, quality=80)
    print(f"{config.out}: {sheet.width} x {sheet.height}, {config.out.stat().st_size / 1e3:.0f} kB")
    return 0


def cell(config: StandinSheet, suite: str, task: int) -> Image.Image:
    """Return one task's four frames in a row, with its name above: agentview and wrist, each real and stand-in."""
    real, standin = (list(frames(suite, task, assets)) for assets in (config.assets, "primitive"))
    step = config.size + _GAP
    picture = Image.new("RGB", (4 * step - _GAP, config.size + _LINE), "white")
    for number, frame in enumerate([frame for pair in zip(real, standin, strict=True) for frame in pair]):
        reduced = Image.fromarray(frame).resize((config.size, config.size), Image.Resampling.LANCZOS)
        picture.paste(reduced, (number * step, _LINE))
    title = f"{suite} {task}: {suite_tasks(suite)[task].instruction}"
    ImageDraw.Draw(picture).text((2, 2), title, "black")
    return picture


def frames(suite: str, task: int, assets: str) -> Iterator[np.ndarray]:
    """Return the frames of both cameras, after the objects have come to rest."""
    environment: Any = gymnasium.make(
        f"vla_harness.envs:libero/{suite}-v0", task=task, observations="on_request", assets=assets
    ).unwrapped
    environment.reset(seed=0, options={"initial_state": 0})
    for _ in range(10):
        environment.step(np.array([0, 0, 0, 0, 0, 0, -1], np.float32))
    for camera in ("agentview", "wrist"):
        yield environment.render_camera(camera, _FRAME, _FRAME)
    environment.close()


def main(arguments: list[str] | None = None) -> int:
    """Run the command; ``arguments`` without the program's name. Returns the exit code."""
    return run_command(lambda: draw(parse_options(StandinSheet, arguments, "standin_sheet.py")))
