"""Our client against other projects' servers: vla-eval's own, and openpi's and GR00T's as their sources have them."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import anyio
import numpy as np
import pytest
import zmq
from openpi_client import msgpack_numpy
from scipy.spatial.transform import Rotation
from vla_eval.model_servers.base import SessionContext
from vla_eval.model_servers.predict import PredictModelServer
from vla_eval.model_servers.serve import serve_async
from vla_eval.rotation import quat_to_axisangle
from vla_eval.specs import (
    GRIPPER_CLOSE_POS,
    GRIPPER_RAW,
    IMAGE_RGB,
    LANGUAGE,
    POSITION_DELTA,
    ROTATION_AA,
    STATE_EEF_POS_AA_GRIP,
    DimSpec,
)
from websockets.asyncio.server import ServerConnection, serve

from tests.servers.toys import observation
from vla_harness import Observation
from vla_harness.conventions import Adapter, orient
from vla_harness.envs.libero.environment import INTERFACE
from vla_harness.errors import ConventionError
from vla_harness.servers.remote.policy import RemotePolicy
from vla_harness.servers.wire.codecs import GROOT
from vla_harness.types import ActionConvention


class ModelServer(PredictModelServer):
    """Answers with the mean of the first image, in chunks of two."""

    gripper = GRIPPER_CLOSE_POS
    params: Mapping[str, Any] = {"send_state": True}

    def __init__(self) -> None:
        super().__init__(chunk_size=2)
        self.seen: list[Any] = []

    def predict(self, obs: Any, ctx: SessionContext) -> Any:
        self.seen.append((obs, ctx.episode_id, ctx.step))
        mean = obs["images"]["agentview"].mean() / 255
        return {"actions": np.stack([np.full(7, mean), np.full(7, -mean)])}

    def get_action_spec(self) -> dict[str, DimSpec]:
        return {"position": POSITION_DELTA, "rotation": ROTATION_AA, "gripper": self.gripper}

    def get_observation_spec(self) -> dict[str, DimSpec]:
        return {"agentview": IMAGE_RGB, "language": LANGUAGE, "state": STATE_EEF_POS_AA_GRIP}

    def get_observation_params(self) -> dict[str, Any]:
        return dict(self.params)


@contextmanager
def in_thread(run: Callable[[Callable[[int], None], asyncio.Event], Any]) -> Iterator[int]:
    """Run an asyncio server in a thread until the block is left; yields its port."""
    known: queue.SimpleQueue[Any] = queue.SimpleQueue()

    async def whole() -> None:
        leave = asyncio.Event()
        known.put((asyncio.get_running_loop(), leave))
        await run(known.put, leave)

    thread = threading.Thread(target=lambda: asyncio.run(whole()))
    thread.start()
    loop, leave = known.get(timeout=30)
    try:
        yield known.get(timeout=30)
    finally:
        loop.call_soon_threadsafe(leave.set)
        thread.join(20)


async def vla_eval(server: ModelServer, announce: Callable[[int], None], leave: asyncio.Event) -> None:
    async with anyio.create_task_group() as group:
        announce(await group.start(serve_async, server, "127.0.0.1", 0))
        await leave.wait()
        group.cancel_scope.cancel()


def test_vla_evals_own_model_server() -> None:
    server = ModelServer()
    with in_thread(lambda announce, leave: vla_eval(server, announce, leave)) as port:
        remote = RemotePolicy(f"ws://127.0.0.1:{port}", patience_s=10)
        assert (remote.spec.cameras, remote.spec.horizon, remote.spec.name) == (("agentview",), 1, "ModelServer")
        Adapter(INTERFACE, remote.spec, "libero/spatial")  # they fit
        mean = np.float32(observation().images["agentview"].mean() / 255)
        actions = [remote.act([observation()])[0, 0, 0] for _ in range(2)]
        np.testing.assert_allclose(actions, [mean, -mean], rtol=1e-6)
        remote.forget(observation().episode)
        np.testing.assert_allclose(remote.act([observation()])[0, 0, 0], mean, rtol=1e-6)  # a new episode, a new chunk
        remote.forget(observation().episode)
    sent = server.seen[0][0]
    np.testing.assert_array_equal(
        sent["images"]["agentview"], orient(observation().images["agentview"], "upright", "mirrored")
    )
    np.testing.assert_allclose(sent["states"], without_sign(observation().state), atol=1e-6)
    assert sent["task_description"] == "open the drawer" and server.seen[0][1] != server.seen[1][1]


def without_sign(state: np.ndarray) -> np.ndarray:
    """As vla-eval's LIBERO benchmark sends the rotation unless ``quat_no_antipodal`` is asked for."""
    rotation = Rotation.from_rotvec(state[3:6]).as_quat(canonical=True)
    return np.concatenate([state[:3], quat_to_axisangle(rotation), state[6:]])


