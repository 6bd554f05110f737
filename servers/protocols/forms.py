"""The bodies of ``POST /act``: our own form, OpenVLA's, OpenVLA-OFT's and GR00T's, told apart by their keys.

Sources: openvla/openvla ``vla-scripts/deploy.py``, moojink/openvla-oft ``vla-scripts/deploy.py``,
NVIDIA/Isaac-GR00T ``gr00t/eval/http_server.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vla_harness.conventions import orient
from vla_harness.types import Observation, PolicySpec

from ..core import fields
from ..core.client_conventions import (
    OPENVLA,
    OPENVLA_OFT,
    ClientConvention,
    action_conversion,
    camera_keys,
    convert_state,
    sent_state,
)
from ..core.images import fit
from ..core.questions import Act, PredictAction, PredictActions, Question, RawActions, RawChunks, state_length
from ..core.refusal import Refusal, bad_field
from ..core.service import ActionService
from ..wire.arrays import WireError
from ..wire.codecs import unpack_json
from ..wire.pictures import PixelBudget


@dataclass(frozen=True)
class Request:
    """A request, read and checked.

    reply: makes the reply's value of the answers: arrays, or lists and maps of them.
    session: the client, for policies with a memory. fleeting: episodes that end with this request.
    double_encoded: the client wants JSON within JSON.
    """

    protocol: str
    questions: Sequence[Question]
    reply: Callable[[list[Any]], Any]
    session: str = ""
    fleeting: tuple[str, ...] = ()
    double_encoded: bool = False


async def answer(request: Request, service: ActionService) -> Any:
    """Return the reply's value; raises Refusal. Our own clients also learn in what memory each episode was."""
    try:
        answers, memories = await service.answer_remembering(request.questions, request.protocol, request.session)
        value = request.reply(answers)
        return value | service.memory_entries(memories) if request.protocol == "native" else value
    finally:
        for episode in request.fleeting:
            service.end_episode(episode, request.session)


def read_request(message: Any, service: ActionService, pixels: PixelBudget | None = None) -> Request:
    """Return the request that the decoded ``message`` is; raises Refusal. pixels: what all its images may have."""
    pixels = pixels or PixelBudget()
    if not isinstance(message, dict):
        raise Refusal(422, f"The body is {fields.describe(message)}: send a map of fields.")
    if "encoded" in message:
        return _double_encoded(message, service, pixels)
    if "observations" in message:
        return _native(message, service, pixels)
    if "observation" in message:
        from .groot_forms import read_groot  # it builds on this module

        return read_groot(fields.table(message, "observation"), service, message, pixels)
    if "full_image" in message:
        return _oft(message, service, pixels)
    return _openvla(message, service, pixels)


def _double_encoded(message: Mapping[str, Any], service: ActionService, pixels: PixelBudget) -> Request:
    """Read what clients without json_numpy send: the JSON as a string, as the only key."""
    if len(message) > 1:
        raise bad_field("encoded", "expected it to be the only field.")
    value = fields.entry(message, "encoded", "JSON")
    if not isinstance(value, str | bytes):
        raise bad_field("encoded", f"expected JSON as a text, got {fields.describe(value)}.")
    try:
        inner, _ = unpack_json(value)
    except WireError as error:
        raise bad_field("encoded", str(error)) from None
    if isinstance(inner, dict) and "encoded" in inner:
        raise bad_field("encoded", "expected the request itself, not one more encoding.")
    return replace(read_request(inner, service, pixels), double_encoded=True)


def _native(message: Mapping[str, Any], service: ActionService, pixels: PixelBudget) -> Request:
    """Read our own client's form: ``Observation`` field by field, images upright, any number of them."""
    given = fields.entry(message, "observations", "a list of observations")
    limit = service.settings.max_queue
    if not isinstance(given, list) or not 0 < len(given) <= limit or not all(isinstance(o, dict) for o in given):
        raise bad_field("observations", f"expected a list of 1 to {limit} maps, got {fields.describe(given)}.")
    questions = [_native_question(one, service, f"observations.{n}.", pixels) for n, one in enumerate(given)]
    return Request(
        "native", questions, lambda answers: {"actions": np.stack(answers)}, fields.text(message, "session", "")
    )


def _native_question(given: Mapping[str, Any], service: ActionService, where: str, pixels: PixelBudget) -> Act:
    spec = service.policy.spec
    try:
        images = fields.table(given, "images") if spec.cameras else {}
        length = state_length(spec)
        state = fields.vector(given, "state", length) if spec.state_keys else np.zeros(0, np.float32)
        frames = {camera: fields.image(images, camera, f"images.{camera}", pixels) for camera in spec.cameras}
        observation = Observation(
            {camera: fit(frame, spec.image_size) for camera, frame in frames.items()},
            state,
            fields.text(given, "instruction"),
            fields.text(given, "episode"),
            fields.count(given, "step"),
        )
    except Refusal as refusal:
        raise bad_field(where + refusal.field, refusal.sentence.partition(": ")[2]) from None
    return Act(observation)


