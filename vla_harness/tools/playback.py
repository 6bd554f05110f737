"""Playing a stored episode again: from the run's folder to a simulator at any of its moments."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from ..environments import check_environment
from ..errors import RunFailed, UserError
from ..kernels import KERNELS, VARIABLE, kernels
from ..results import RecordedRun
from ..results.configuration import CONFIG
from ..results.database import DATABASE
from ..results.marks import shared_provenance
from ..results.stored import protocol_of
from ..rollout.episode import moments
from ..rollout.jobs import EnvironmentRecipe, EpisodeJob, Simulator
from ..types import EpisodeResult


def stored_episode(run: RecordedRun, name: str) -> EpisodeResult:
    """Return the episode called SUITE/TASK/STATE/SEED, or TASK/STATE, or TASK/STATE/SEED.

    Raises UserError for a name of another form, an episode that the run does not hold, or one that ended in an error.
    """
    words = name.split("/")
    if not 2 <= len(words) <= 4:
        raise UserError(f"--episode is {name!r}: give TASK/STATE, such as 0/3, or SUITE/TASK/STATE/SEED.")
    for result in run.results:
        suite, *rest = str(result.key).split("/")
        if words in ([suite, *rest], rest, rest[:2]):
            if result.outcome == "error":
                raise UserError(f"{result.key} ended in an error and cannot be played again: {result.error}")
            return result
    raise UserError(f"{run.path} holds no episode {name} (its report.html lists them as task and initial state).")


class Playback:
    """Builds a run's simulators, one at a time, and plays its episodes in them. Use it as a context manager.

    assets: "auto", "hub", "primitive" or a folder with the run's assets; None for the place where the run found them.
    Raises UserError when the run does not say what builds its environments, or the assets are others.
    """

    def __init__(self, run: RecordedRun, assets: str | None = None) -> None:
        provenance = shared_provenance(run)
        if "environment" not in provenance:
            raise UserError(f"{run.path} does not say what builds its environments: it is of an earlier version.")
        self._id = provenance["environment"]["id"]
        self._options = dict(provenance["environment"]["options"])
        check_environment(self._id, self._options, run.path / DATABASE)
        if assets is not None:
            self._options["assets"] = _same_assets(assets, provenance, self._options)
        self._core = provenance.get(KERNELS, {}).get("simulator")
        self._protocol = protocol_of(run.config, run.path / CONFIG)
        self._simulator: Simulator | None = None
        self._recipe: EnvironmentRecipe | None = None
        import_module("vla_harness.envs.gl").choose_gl_backend()  # before anything imports mujoco

    def simulator(self, task_id: int) -> Simulator:
        """Return the simulator of a task; the one of another task is closed."""
        recipe = EnvironmentRecipe(self._id, {"task": task_id, "observations": "on_request", **self._options})
        if self._simulator is None or recipe != self._recipe:
            self.close()
            self._simulator, self._recipe = recipe.build(), recipe
        return self._simulator

    def moments(self, result: EpisodeResult) -> Iterator[int]:
        """Play ``result`` again and yield after each action how many were played, first 0.

        Raises RunFailed after the last one if it ended in another state than the first time.
        """
        simulator = self.simulator(result.key.task_id)
        assert self._recipe is not None
        job = EpisodeJob(result.key, result.task_name, result.instruction, self._recipe)
        try:
            yield from moments(simulator, job, self._protocol, result, lambda: None)
        except RuntimeError as error:
            differing = "The assets, the versions or the machine differ."
            if self._core and self._core != kernels()["simulator"]:
                differing = f"It was played with BLAS kernels for {self._core}: set {VARIABLE}={self._core}."
            raise RunFailed(f"{result.key}: {error} {differing}") from error

    def close(self) -> None:
        """Close the simulator, if there is one."""
        if self._simulator is not None:
            self._simulator.close()
            self._simulator = None


@contextmanager
def playback(run: RecordedRun, assets: str | None = None) -> Iterator[Playback]:
    """Open a Playback and close its simulator in the end."""
    player = Playback(run, assets)
    try:
        yield player
    finally:
        player.close()


def frame_size(text: str) -> tuple[int, int]:
    """Return (height, width) of "512" or "480x640". Raises UserError for anything else."""
    found = re.fullmatch(r"(\d{1,4})(?:x(\d{1,4}))?", text)
    size = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not all(16 <= pixels <= 4096 for pixels in size):
        raise UserError(f"--size is {text!r}: give pixels from 16 to 4096, such as 512 or 480x640.")
    return size


def _same_assets(choice: str, provenance: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    if "assets" not in options:
        raise UserError("These environments take no assets: leave --assets out.")
    source = import_module("vla_harness.envs.assets").resolve_assets(choice)
    stored = provenance.get("assets", {}).get("digest")
    if source.provenance["digest"] != stored:
        raise UserError(
            f"--assets leads to {source}, the run was played on others (digest {str(stored)[:12]}): name those."
        )
    return str(source.path)
