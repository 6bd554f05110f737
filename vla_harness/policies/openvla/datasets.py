"""What the actions of a training dataset mean, by the key of its statistics. What is not certain is unknown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ...checkpoints import Fields
from ...errors import UserError
from ...types import DELTA_EEF_POSE, UNKNOWN_ACTION, ActionConvention, ImageOrientation

CONVENTION, INSTRUCTIONS = "action_convention", "instructions"
"""Keys by which our own fine-tunes state both in their statistics; other loaders pass over them."""


@dataclass(frozen=True)
class DatasetConvention:
    """How a dataset's actions and frames relate to the harness's.

    name: for messages and provenance. action: meaning of what ``act`` returns. image_orientation: of the training's
    frames. libero_gripper: ``act`` turns the decoded gripper, 1 open and 0 closed, into LIBERO's -1 open and 1 closed.
    """

    name: str
    action: ActionConvention
    image_orientation: ImageOrientation
    libero_gripper: bool = False


LIBERO = DatasetConvention("libero", DELTA_EEF_POSE, "mirrored", libero_gripper=True)
BRIDGE = DatasetConvention(
    "bridge",
    ActionConvention(
        mode="delta",
        translation_unit=1.0,
        rotation="euler_xyz",
        rotation_unit=1.0,
        gripper_open=1.0,
        gripper_closed=0.0,
        gripper_binary=True,
    ),
    "upright",
)
"""BridgeData V2 as OpenVLA reads it: metres and radians (roll, pitch, yaw) from one reached pose to the next."""
UNKNOWN = DatasetConvention("unknown", UNKNOWN_ACTION, "upright")

CONVENTIONS = {known.name: known for known in (LIBERO, BRIDGE, UNKNOWN)}

_LIBERO_SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10", "libero_90")
_TRAINED_ON = {
    **{f"{suite}{ending}": (suite,) for suite in _LIBERO_SUITES for ending in ("", "_no_noops")},
    "libero_4_task_suites_no_noops": _LIBERO_SUITES[:4],
}
_BRIDGE_KEYS = ("bridge_orig", "bridge_dataset")


def dataset_convention(key: str, statistics: Fields, stated: str | None = None) -> DatasetConvention:
    """Return the convention of the dataset ``key``.

    statistics: its entry, whose own statement comes before what is known of the key. stated: the user's, before both.
    Raises UserError for a name that is not in ``CONVENTIONS``.
    """
    if stated is not None:
        if stated not in CONVENTIONS:
            raise UserError(f"There is no action_convention {stated!r}: choose one of {', '.join(CONVENTIONS)}.")
        return CONVENTIONS[stated]
    if CONVENTION in statistics.content:
        name = statistics.text(CONVENTION)
        return CONVENTIONS[name] if name in CONVENTIONS else statistics.refuse(CONVENTION, " or ".join(CONVENTIONS))
    if key in _TRAINED_ON:
        return LIBERO
    return BRIDGE if key in _BRIDGE_KEYS else UNKNOWN


def trained_on(key: str, statistics: Fields) -> tuple[str, ...] | None:
    """Return what a policy with the statistics ``key`` learned, as ``PolicySpec.trained_on`` has it."""
    if INSTRUCTIONS in statistics.content:
        return statistics.texts(INSTRUCTIONS)
    return _TRAINED_ON.get(key, (key,) if key in _BRIDGE_KEYS else None)


def finetune_statement(instructions: Iterable[str]) -> dict[str, Any]:
    """Return what a fine-tune on LIBERO's actions adds to its statistics. instructions: those of its data."""
    return {CONVENTION: LIBERO.name, INSTRUCTIONS: sorted(set(instructions))}
