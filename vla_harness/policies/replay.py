"""Plays back the actions of an earlier run: the check that a run can be repeated, and a way to film it later."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..results import read_run
from ..results.marks import shared_provenance
from ..results.run_folder import DATABASE
from ..types import DELTA_EEF_POSE, ActionConvention, JointConvention, Observation, Policy, PolicySpec


class ReplayPolicy(Policy):
    """Plays the stored actions of an earlier run, one a call, whatever its chunks were.

    An episode is found by its name, which holds suite, task, initial state and seed. The same protocol then leads to
    the same states, outcome and length.
    """

    def __init__(self, checkpoint: str, action: ActionConvention | JointConvention = DELTA_EEF_POSE) -> None:
        """Read a run.

        Args:
            checkpoint: Folder of the run whose actions are played again.
            action: What the environment takes.

        Raises UserError if it is no run, holds no finished episode, or its actions have another meaning or length.
        """
        self.spec = PolicySpec("replay", action)
        self._run = checkpoint
        run = read_run(checkpoint)
        self._actions = {str(r.key): r.actions for r in run.results if r.outcome != "error"}
        if not self._actions:
            raise UserError(f"{checkpoint} holds no finished episode: give a run that has some to --checkpoint.")
        stated = json.loads(json.dumps(asdict(action)))
        recorded = shared_provenance(run).get("environment", {}).get("action", stated)  # older runs do not say it
        if differing := [name for name, value in stated.items() if recorded.get(name) != value]:
            name = differing[0]
            raise UserError(
                f"The actions in {checkpoint} mean something else than the environment's (action.{name} is"
                f" {recorded.get(name)} there and {stated[name]} here): give a run of the same environment, robot and"
                " controller."
            )
        for episode, actions in self._actions.items():
            if actions.shape[1:] != (action.dim,):
                raise UserError(
                    f"The actions of {episode} in {checkpoint} have {actions.shape[1]} entries, and the environment"
                    f" takes {action.dim}: give a run of the same environment, robot and controller."
                )

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        """Return (batch, 1, dim) float32; raises UserError for an episode or a step that the run does not hold."""
        return np.stack([self._stored(o.episode, o.step) for o in observations])[:, None]

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Return which run is played, and the hash of its episodes."""
        digest = hashlib.sha256(Path(self._run, DATABASE).read_bytes()).hexdigest()
        return {**super().provenance, "checkpoint": self._run, "checkpoint_sha256": digest}

    def _stored(self, episode: str, step: int) -> np.ndarray:
        if episode not in self._actions:
            raise UserError(
                f"{self._run} holds no finished episode {episode} (suite/task/initial state/seed):"
                " choose --tasks, --trials and --seed as that run has them."
            )
        actions = self._actions[episode]
        if step >= len(actions):
            raise UserError(
                f"The episode {episode} of {self._run} ended after {len(actions)} steps, and step {step} is asked for:"
                " use that run's --protocol and assets."
            )
        return actions[step]
