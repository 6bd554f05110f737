"""openpi's websocket protocol: the server says its metadata first, then answers each observation with a chunk.

Source: Physical-Intelligence/openpi ``src/openpi/serving/websocket_policy_server.py``, openpi-client 0.1.2.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from fastapi import WebSocket

from ..core import fields
from ..core.client_conventions import OPENPI as OPENPI_CLIENT
from ..core.client_conventions import action_conversion, camera_keys
from ..core.decoding import decode
from ..core.questions import Act
from ..core.refusal import Refusal, bad_field
from ..core.service import ActionService
from ..wire.arrays import WireError
from ..wire.codecs import OPENPI
from ..wire.pictures import PixelBudget
from .conversation import Conversation, Gone
from .forms import foreign_observation, foreign_state

_EPISODES = 256
"""Most episodes of one connection whose names are kept."""

_STATE = ("observation/state", "state")


async def serve_openpi(websocket: WebSocket, service: ActionService) -> None:
    """Talk to one client until it leaves. An error is a text message, and the end of the connection."""
    await websocket.accept()
    conversation = Conversation(websocket)
    client = service.new_name("openpi")
    convert = action_conversion(OPENPI_CLIENT, service.policy.spec)
    previous: float | None = None
    played: OrderedDict[str, int] = OrderedDict()
    try:
        await conversation.send(OPENPI.pack(service.metadata()))
        while True:
            data = await conversation.receive()
            started = time.perf_counter()
            question = await decode(len(data), partial(_read, data, service, client, played))
            _note(question.observation.episode, played, service, client)
            asked = time.perf_counter()
            work = service.answer_remembering([question], "openpi", client)
            (chunk,), memories = await conversation.unless_gone(work)
            timing = {"infer_ms": 1000 * (time.perf_counter() - asked)}
            if previous is not None:
                timing["prev_total_ms"] = 1000 * previous
            reply = {"actions": convert(chunk), "server_timing": timing}
            if question.observation.episode != client:  # the episode has a name: it is one of our clients
                reply |= service.memory_entries(memories)
            await conversation.send(OPENPI.pack(reply))
            previous = time.perf_counter() - started
    except Gone:
        pass
    except Refusal as refusal:
        try:
            await conversation.send(refusal.sentence)
            await websocket.close(1013 if refusal.status == 503 else 1011)
        except Gone:
            pass
    finally:
        conversation.close()
        for episode in played:
            service.end_episode(episode, client)


def _note(episode: str, played: OrderedDict[str, int], service: ActionService, client: str) -> None:
    """Count a question of ``episode``; of many episodes of one connection the longest silent one ends."""
    played[episode] = played.get(episode, 0) + 1
    played.move_to_end(episode)
    while len(played) > _EPISODES:
        service.end_episode(played.popitem(last=False)[0], client)


def _read(
    data: bytes | str, service: ActionService, client: str, played: Mapping[str, int], pixels: PixelBudget
) -> Act:
    """Return the question in a message; raises Refusal.

    played: the connection's episodes and how many questions each has asked. openpi's clients name neither; ours do,
    in ``episode`` and ``step``.
    """
    try:
        message = OPENPI.unpack(data)
    except WireError as error:
        raise Refusal(400, str(error)) from None
    if not isinstance(message, dict) or not all(isinstance(key, str) for key in message):
        raise Refusal(422, "The message is no map with text keys.")
    spec = service.policy.spec
    episode = fields.text(message, "episode", client)
    step = fields.count(message, "step") if "step" in message else played.get(episode, 0)
    keys = camera_keys(OPENPI_CLIENT, spec, list(OPENPI_CLIENT.cameras))
    observation = foreign_observation(
        service,
        OPENPI_CLIENT,
        {camera: _image(message, camera, keys.get(camera, camera), pixels) for camera in spec.cameras},
        foreign_state(message, _STATE[1] if _STATE[0] not in message and _STATE[1] in message else _STATE[0], spec),
        fields.text(message, "prompt", ""),
        episode,
        step,
    )
    return Act(observation)


def _image(message: Mapping[str, Any], camera: str, key: str, pixels: PixelBudget) -> np.ndarray:
    """Return a camera's image under its own name, the client's name for it, or in the map ``images``."""
    names = (f"observation/{camera}", f"observation/{key}")
    field = name = next((name for name in names if name in message), names[-1])
    if name not in message and isinstance(images := message.get("images"), dict) and camera in images:
        message, name, field = images, camera, f"images/{camera}"
    parsed = {name: parse_image(message[name], field)} if name in message else {}
    return fields.image(parsed, name, field, pixels)


def parse_image(value: Any, field: str) -> Any:
    """Return an image as openpi's ``LiberoInputs`` reads it: floats times 255 cut to uint8, channels moved last.

    Raises Refusal for floats beyond [0, 1], which that would wrap around. What is no array stays as it is.
    """
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.kind == "f":
        if not (value.size and value.min() >= 0 and value.max() <= 1):  # false for nan, too
            raise bad_field(field, "expected floats in [0, 1] or uint8.")
        value = (255 * value).astype(np.uint8)
    return np.moveaxis(value, 0, -1) if value.ndim == 3 and value.shape[0] == 3 else value
