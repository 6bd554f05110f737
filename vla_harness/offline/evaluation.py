"""The errors of a policy's actions on recorded episodes, as NVIDIA's ``eval_policy.py`` of GR00T N1.5 defines them.

A prediction every ``horizon`` rows, from the recorded observation there; the mean squared error between all predicted
and recorded actions, in the dataset's units; the mean over trajectories.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..data import Episode
from ..data.modality import part_values
from ..errors import UserError
from .predictors import Predictor


@dataclass(frozen=True)
class Trajectory:
    """One evaluated episode. All arrays are (steps, D) float64, in the dataset's units.

    names: of the D numbers. state: of the parts with the name and length of an action's, else NaN.
    inference_rows: where the policy looked.
    """

    episode: int
    instruction: str
    names: tuple[str, ...]
    truth: np.ndarray
    prediction: np.ndarray
    state: np.ndarray
    inference_rows: tuple[int, ...]

    @property
    def mse(self) -> float:
        """Mean squared error over steps and dimensions."""
        return float(np.mean((self.truth - self.prediction) ** 2))

    @property
    def mse_per_dimension(self) -> np.ndarray:
        """(D,) mean squared error over the steps."""
        return np.mean((self.truth - self.prediction) ** 2, axis=0)


@dataclass(frozen=True)
class Evaluation:
    """The evaluated episodes. Every trajectory weighs the same, however long."""

    trajectories: tuple[Trajectory, ...]

    @property
    def mse(self) -> float:
        """Mean of the trajectories' errors."""
        return float(np.mean([one.mse for one in self.trajectories]))

    @property
    def mse_per_dimension(self) -> np.ndarray:
        """(D,) mean of the trajectories' errors."""
        return np.mean([one.mse_per_dimension for one in self.trajectories], axis=0)


def evaluate_trajectory(predictor: Predictor, episode: Episode, steps: int, horizon: int | None = None) -> Trajectory:
    """Predict at most ``steps`` rows of the episode from its start; beyond its end there is nothing to compare with.

    horizon: actions used of each prediction; None for all. Raises UserError for predictions that are no numbers.
    """
    used = predictor.horizon if horizon is None else horizon
    if not 1 <= used <= predictor.horizon:
        raise UserError(f"--horizon is {used}, and the policy predicts {predictor.horizon} actions: give 1 to that.")
    count = min(steps, episode.length)
    rows = range(0, count, used)
    prediction = np.concatenate([predictor.predict(episode, row)[:used] for row in rows])[:count]
    if not np.isfinite(prediction).all():
        row = int(np.argwhere(~np.isfinite(prediction))[0][0])
        raise UserError(f"The policy predicted {prediction[row]} for row {row} of episode {episode.index}: no numbers.")
    truth, state, names = _recorded(episode, predictor.keys)
    return Trajectory(
        episode.index, episode.instruction(0), names, truth[:count], prediction, state[:count], tuple(rows)
    )


def _recorded(episode: Episode, keys: Sequence[str]) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return the recorded actions, the states beside them, and the names of the dimensions."""
    modality, truth, state, names = episode.dataset.modality, [], [], []
    for key in keys:
        name = key.removeprefix("action.")
        part = modality.action[name]
        width = part.end - part.start
        truth.append(part_values(episode, part).astype(np.float64))
        beside = modality.state.get(name)
        if beside is not None and beside.end - beside.start == width:
            state.append(part_values(episode, beside).astype(np.float64))
        else:
            state.append(np.full((episode.length, width), np.nan))
        names += [f"{name}[{i}]" for i in range(width)] if width > 1 else [name]
    return np.concatenate(truth, axis=1), np.concatenate(state, axis=1), tuple(names)