@pytest.mark.parametrize("asked", [True, False])
def test_rotations_beyond_pi_go_to_model_servers_as_they_ask(asked: bool) -> None:
    server = ModelServer()
    server.params = {"send_state": True} | ({"quat_no_antipodal": True} if asked else {})
    seen = observation()
    state = np.array([0.1, 0.2, 0.3, 3.0, 0.0, 1.5, 0.04, -0.04], np.float32)  # 3.35 radians
    with in_thread(lambda announce, leave: vla_eval(server, announce, leave)) as port:
        remote = RemotePolicy(f"ws://127.0.0.1:{port}", patience_s=10)
        remote.act([Observation(seen.images, state, seen.instruction, "one", 0)])
        remote.forget("one")
    np.testing.assert_allclose(server.seen[0][0]["states"], state if asked else without_sign(state), atol=1e-6)
    assert asked or np.linalg.norm(server.seen[0][0]["states"][3:6]) < np.pi


def test_a_model_server_that_does_not_say_what_its_gripper_means_is_refused() -> None:
    server = ModelServer()
    server.gripper = GRIPPER_RAW
    with (
        in_thread(lambda announce, leave: vla_eval(server, announce, leave)) as port,
        pytest.raises(ConventionError, match="'gripper': 'raw'"),
    ):
        RemotePolicy(f"ws://127.0.0.1:{port}", patience_s=10)


def test_openpis_server() -> None:
    seen: list[dict[str, Any]] = []

    async def handle(websocket: ServerConnection) -> None:
        await websocket.send(msgpack_numpy.packb({"any": "thing"}))
        async for data in websocket:
            seen.append(msgpack_numpy.unpackb(data))
            await websocket.send(msgpack_numpy.packb({"actions": np.full((10, 7), len(seen), np.float64)}))

    async def run(announce: Callable[[int], None], leave: asyncio.Event) -> None:
        async with serve(handle, "127.0.0.1", 0, compression=None, max_size=None) as server:
            announce(next(iter(server.sockets)).getsockname()[1])
            await leave.wait()

    with in_thread(run) as port:
        remote = RemotePolicy(f"ws://127.0.0.1:{port}", patience_s=10)
        assert remote.spec.horizon == 10 and remote.provenance["server_metadata"] == {"any": "thing"}
        Adapter(INTERFACE, remote.spec, "libero/spatial")
        np.testing.assert_array_equal(remote.act([observation()]), np.full((1, 10, 7), 2, np.float32))
        remote.forget(observation().episode)
    assert sorted(seen[1]) == ["observation/image", "observation/state", "observation/wrist_image", "prompt"]
    assert seen[1]["observation/image"].shape == (224, 224, 3)


def test_groots_server_with_liberos_names() -> None:
    state = ["x", "y", "z", "roll", "pitch", "yaw", "gripper"]
    config = {
        "video": {"delta_indices": [0], "modality_keys": ["video.image", "video.wrist_image"]},
        "state": {"delta_indices": [0], "modality_keys": [f"state.{key}" for key in state]},
        "action": {"delta_indices": [0, 1], "modality_keys": [f"action.{key}" for key in state]},
        "language": {"delta_indices": [0], "modality_keys": ["annotation.human.action.task_description"]},
    }
    asked: list[dict[str, Any]] = []

    def answer(socket: zmq.Socket[bytes]) -> None:
        for reply in (config, {f"action.{key}": np.full((2, 1), i, np.float32) for i, key in enumerate(state)}):
            asked.append(GROOT.unpack(socket.recv()))
            socket.send(GROOT.pack(reply))

    with zmq.Context() as context, context.socket(zmq.REP) as socket:
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        thread = threading.Thread(target=answer, args=(socket,))
        thread.start()
        remote = RemotePolicy(f"tcp://127.0.0.1:{port}", patience_s=10)
        Adapter(INTERFACE, remote.spec, "libero/spatial")
        np.testing.assert_array_equal(remote.act([observation()]), [[list(range(7))] * 2])
        thread.join(10)
    data = asked[1]["data"]
    assert data["annotation.human.action.task_description"] == ["open the drawer"]
    assert data["video.image"].shape == (1, 32, 32, 3) and data["state.gripper"].shape == (1, 2)
    action = remote.spec.action
    assert isinstance(action, ActionConvention) and action.gripper_open == 1.0 and action.gripper_binary
