"""Sends a run's episodes, rates and times to TensorBoard or Weights & Biases while it plays."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Mapping
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np

from .errors import UserError
from .results import RunFolder
from .types import EpisodeResult

Outlet = Literal["none", "tensorboard", "wandb"]
TABLE = ("task_id", "name", "successes", "trials", "errors", "success_rate", "mean_steps_on_success")
"""Columns of the table at the end, as the summary names them."""


class Tracker:
    """Keeps counts and writes nothing; the outlets below write.

    The step of every number is how many episodes of the run have ended, over all its sittings.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._finished: Counter[tuple[int | None, str]] = Counter()
        self._step = 0
        for result in folder.results():
            self._count(result)

    def episode(self, result: EpisodeResult) -> None:
        """Write an episode that ended."""
        self._count(result)
        numbers = {
            "episode/steps": float(result.steps),
            "episode/attempts": float(result.attempts),
            "time/episode_s": result.wall_s,
            "time/simulation_s": result.env_s,
            "time/rendering_s": result.render_s,
        }
        if result.policy_ms:
            numbers["time/decision_ms"] = float(np.mean(result.policy_ms))
        if result.outcome != "error":
            numbers["episode/success"] = float(result.outcome == "success")
            for task, name in ((None, "success_rate/all"), (result.key.task_id, f"success_rate/{_task_name(result)}")):
                successes = self._finished[task, "success"]
                numbers[name] = successes / (successes + self._finished[task, "failure"])
        self.write(numbers, self._step)

    def end(self, summary: Mapping[str, Any]) -> None:
        """Write the table of a run that came to its end."""
        self.write_table(TABLE, [[task[name] for name in TABLE] for task in summary["tasks"]], self._step)

    def write(self, numbers: Mapping[str, float], step: int) -> None:
        """Write numbers by name."""

    def write_table(self, columns: tuple[str, ...], rows: list[list[Any]], step: int) -> None:
        """Write a table."""

    def close(self) -> None:
        """Finish what is written; may be called once."""

    def _count(self, result: EpisodeResult) -> None:
        self._step += 1
        for task in (None, result.key.task_id):
            self._finished[task, result.outcome] += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class TensorBoard(Tracker):
    """Event files in the run's folder, written with the package tensorboard alone."""

    def __init__(self, folder: RunFolder) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.text.metadata import create_summary_metadata
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
        from tensorboard.util.tensor_util import make_tensor_proto

        super().__init__(folder)
        self._event, self._summary = Event, Summary
        self._text = lambda text: (make_tensor_proto(text), create_summary_metadata("", ""))
        self._writer = EventFileWriter(str(folder.path / "tensorboard"))

    def write(self, numbers: Mapping[str, float], step: int) -> None:
        """Write scalars."""
        self._add([self._summary.Value(tag=name, simple_value=value) for name, value in numbers.items()], step)

    def write_table(self, columns: tuple[str, ...], rows: list[list[Any]], step: int) -> None:
        """Write a Markdown table as a text."""
        lines = [columns, ["---"] * len(columns), *([_cell(value) for value in row] for row in rows)]
        tensor, metadata = self._text("\n".join(f"| {' | '.join(line)} |" for line in lines))
        self._add([self._summary.Value(tag="tasks", metadata=metadata, tensor=tensor)], step)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()

    def _add(self, values: list[Any], step: int) -> None:
        self._writer.add_event(self._event(wall_time=time.time(), step=step, summary=self._summary(value=values)))


class WeightsAndBiases(Tracker):
    """A run of the project vla-harness; a resumed run goes on in the same one."""

    def __init__(self, folder: RunFolder) -> None:
        import wandb

        super().__init__(folder)
        place = folder.path.absolute()
        self._wandb = wandb
        try:
            self._run = wandb.init(
                project="vla-harness",
                name=place.name,
                id=hashlib.sha256(str(place).encode()).hexdigest()[:16],
                resume="allow",
                dir=place,
                config=dict(folder.config),
                settings=wandb.Settings(console="off", silent=True),
            )
        except wandb.Error as error:  # no login, no connection
            reason = str(error).strip().rstrip(".")
            raise UserError(
                f"--track wandb cannot begin ({reason}): run `wandb login`, set WANDB_API_KEY, or keep all"
                " in the results with WANDB_MODE=offline."
            ) from None

    def write(self, numbers: Mapping[str, float], step: int) -> None:
        """Log numbers."""
        self._run.log(dict(numbers), step=step)

    def write_table(self, columns: tuple[str, ...], rows: list[list[Any]], step: int) -> None:
        """Log a table."""
        self._run.log({"tasks": self._wandb.Table(columns=list(columns), data=rows)}, step=step)

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()


OUTLETS: dict[Outlet, type[Tracker]] = {"none": Tracker, "tensorboard": TensorBoard, "wandb": WeightsAndBiases}


def require_outlet(outlet: Outlet) -> None:
    """Raise UserError if the outlet's package is not installed."""
    if outlet != "none" and find_spec(outlet) is None:
        raise UserError(f"--track {outlet} needs {outlet}: run `pip install 'vla-harness[{outlet}]'`.")


def _task_name(result: EpisodeResult) -> str:
    return f"{result.key.task_id:02d}_{result.task_name}"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value).replace("|", "\\|")
