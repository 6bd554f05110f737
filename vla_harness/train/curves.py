"""``python -m vla_harness.train curves RUN… --out curves.png``: the curves of trainings, side by side."""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys

    from vla_harness.launch import launch

    sys.exit(launch("vla_harness.train.curves"))

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from tformer.values import check_value

from ..command import DONE, parse_options, run_command
from ..errors import UserError

NO_SCORE = ("step", "epoch", "seconds")
"""What the points of a curve are placed by."""
Curve = Sequence[dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class CurveOptions:
    """Draw the training loss and each validation score of one or several trainings over their steps."""

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN …")]
    """Folders of trainings, or their curve.json."""
    out: Path = Path("curves.png")
    """Picture to write; its ending chooses the format: png, svg or pdf."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit code."""
    return run_command(lambda: draw(parse_options(CurveOptions, arguments, "python -m vla_harness.train curves")))


def draw(options: CurveOptions) -> int:
    """Write the picture and return the exit code; UserError for a folder without a curve."""
    if not options.runs:
        raise UserError("No training is given: name the folders of one or more, as in runs/tformer.")
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    curves = {_name(path): read_curve(path) for path in options.runs}
    scores = list(dict.fromkeys(name for curve in curves.values() for point in curve for name in point))
    scores = [name for name in scores if name not in NO_SCORE]
    figure, axes = plt.subplots(1, len(scores), figsize=(3.2 * len(scores), 2.8), squeeze=False, layout="constrained")
    for axis, score in zip(axes[0], scores, strict=True):
        for run, curve in curves.items():
            points = [(point["step"], point[score]) for point in curve if score in point]
            if points:
                axis.plot(*zip(*points, strict=True), marker=".", label=run)
        axis.set(xlabel="step", title=score)
        axis.update_datalim([(0, 0)])
        axis.autoscale_view()
    axes[0, 0].legend(fontsize=7)
    try:
        figure.savefig(options.out, dpi=120)
    except (OSError, ValueError) as error:
        raise UserError(f"--out {options.out} cannot be written ({error}): give another, such as curves.png.") from None
    print(f"{options.out}: {', '.join(scores)} of {', '.join(curves)}")
    return DONE


def read_curve(path: Path) -> Curve:
    """Return the points of a training's curve.json; ``path`` is the file or the training's folder."""
    file = path / "curve.json" if path.is_dir() else path
    try:
        curve: Curve = check_value(json.loads(file.read_text(encoding="utf-8")), list[dict[str, float]])
    except (OSError, ValueError, RecursionError):
        curve = []
    if not curve or not all("step" in point for point in curve):
        raise UserError(f"{path} holds no curve: name the folder of a training that has ended an epoch.")
    return curve


def _name(path: Path) -> str:
    """Return a run's name in the legend: its folder's, or the file's where that says more."""
    return path.parent.name if path.name == "curve.json" else path.stem