def foreign_observation(
    service: ActionService,
    client: ClientConvention,
    images: Mapping[str, np.ndarray],
    state: np.ndarray,
    instruction: str,
    episode: str,
    step: int,
) -> Observation:
    """Return another project's client's observation: camera -> image as it lies there, and the policy's state."""
    size, lies = service.policy.spec.image_size, service.images_of(client)
    upright = {camera: fit(orient(frame, lies, "upright"), size) for camera, frame in images.items()}
    return Observation(upright, state, instruction, episode, step)


def foreign_state(message: Mapping[str, Any], key: str, spec: PolicySpec) -> np.ndarray:
    """Return the policy's state, float32, of what a client of another project sent; raises Refusal.

    ``state_keys`` beside it says that the parts are the policy's own; otherwise see ``sent_state``.
    """
    if not spec.state_keys:
        return np.zeros(0, np.float32)
    parts, length = sent_state(spec)
    if (named := message.get("state_keys")) is not None:
        if named != list(spec.state_keys):
            raise bad_field("state_keys", f"expected {list(spec.state_keys)}, which the policy reads.")
        parts, length = spec.state_keys, state_length(spec)
    return convert_state(fields.vector(message, key, length), parts, spec)


def episode_of(message: Mapping[str, Any], service: ActionService, protocol: str) -> tuple[str, tuple[str, ...]]:
    """Return the episode a stateless form names in its optional field ``session``, else one of its own, and
    the episodes that end with the request."""
    named = fields.text(message, "session", "")
    episode = named or service.new_name(protocol)
    return episode, () if named else (episode,)


def _openvla(message: Mapping[str, Any], service: ActionService, pixels: PixelBudget) -> Request:
    """Read OpenVLA's form: one image, an instruction, perhaps an unnorm_key; the reply is one action."""
    policy = service.policy
    image = fields.image(message, "image", pixels=pixels)
    instruction = fields.text(message, "instruction")
    if isinstance(policy, RawActions):
        question = PredictAction(image, instruction, _unnorm_key(message, service))
        return Request("openvla", [question], lambda answers: answers[0])
    return _chunk(message, service, "openvla", OPENVLA, {"image": image}, lambda actions: actions[0])


def _oft(message: Mapping[str, Any], service: ActionService, pixels: PixelBudget) -> Request:
    """Read OpenVLA-OFT's form: the flat observation; the reply is a list of actions."""
    names = ["full_image", *(key for key in message if "wrist" in key)]
    images = {key: fields.image(message, key, pixels=pixels) for key in names}
    spec = service.policy.spec
    if isinstance(service.policy, RawChunks):
        _check_images(images, spec)
        state = fields.vector(message, "state", state_length(spec)) if spec.state_keys else None
        words, key = fields.text(message, "instruction"), _unnorm_key(message, service)
        question = PredictActions(list(images.values())[: len(spec.cameras)], words, state, key)
        return Request("openvla-oft", [question], lambda answers: list(answers[0]))
    return _chunk(message, service, "openvla-oft", OPENVLA_OFT, images, list)


def _unnorm_key(message: Mapping[str, Any], service: ActionService) -> str | None:
    key = fields.text(message, "unnorm_key", "") or None
    if key is None and service.settings.openvla_compat and len(service.unnorm_keys) > 1:
        raise bad_field("unnorm_key", f"missing; send one of {', '.join(service.unnorm_keys)}.")
    return key


def _check_images(images: Collection[Any], spec: PolicySpec) -> None:
    if len(images) < len(spec.cameras):
        wanted = ", ".join(["full_image", "wrist_image", "second_wrist_image"][: len(spec.cameras)])
        raise bad_field(wanted, f"the policy {spec.name!r} sees {', '.join(spec.cameras)}; send as many images.")


def _chunk(
    message: Mapping[str, Any],
    service: ActionService,
    protocol: str,
    client: ClientConvention,
    images: Mapping[str, np.ndarray],
    reply: Callable[[np.ndarray], Any],
) -> Request:
    """Return the request of a form that says neither which camera an image is of, nor what the state's parts are.

    reply: makes the reply's value of the (horizon, dim) float64 actions that the client expects.
    """
    spec = service.policy.spec
    seen = {camera: images[key] for camera, key in camera_keys(client, spec, list(images)).items() if key in images}
    _check_images(seen, spec)
    episode, fleeting = episode_of(message, service, protocol)
    observation = foreign_observation(
        service,
        client,
        seen,
        foreign_state(message, "state", spec),
        fields.text(message, "instruction"),
        episode,
        fields.count(message, "step"),
    )
    convert = action_conversion(client, spec)
    return Request(
        protocol,
        [Act(observation)],
        lambda answers: reply(convert(answers[0]).astype(np.float64)),
        fleeting=fleeting,
    )
