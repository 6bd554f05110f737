"""vla-eval's websocket protocol, version 1: the client speaks first, and gets one action for each observation.

Source: vla-eval 0.8.0 ``protocol/messages.py``, ``model_servers/serve.py``.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from fastapi import WebSocket

from vla_harness import __version__
from vla_harness.types import ActionConvention, JointConvention, Observation, PolicySpec

from ..core import fields
from ..core.client_conventions import LIBERO_STATE, BinaryGripper, action_conversion, fits_libero, sent_state
from ..core.client_conventions import VLA_EVAL as VLA_EVAL_CLIENT
from ..core.decoding import decode
from ..core.questions import Act
from ..core.refusal import Refusal, bad_field
from ..core.service import ActionService
from ..wire.arrays import WireError
from ..wire.codecs import VLA_EVAL
from ..wire.pictures import PixelBudget
from .conversation import Conversation, Gone
from .forms import foreign_observation, foreign_state

PROTOCOL_VERSION = 1
GRIPPERS = {  # (open, closed) -> vla-eval's name
    (-1.0, 1.0): "binary_close_positive",
    (1.0, -1.0): "binary_close_negative",
    (0.0, 1.0): "binary_close_01",
    (1.0, 0.0): "continuous_01",
}
ROTATIONS = {"axis_angle": "axis_angle", "euler_xyz": "euler_xyz", "quat_xyzw": "quaternion_xyzw", "rot6d": "rot6d"}


async def serve_vla_eval(websocket: WebSocket, service: ActionService) -> None:
    """Talk to one client until it leaves. An error is a message of that type, and the connection stays."""
    await websocket.accept()
    conversation = Conversation(websocket)
    client = _Client(service, conversation)
    try:
        while True:
            data = await conversation.receive()
            try:
                kind, payload, seq = await decode(len(data), partial(_envelope, data))
            except Refusal as refusal:
                await conversation.send(_pack("error", {"error": refusal.sentence}, 0))
                continue
            try:
                reply = await client.handle(kind, payload, len(data))
            except Refusal as refusal:
                reply = "error", {"error": refusal.sentence}
            if reply is not None:
                await conversation.send(_pack(*reply, seq))
    except Gone:
        pass
    finally:
        conversation.close()
        client.end_episode()


class _Client:
    """One connection: the episode it plays and the actions that are left of its chunk."""

    def __init__(self, service: ActionService, conversation: Conversation) -> None:
        self._service, self._conversation = service, conversation
        self._name = self._episode = service.new_name("vla-eval")
        self._left: deque[np.ndarray] = deque()
        self._convert = action_conversion(VLA_EVAL_CLIENT, service.policy.spec)
        self._begin()

    async def handle(self, kind: str, payload: Mapping[str, Any], size: int) -> tuple[str, dict[str, Any]] | None:
        """Return the reply's type and payload, or None when there is none; raises Refusal. size: of the message."""
        match kind:
            case "hello":
                return "hello", _hello(self._service)
            case "episode_start":
                self.end_episode()
                self._episode = fields.text(payload, "episode", "") or self._service.new_name("vla-eval")
                return None
            case "observation":
                return "action", {"actions": await self._action(payload, size)}
            case "episode_end":
                self.end_episode()
                return None
            case "error":
                return None
        raise bad_field("type", "expected hello, observation, episode_start, episode_end or error.")

    def end_episode(self) -> None:
        """Forget the present episode."""
        self._service.end_episode(self._episode, self._name)
        self._begin()

    def _begin(self) -> None:
        self._left.clear()
        self._step = 0
        holds = VLA_EVAL_CLIENT.gripper_holds or not fits_libero(self._service.policy.spec)
        self._gripper = None if holds else BinaryGripper(VLA_EVAL_CLIENT.action)

    async def _action(self, payload: Mapping[str, Any], size: int) -> np.ndarray:
        if not self._left:
            observation = await decode(size, lambda pixels: self._observation(payload, pixels))
            work = self._service.answer([Act(observation)], "vla-eval", self._name)
            (chunk,) = await self._conversation.unless_gone(work)
            self._left.extend(self._convert(chunk))
        self._step += 1
        action = self._left.popleft()
        return action if self._gripper is None else self._gripper(action)

    def _observation(self, payload: Mapping[str, Any], pixels: PixelBudget) -> Observation:
        spec = self._service.policy.spec
        images = fields.table(payload, "images") if spec.cameras else {}
        key = "state" if "states" not in payload and "state" in payload else "states"
        return foreign_observation(
            self._service,
            VLA_EVAL_CLIENT,
            {camera: fields.image(images, camera, f"images.{camera}", pixels) for camera in spec.cameras},
            foreign_state(payload, key, spec),
            fields.text(payload, "task_description", ""),
            self._episode,
            self._step,
        )


