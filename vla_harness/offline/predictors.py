"""How a policy is asked for actions at a row of a dataset: in GR00T's terms, or by an ``Observation``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ..conventions import Adapter
from ..data import Dataset, Episode, ModalityReader
from ..data.conventions import in_our_terms
from ..errors import UserError
from ..types import DELTA_EEF_POSE, EnvironmentSpec, Observation, Policy, PolicySpec


class Predictor(Protocol):
    """Actions of a policy at rows of a dataset, beside the recorded ones.

    keys: the parts of the dataset's action that are compared, in order. horizon: actions of one prediction.
    """

    keys: tuple[str, ...]
    horizon: int

    def predict(self, episode: Episode, row: int) -> np.ndarray:
        """Return (horizon, D) float64: the actions from ``row`` on, in the dataset's units."""
        ...


@runtime_checkable
class ModalityPolicy(Protocol):
    """What policies of NVIDIA's ``Gr00tPolicy`` shape offer."""

    def get_action(self, observations: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
        """Return "action.KEY" -> (horizon, D)."""
        ...

    def get_modality_config(self) -> Mapping[str, Mapping[str, Sequence[Any]]]:
        """Return group -> {"delta_indices": …, "modality_keys": …}."""
        ...


class ModalityPredictor:
    """Asks a policy of ``Gr00tPolicy``'s shape, by the parts of meta/modality.json."""

    def __init__(self, policy: ModalityPolicy, dataset: Dataset, keys: Sequence[str] | None = None) -> None:
        """``keys``: action parts to compare, without "action."; None for all that the policy writes."""
        self._policy, self._reader = policy, ModalityReader(dataset)
        config = policy.get_modality_config()
        written = tuple(config["action"]["modality_keys"])
        self.keys = written if keys is None else tuple(f"action.{key}" for key in keys)
        for key in self.keys:
            if key not in written:
                raise UserError(f"The policy writes no {key!r} (it writes: {', '.join(written)}): choose among these.")
            dataset.modality.part(key)
        self.horizon = len(config["action"]["delta_indices"])
        groups = [config[group] for group in ("video", "state", "language") if group in config]
        self._wanted = {key: tuple(group["delta_indices"]) for group in groups for key in group["modality_keys"]}
        missing = next((key for key in self._wanted if key not in dataset.modality.keys), None)
        if missing:
            missing_from = dataset.path / "meta" / "modality.json"
            known = ", ".join(dataset.modality.keys)
            raise UserError(f"The policy reads {missing!r}, which {missing_from} does not name (it names: {known}).")

    def predict(self, episode: Episode, row: int) -> np.ndarray:
        """See Predictor."""
        actions = self._policy.get_action(self._reader.window(episode, row, self._wanted))
        parts = [np.asarray(actions[key], np.float64).reshape(self.horizon, -1) for key in self.keys]
        return np.concatenate(parts, axis=1)


class ObservationPredictor:
    """Asks a policy as a rollout does; the specs are joined by the same Adapter, with the same refusals.

    The dataset's actions are taken for robosuite's delta end-effector pose, as LIBERO records them.
    """

    def __init__(self, policy: Policy, dataset: Dataset, cameras: Mapping[str, str] | None = None) -> None:
        """``cameras``: the policy's camera -> the dataset's, where the names differ."""
        if policy.spec.reads_scene:
            raise UserError(f"The policy {policy.spec.name!r} reads the simulator's state, which datasets do not hold.")
        modality = dataset.modality
        self.keys = tuple(f"action.{key}" for key in modality.action)
        width = sum(part.end - part.start for part in modality.action.values())
        if width != DELTA_EEF_POSE.dim:
            raise UserError(
                f"The policy {policy.spec.name!r} writes end-effector poses of {DELTA_EEF_POSE.dim} numbers, and the"
                f" actions of {dataset.path} have {width}: use a dataset of end-effector actions."
            )
        given = dict(cameras or {})
        for ours, theirs in given.items():
            if theirs not in modality.video:
                known = ", ".join(modality.video) or "none"
                raise UserError(f"--cameras names {theirs!r} for {ours!r}, and the dataset has: {known}.")
        self._cameras = {key: key for key in modality.video} | given
        states = {key: part.end - part.start for key, part in modality.state.items()}
        interface = EnvironmentSpec(tuple(self._cameras), states, DELTA_EEF_POSE, dataset.fps)
        self._adapter = Adapter(interface, policy.spec, f"dataset {dataset.name}")
        self._policy, self._reader = policy, ModalityReader(dataset)
        self.horizon = policy.spec.horizon

    def predict(self, episode: Episode, row: int) -> np.ndarray:
        """See Predictor."""
        spec = self._policy.spec
        video = {name: f"video.{self._cameras[name]}" for name in spec.cameras}
        states = self._adapter.environment.state
        wanted = {key: (0,) for key in (*video.values(), *(f"state.{key}" for key in states))}
        window = self._reader.window(episode, row, wanted)
        observation = Observation(
            images={name: window[key][0] for name, key in video.items()},
            state=self._adapter.state({key: window[f"state.{key}"][0] for key in states}),
            instruction=episode.instruction(row),
            episode=f"{episode.dataset.name}/{episode.index}",
            step=row,
        )
        return self._adapter.actions(self._policy.act([observation])[0]).astype(np.float64)


def predictor_of(
    policy: Policy, dataset: Dataset, keys: Sequence[str] | None = None, cameras: Mapping[str, str] | None = None
) -> Predictor:
    """Return the predictor that fits the policy. Raises UserError where policy and dataset cannot be joined.

    A policy of ``Gr00tPolicy``'s shape is asked by the names of its parts; as a rollout asks it, where it moves an end
    effector and the dataset is in the harness's terms or has other names.
    """
    if isinstance(policy, ModalityPolicy) and not _only_as_in_a_rollout(policy, policy.spec, dataset):
        return ModalityPredictor(policy, dataset, keys)
    if keys is not None:
        raise UserError("--action-keys chooses among the parts that GR00T's policies write: leave it out.")
    return ObservationPredictor(policy, dataset, cameras)


def _only_as_in_a_rollout(policy: ModalityPolicy, spec: PolicySpec, dataset: Dataset) -> bool:
    named = {key for group in policy.get_modality_config().values() for key in group["modality_keys"]}
    return spec.action.mode == "delta" and (in_our_terms(dataset) or not named <= set(dataset.modality.keys))
