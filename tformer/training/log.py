"""What a training shows and records while it runs: a progress bar or plain lines, TensorBoard, curve.json."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm


class TrainLog:
    """The leading process's outlets; the others make one with ``out=None``, which does nothing."""

    def __init__(self, out: Path | None, total_steps: int, step: int) -> None:
        self.out = out
        self.writer = None if out is None else SummaryWriter(str(out / "tensorboard"), purge_step=step)
        # disable=None: a bar on a terminal only; a pipe gets the lines that ``say`` prints.
        self.bar = tqdm(
            total=total_steps, initial=step, unit="step", dynamic_ncols=True, disable=True if out is None else None
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.bar.close()
        if self.writer is not None:
            self.writer.close()

    def advance(self) -> None:
        """Count one step."""
        self.bar.update()

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Record ``values`` at ``step`` and show them on the bar."""
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)
        self.bar.set_postfix({name: f"{value:.4g}" for name, value in values.items()})

    def say(self, text: str, step: int) -> None:
        """Print ``text`` above the bar and record it."""
        if self.writer is not None:
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()
            self.writer.add_text("validation", text.replace("\n", "  \n"), step)

    def curve(self, points: list[dict[str, float]]) -> None:
        """Write all points so far to curve.json."""
        if self.out is not None:
            text = "[\n" + ",\n".join(" " + json.dumps(point) for point in points) + "\n]\n"
            unfinished = self.out / "curve.json.unfinished"
            unfinished.write_text(text)
            os.replace(unfinished, self.out / "curve.json")  # a full disk must not cost the points so far