def _envelope(data: bytes | str, _: PixelBudget) -> tuple[str, Mapping[str, Any], int]:
    """Return a message's type, payload and number; raises Refusal."""
    try:
        message = VLA_EVAL.unpack(data)
    except WireError as error:
        raise Refusal(400, str(error)) from None
    if not isinstance(message, dict):
        raise Refusal(422, "The message is no msgpack map.")
    kind, payload, seq = (fields.entry(message, key, "it") for key in ("type", "payload", "seq"))
    fields.entry(message, "timestamp", "seconds")
    if not isinstance(kind, str) or not isinstance(payload, dict) or type(seq) is not int:
        raise Refusal(422, "type, payload, seq: expected a text, a map and an integer.", "type")
    return kind, payload, seq


def _pack(kind: str, payload: Mapping[str, Any], seq: int) -> bytes:
    return VLA_EVAL.pack({"type": kind, "payload": payload, "seq": seq, "timestamp": time.time()})


def _hello(service: ActionService) -> dict[str, Any]:
    spec = service.policy.spec
    libero = fits_libero(spec)
    sent, _ = sent_state(spec)
    wishes: dict[str, Any] = {"send_wrist_image": "wrist" in spec.cameras, "send_state": bool(spec.state_keys)}
    if sent == LIBERO_STATE:
        wishes["quat_no_antipodal"] = True  # else a rotation beyond pi arrives as its opposite
    action = VLA_EVAL_CLIENT.action if libero else spec.action
    return {
        "harness_version": f"vla-harness {__version__}",
        "protocol_version": PROTOCOL_VERSION,
        "model_server": spec.name,
        "capabilities": {},
        "observation_params": wishes,
        "action_spec": _action_spec(action),
        "observation_spec": _observation_spec(spec, sent),
        "evaluation_protocol": spec.protocol,  # ours alone; vla-eval passes over it
    }


def _action_spec(action: ActionConvention | JointConvention) -> dict[str, Any]:
    """Return the action's convention in vla-eval's words, so that its harness warns when they do not fit."""
    if isinstance(action, JointConvention) or action.arms > 1 or not math.isfinite(action.translation_unit):
        return {"actions": {"name": "raw", "dims": 0, "format": "raw"}}
    gripper = GRIPPERS.get((action.gripper_open, action.gripper_closed), "raw")
    return {
        "position": {"name": "position", "dims": 3, "format": f"{action.mode}_xyz"},
        "rotation": {"name": "rotation", "dims": action.dim - 4, "format": ROTATIONS.get(action.rotation, "raw")},
        "gripper": {"name": "gripper", "dims": 1, "format": gripper},
    }


def _observation_spec(spec: PolicySpec, sent: tuple[str, ...]) -> dict[str, Any]:
    described = {camera: {"name": "image", "dims": 0, "format": "rgb_hwc_uint8"} for camera in spec.cameras}
    described["language"] = {"name": "language", "dims": 0, "format": "language"}
    if sent == LIBERO_STATE:
        described["state"] = {"name": "state", "dims": 8, "format": "eef_pos3_axisangle3_gripper2"}
    elif sent:
        described["state"] = {"name": "raw", "dims": 0, "format": "raw"}
    return described
