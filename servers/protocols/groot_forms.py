"""GR00T's observations and actions by name, flat (``video.front``) or nested (``{"video": {"front": …}}``).

A policy that speaks these names itself is asked in them. For any other policy the names are its cameras' and state
parts', and the actions are ``action.translation``, ``action.rotation`` and ``action.gripper``; or they are those of
GR00T's LIBERO client (``video.image``, ``state.x`` …), which is answered in its names (``action.x`` …).

Sources: NVIDIA/Isaac-GR00T ``gr00t/eval/service.py`` (N1.5), ``gr00t/policy/gr00t_policy.py`` (N1.6).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

import numpy as np

from ..core import fields
from ..core.client_conventions import (
    GROOT,
    LIBERO_STATE,
    action_conversion,
    camera_keys,
    convert_state,
    fits_libero,
    sent_state,
)
from ..core.questions import Act, GetAction, NamedActions, state_length
from ..core.refusal import bad_field
from ..core.service import ActionService
from ..wire.arrays import WireError
from ..wire.pictures import PixelBudget
from .forms import Request, episode_of, foreign_observation

_NESTED = ("video", "state", "language", "annotation")
_LIBERO_PARTS = ("x", "y", "z", "roll", "pitch", "yaw")
_ACTIONS = {"translation": slice(0, 3), "rotation": slice(3, -1), "gripper": slice(-1, None)}


def read_groot(
    observation: Mapping[str, Any],
    service: ActionService,
    message: Mapping[str, Any] | None = None,
    pixels: PixelBudget | None = None,
) -> Request:
    """Return the request for ``observation``; raises Refusal. message: what it came in, which may name a session.

    pixels: what all its frames may have together.

    The reply is a map of (horizon, D) arrays, or of (batch, horizon, D) ones when the observation has a batch; its
    keys are flat or nested as the observation's.
    """
    nested = bool(observation) and all(key in _NESTED for key in observation)
    flat = _flatten(observation) if nested else dict(observation)
    named = isinstance(service.policy, NamedActions)
    pixels = pixels or PixelBudget()
    for key, value in flat.items():
        flat[key] = _checked(key, value, pixels)
    if named:
        request = Request("groot", [GetAction(flat)], lambda answers: dict(answers[0]))
    else:
        request = _unnamed(flat, service, message or {})
    if not nested:
        return request
    reply = request.reply
    return Request(
        request.protocol,
        request.questions,
        lambda answers: {key.removeprefix("action."): value for key, value in reply(answers).items()},
        fleeting=request.fleeting,
    )


def _flatten(observation: Mapping[str, Any]) -> dict[str, Any]:
    flat = {}
    for modality in observation:
        for key, value in fields.table(observation, modality).items():
            flat[key if modality in ("language", "annotation") and "." in key else f"{modality}.{key}"] = value
    return flat


def _checked(key: str, value: Any, pixels: PixelBudget) -> Any:
    """Return a value that a policy can take; raises Refusal."""
    if key.startswith("video."):
        if not (isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim in (4, 5) and value.size):
            raise bad_field(key, f"expected (T, H, W, 3) or (B, T, H, W, 3) uint8, got {fields.describe(value)}.")
        if value.shape[-1] != 3:
            raise bad_field(key, f"expected 3 channels last, got {fields.describe(value)}.")
        try:
            pixels.spend(value.shape[-2], value.size // (3 * value.shape[-2]))
        except WireError as error:
            raise bad_field(key, str(error)) from None
        return value
    if key.startswith("state."):
        array = fields.numbers(value)
        if array is None or array.ndim not in (2, 3) or not array.size:
            raise bad_field(key, f"expected (T, D) or (B, T, D) finite numbers, got {fields.describe(value)}.")
        return value if isinstance(value, np.ndarray) else array
    if key.startswith(("annotation.", "language.")):
        return _texts(key, value)
    raise bad_field(key, "unknown; names begin with video., state. or annotation.")


def _texts(key: str, value: Any) -> list[str]:
    """Return the instructions: a text, a list or array of them, or N1.6's list of lists."""
    given = [value] if isinstance(value, str) else value
    if isinstance(given, list):
        given = [one[0] if isinstance(one, list) and len(one) == 1 else one for one in given]
    if not isinstance(given, list) or not given:
        raise bad_field(key, f"expected a list of texts, got {fields.describe(value)}.")
    return [fields.checked_text(one, key) for one in given]


