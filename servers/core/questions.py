"""What the server asks its policy, and how one batch of questions is put to it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np

from vla_harness.conventions import state_lengths
from vla_harness.types import JointConvention, Observation, Policy, PolicySpec


@runtime_checkable
class RawActions(Protocol):
    """A policy that also answers as OpenVLA's own server does."""

    def predict_action(self, image: np.ndarray, instruction: str, unnorm_key: str | None = None) -> np.ndarray:
        """Return (7,) float64, un-normalised, the gripper as decoded, of one (H, W, 3) uint8 image as it is."""
        ...


@runtime_checkable
class RawChunks(Protocol):
    """A policy that also answers as OpenVLA-OFT's own server does."""

    def predict_actions(
        self,
        images: Sequence[np.ndarray],
        instruction: str,
        state: np.ndarray | None = None,
        unnorm_key: str | None = None,
    ) -> np.ndarray:
        """Return (horizon, 7) float64, un-normalised, the gripper as decoded, of an image for each camera as it is."""
        ...


@runtime_checkable
class NamedActions(Protocol):
    """A policy that also answers as GR00T's own server does."""

    def get_action(self, observation: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
        """Return ``action.<key>`` -> (16, D), or (B, 16, D), of ``video.<key>``, ``state.<key>``, ``annotation.…``."""
        ...

    def get_modality_config(self) -> Mapping[str, Any]:
        """Return modality -> an object or map with ``delta_indices`` and ``modality_keys``."""
        ...


@dataclass(frozen=True)
class Act:
    """Asks for a chunk, (horizon, action_dim) float32."""

    observation: Observation


@dataclass(frozen=True)
class PredictAction:
    """Asks for what ``RawActions.predict_action`` returns."""

    image: np.ndarray
    instruction: str
    unnorm_key: str | None


@dataclass(frozen=True)
class PredictActions:
    """Asks for what ``RawChunks.predict_actions`` returns."""

    images: Sequence[np.ndarray]
    instruction: str
    state: np.ndarray | None
    unnorm_key: str | None


@dataclass(frozen=True)
class GetAction:
    """Asks for what ``NamedActions.get_action`` returns."""

    observation: Mapping[str, Any]


Question = Act | PredictAction | PredictActions | GetAction


def ask_policy(policy: Policy, questions: Sequence[Question]) -> list[Any]:
    """Return the policy's answers. More than one question at once must be ``Act``.

    Whatever the policy raises passes through; RuntimeError for another shape or numbers that are not finite.
    """
    first = questions[0]
    if isinstance(first, PredictAction):
        predictor = cast(RawActions, policy)
        answers = [np.asarray(predictor.predict_action(first.image, first.instruction, unnorm_key=first.unnorm_key))]
    elif isinstance(first, PredictActions):
        chunks = cast(RawChunks, policy)
        answers = [np.asarray(chunks.predict_actions(first.images, first.instruction, first.state, first.unnorm_key))]
    elif isinstance(first, GetAction):
        named = cast(NamedActions, policy).get_action(first.observation)
        parts = {key: np.asarray(value) for key, value in named.items()}
        _check_finite(policy, parts.values())
        return [parts]
    else:
        observations = [cast(Act, question).observation for question in questions]
        actions = np.asarray(policy.act(observations), np.float32)
        action = policy.spec.action
        stated = isinstance(action, JointConvention) or math.isfinite(action.translation_unit)  # else of any number
        dim = action.dim if stated else actions.shape[-1]
        wanted = (len(questions), policy.spec.horizon, dim)
        if actions.shape != wanted:
            raise RuntimeError(f"the policy returned actions of shape {actions.shape}, not {wanted}")
        answers = list(actions)
    _check_finite(policy, answers)
    return answers


def _check_finite(policy: Policy, answers: Any) -> None:
    if not all(np.isfinite(answer).all() for answer in answers):
        raise RuntimeError(f"the policy {policy.spec.name!r} returned numbers that are not finite")


def state_length(spec: PolicySpec) -> int | None:
    """Return the length of the state that the policy reads; None when one of its parts has no known length."""
    lengths = state_lengths(spec)
    return None if None in lengths else sum(length for length in lengths if length is not None)


def blank_observation(spec: PolicySpec) -> Observation | None:
    """Return a black, motionless observation to warm up with; None when the state's length is not known."""
    length = state_length(spec)
    if length is None:
        return None
    height, width = spec.image_size or (256, 256)
    images = {camera: np.zeros((height, width, 3), np.uint8) for camera in spec.cameras}
    return Observation(images, np.zeros(length, np.float32), "warm up", "server/warm-up", 0)
