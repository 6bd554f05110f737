"""openpi's websocket protocol: the server says its metadata first, then answers each observation with a chunk.

Source: Physical-Intelligence/openpi ``src/openpi/serving/websocket_policy_server.py``, openpi-client 0.1.2.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from fastapi import WebSocket

from vla_harness.conventions import Adapter
from vla_harness.types import DELTA_EEF_POSE, EnvironmentSpec, PolicySpec

from ..core import fields
from ..core.questions import Act, state_length
from ..core.refusal import Refusal
from ..core.service import ActionService
from ..wire.arrays import WireError
from ..wire.codecs import OPENPI
from .conversation import Conversation, Gone
from .forms import foreign_observation

_KEYS = ("observation/image", "observation/wrist_image")
"""What LIBERO's clients call the first and the second camera."""


async def serve_openpi(websocket: WebSocket, service: ActionService) -> None:
    """Talk to one client until it leaves. An error is a text message, and the end of the connection."""
    await websocket.accept()
    conversation = Conversation(websocket)
    client = service.new_name("openpi")
    convert = _libero_actions(service.policy.spec)
    previous: float | None = None
    played: dict[str, int] = {}
    try:
        await conversation.send(OPENPI.pack(service.metadata()))
        while True:
            data = await conversation.receive()
            started = time.perf_counter()
            observation = _read(data, service, client, played)
            asked = time.perf_counter()
            work = service.answer([Act(observation)], "openpi", client)
            (chunk,) = await conversation.unless_gone(work)
            timing = {"infer_ms": 1000 * (time.perf_counter() - asked)}
            if previous is not None:
                timing["prev_total_ms"] = 1000 * previous
            actions = chunk if convert is None else convert.actions(chunk)
            await conversation.send(OPENPI.pack({"actions": actions, "server_timing": timing}))
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


def _read(data: bytes | str, service: ActionService, client: str, played: dict[str, int]) -> Any:
    """Return the observation in a message; raises Refusal.

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
    observation = foreign_observation(
        service,
        {camera: _image(message, camera, number) for number, camera in enumerate(spec.cameras)},
        _state(message, spec),
        fields.text(message, "prompt", ""),
        episode,
        step,
    )
    played[episode] = played.get(episode, 0) + 1
    return observation


def _image(message: Mapping[str, Any], camera: str, number: int) -> np.ndarray:
    keys = (f"observation/{camera}", *_KEYS[number : number + 1])
    key = next((key for key in keys if key in message), keys[-1])
    if key not in message and isinstance(images := message.get("images"), dict) and camera in images:
        return fields.image(images, camera, f"images/{camera}")
    return fields.image(message, key)


def _state(message: Mapping[str, Any], spec: PolicySpec) -> np.ndarray:
    if not spec.state_keys:
        return np.zeros(0, np.float32)
    key = "state" if "observation/state" not in message and "state" in message else "observation/state"
    return fields.vector(message, key, state_length(spec))


def _libero_actions(spec: PolicySpec) -> Adapter | None:
    """Return what turns actions into LIBERO's, which openpi's clients step the environment with as they come.

    None for absolute poses: no LIBERO client takes them, so the client is of a robot that takes the policy's own.
    """
    if spec.action.mode != "delta":
        return None
    libero = EnvironmentSpec(spec.cameras, {}, DELTA_EEF_POSE, 20.0)
    return Adapter(libero, replace(spec, state_keys=(), state_lengths=()), "openpi's LIBERO client")