def _unnamed(flat: Mapping[str, Any], service: ActionService, message: Mapping[str, Any]) -> Request:
    """Return the request to a policy that knows nothing of GR00T's names; the newest of several moments counts."""
    spec = service.policy.spec
    names = camera_keys(GROOT, spec, spec.cameras)
    libero = fits_libero(spec) and any(f"video.{key}" in flat for key in set(GROOT.cameras) - set(spec.cameras))
    videos = [
        fields.entry(flat, f"video.{names[camera] if libero else camera}", "(T, H, W, 3) uint8")
        for camera in spec.cameras
    ]
    sent, length = sent_state(spec) if libero else (spec.state_keys, state_length(spec))
    keys = (*_LIBERO_PARTS, "gripper") if sent == LIBERO_STATE and libero else sent
    parts = [np.asarray(fields.entry(flat, f"state.{key}", "(T, D) numbers"), np.float32) for key in keys]
    instructions = next((value for key, value in flat.items() if key.startswith(("annotation.", "language."))), None)
    if instructions is None:
        raise bad_field("annotation.human.task_description", "missing; send a list with the instruction.")
    arrays = [(video, 5) for video in videos] + [(part, 3) for part in parts]
    batches = {array.shape[0] if array.ndim == wide else None for array, wide in arrays} or {None}
    if len(batches) > 1:
        raise bad_field("observation", "expected all fields to have the same batch, or none.")
    (batch,) = batches
    rows = batch or 1
    if not 1 <= rows <= service.settings.max_queue or len(instructions) not in (1, rows):
        raise bad_field("observation", f"expected 1 to {service.settings.max_queue} rows and an instruction for each.")
    questions: list[Act] = []
    passing: list[str] = []
    for row in range(rows):
        images = {
            camera: np.ascontiguousarray((video[row] if batch else video)[-1])
            for camera, video in zip(spec.cameras, videos, strict=True)
        }
        newest = [(part[row] if batch else part)[-1] for part in parts]
        state = np.concatenate([np.zeros(0, np.float32), *newest])
        if length is not None and len(state) != length:
            raise bad_field("state", f"expected {length} numbers in all of {', '.join(keys)}, got {len(state)}.")
        episode, fleeting = episode_of(message, service, "groot")
        passing += fleeting
        observation = foreign_observation(
            service,
            GROOT,
            images,
            convert_state(state, sent, spec),
            instructions[row % len(instructions)],
            episode,
            fields.count(message, "step"),
        )
        questions.append(Act(observation))

    convert = action_conversion(GROOT, spec) if libero else lambda chunk: chunk

    def reply(answers: list[Any]) -> dict[str, np.ndarray]:
        chunks = np.stack([convert(answer) for answer in answers])
        chunks = chunks if batch else chunks[0]
        if not libero:
            return {f"action.{name}": chunks[..., entries] for name, entries in _ACTIONS.items()}
        return {f"action.{name}": chunks[..., i : i + 1] for i, name in enumerate((*_LIBERO_PARTS, "gripper"))}

    return Request("groot", questions, reply, fleeting=tuple(passing))


def modality_config(service: ActionService, as_text: bool) -> dict[str, Any]:
    """Return the reply to ``get_modality_config``: each modality's ``ModalityConfig`` as JSON text, or as a map."""
    policy = service.policy
    if isinstance(policy, NamedActions):
        config = {name: _plain(value) for name, value in policy.get_modality_config().items()}
    else:
        spec = policy.spec
        config = {
            "video": _modality([0], [f"video.{camera}" for camera in spec.cameras]),
            "state": _modality([0], [f"state.{key}" for key in spec.state_keys]),
            "action": _modality(list(range(spec.horizon)), [f"action.{name}" for name in _ACTIONS]),
            "language": _modality([0], ["annotation.human.task_description"]),
        }
    return {
        name: {
            "__ModalityConfig_class__": True,
            "as_json": json.dumps(value, separators=(",", ":")) if as_text else value,
        }
        for name, value in config.items()
    }


def _modality(delta_indices: list[int], keys: list[str]) -> dict[str, Any]:
    return {"delta_indices": delta_indices, "modality_keys": keys}


def _plain(value: Any) -> dict[str, Any]:
    """Return a policy's modality configuration as a map of lists."""
    given = asdict(value) if is_dataclass(value) and not isinstance(value, type) else dict(value)
    return _modality([int(index) for index in given["delta_indices"]], [str(key) for key in given["modality_keys"]])
