"""``python -m vla_harness show RUN``: the table, and the failures with a strip of frames from their last seconds."""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys

    from vla_harness.launch import launch

    sys.exit(launch("vla_harness.__main__", ["show", *sys.argv[1:]]))

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from tyro.conf import Positional, arg

from tformer.values import NonNegativeInt, PositiveDuration

from ..command import DONE, parse_options
from ..errors import UserError
from ..printing import printable
from ..results import RecordedRun, read_run, summarize
from ..results.files import explain_write_errors
from ..results.wording import plural
from ..rollout.episode import filmed_camera
from ..success_table import success_table
from ..types import EpisodeResult
from .playback import playback

STRIP = "failures.png"
FRAMES = 8
FRAME_PIXELS = 160
LABEL_PIXELS = 18


@dataclass(frozen=True, kw_only=True)
class Show:
    """Print a run's table and its failures, and draw the last seconds of the first of them as a strip of frames.

    Exit codes: 0 done, 1 a failure could not be played again, 2 something to put right in the command.
    """

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """Folder of the run."""

    strips: Annotated[NonNegativeInt, arg(metavar="N")] = 4
    """Failures to draw, at most; 0 draws none. Each is played again, which takes seconds."""

    seconds: Annotated[PositiveDuration, arg(metavar="S")] = 4.0
    """How many of a failure's last simulated seconds its frames are spread over."""

    out: Annotated[
        Path | None, arg(metavar="FILE.png", help_behavior_hint=f"(default: {STRIP} in the run's folder)")
    ] = None
    """File for the strips."""

    assets: Annotated[
        str | None, arg(metavar="auto|hub|primitive|PATH", help_behavior_hint="(default: where the run found them)")
    ] = None
    """The run's assets, where they lie now."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; ``arguments`` without the program's name. Returns the exit code."""
    options = parse_options(Show, arguments, "vla-harness show")
    if options.out is not None and options.out.suffix.lower() != ".png":
        raise UserError(f"--out is {options.out}: end its name in .png.")
    run = read_run(options.run)
    print(success_table(summarize(run)))
    failures = [result for result in run.results if result.outcome == "failure"]
    errors = [result for result in run.results if result.outcome == "error"]
    if failures:
        film = f"vla-harness replay {run.path} --episode TASK/STATE --video FILE.mp4"
        print(f"\n{plural(len(failures), 'failure')}; `{film}` films one:")
        print("\n".join(f"  {_label(result)}" for result in failures))
    if errors:
        print(f"\n{plural(len(errors), 'error')}:")
        print("\n".join(printable(f"  {result.key}: {result.error}") for result in errors))
    if failures and options.strips:
        path = options.out or run.path / STRIP
        draw_strips(run, failures[: options.strips], options.seconds, path, options.assets)
        print(f"\nThe last {options.seconds:g} s of {plural(len(failures[: options.strips]), 'failure')}: {path}")
    return DONE


def draw_strips(
    run: RecordedRun, results: Sequence[EpisodeResult], seconds: float, path: Path, assets: str | None = None
) -> None:
    """Write an image with a row for each of ``results``: a label, and eight frames of its last ``seconds``.

    Raises UserError if the file cannot be written, RunFailed if an episode ends in another state than it did.
    """
    from PIL import Image, ImageDraw  # nothing else here draws

    sheet = Image.new("RGB", (FRAMES * FRAME_PIXELS, len(results) * (FRAME_PIXELS + LABEL_PIXELS)), "white")
    draw = ImageDraw.Draw(sheet)
    with playback(run, assets) as player:
        for row, result in enumerate(results):
            top = row * (FRAME_PIXELS + LABEL_PIXELS)
            draw.text((4, top + 3), _label(result).encode("ascii", "replace").decode(), fill="black")
            simulator = player.simulator(result.key.task_id)
            first = max(0, result.steps - round(seconds * simulator.interface.control_hz))
            wanted = np.linspace(first, result.steps, FRAMES).round().astype(int)
            camera = filmed_camera(simulator)
            for played in player.moments(result):
                for column in np.flatnonzero(wanted == played):
                    frame = simulator.render_camera(camera, FRAME_PIXELS, FRAME_PIXELS)
                    sheet.paste(Image.fromarray(frame), (int(column) * FRAME_PIXELS, top + LABEL_PIXELS))
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path)


def _label(result: EpisodeResult) -> str:
    what = f"{result.instruction or result.task_name}, {result.outcome} after {result.steps} steps"
    return printable(f"{result.key}: {what}")
