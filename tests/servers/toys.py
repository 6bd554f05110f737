"""Small policies behind real servers on real sockets."""

from __future__ import annotations

import socket
import ssl
import threading
import time
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import requests

from vla_harness.errors import UserError
from vla_harness.servers.action_server import ActionServer, Server
from vla_harness.servers.client import observation as told
from vla_harness.servers.core.service import ActionService, ServiceSettings
from vla_harness.servers.wire.codecs import VLA_EVAL
from vla_harness.types import DELTA_EEF_POSE, Observation, Policy, PolicySpec

ANYONE = ssl._create_unverified_context()  # the tests' certificates are their own
STATE = ("eef_pos", "eef_axis_angle", "gripper_qpos")


class LookingPolicy(Policy):
    """Its actions depend on every byte of the observation, so that whatever gets lost on the way shows.

    It takes ``seconds`` a call, notes the sizes of its batches, and fails on the instruction "break".
    """

    def __init__(self, seconds: float = 0.0, horizon: int = 3, max_batch: int = 8) -> None:
        self.spec = PolicySpec(
            "looking",
            DELTA_EEF_POSE,
            cameras=("agentview", "wrist"),
            image_orientation="mirrored",
            state_keys=STATE,
            horizon=horizon,
            max_batch=max_batch,
        )
        self.seconds = seconds
        self.batches: list[int] = []
        self.seen: list[Observation] = []

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        time.sleep(self.seconds)
        self.batches.append(len(observations))
        self.seen += observations
        return np.stack([self.one(seen) for seen in observations])

    def one(self, seen: Observation) -> np.ndarray:
        if seen.instruction == "break":
            raise RuntimeError("secret path /home/somebody")
        if seen.instruction == "mend":
            raise UserError("The instruction cannot be carried out: give another one.")
        parts = [frame.tobytes() for _, frame in sorted(seen.images.items())]
        parts += [seen.state.tobytes(), seen.instruction.encode(), seen.episode.encode(), bytes([seen.step % 256])]
        draw = np.random.default_rng([zlib.crc32(part) for part in parts])
        return draw.uniform(-1, 1, (self.spec.horizon, 7)).astype(np.float32)


class RememberingPolicy(LookingPolicy):
    """Counts the questions of each episode, and answers with that number."""

    def __init__(self) -> None:
        super().__init__(horizon=1)
        self.counts: dict[str, int] = {}
        self.forgotten: list[str] = []

    def one(self, seen: Observation) -> np.ndarray:
        self.counts[seen.episode] = self.counts.get(seen.episode, 0) + 1
        return np.full((1, 7), self.counts[seen.episode], np.float32)

    def forget(self, episode: str) -> None:
        self.counts.pop(episode, None)
        self.forgotten.append(episode)


class Gr00tLikePolicy(Policy):
    """Answers like the server whose frames are in tests/data/wire: five joints at 0.5, perhaps a gripper at 0."""

    def __init__(self, gripper: bool = True) -> None:
        self._gripper = gripper
        self.spec = PolicySpec("gr00t-like", DELTA_EEF_POSE, cameras=("front",), state_keys=("single_arm",), horizon=16)
        self.asked: list[Mapping[str, Any]] = []

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        return np.zeros((len(observations), 16, 7), np.float32)

    def get_action(self, observation: Mapping[str, Any]) -> dict[str, np.ndarray]:
        self.asked.append(observation)
        if "state.single_arm" not in observation:
            raise UserError("The observation lacks state.single_arm.")
        batch = observation["state.single_arm"].shape[:-2]
        joints = {"action.single_arm": np.full((*batch, 16, 5), 0.5, np.float32)}
        return joints | ({"action.gripper": np.zeros((*batch, 16, 1), np.float32)} if self._gripper else {})

    def get_modality_config(self) -> dict[str, dict[str, list[Any]]]:
        return {
            "video": {"delta_indices": [0], "modality_keys": ["video.front"]},
            "state": {"delta_indices": [0], "modality_keys": ["state.single_arm"]},
            "action": {"delta_indices": list(range(16)), "modality_keys": ["action.single_arm"]},
            "language": {"delta_indices": [0], "modality_keys": ["annotation.human.task_description"]},
        }


class RawPolicy(LookingPolicy):
    """Also answers as OpenVLA does: with what it saw."""

    def predict_action(self, image: np.ndarray, instruction: str, unnorm_key: str | None = None) -> np.ndarray:
        if unnorm_key != "bridge_orig":
            raise UserError(f"There is no unnorm_key {unnorm_key!r}: choose bridge_orig.")
        return np.array([*image[0, 0], *image.shape, len(instruction)], np.float64)


class RawChunkPolicy(LookingPolicy):
    """Also answers as OpenVLA-OFT does: with what it saw."""

    def predict_actions(
        self,
        images: Sequence[np.ndarray],
        instruction: str,
        state: np.ndarray | None = None,
        unnorm_key: str | None = None,
    ) -> np.ndarray:
        assert state is not None
        return np.array([[*images[0][0, 0], *images[1][0, 0], state[0]]] * 8, np.float64)


@contextmanager
def serving(policy: Policy, token: str | None = None, **options: Any) -> Iterator[Server]:
    """Serve ``policy`` on ports of this machine, free ones unless ``port`` says which, until the block is left.

    The server is ready when the block begins.
    """
    settings = {
        key: options.pop(key) for key in ("max_batch", "max_wait_s", "max_queue", "openvla_compat") if key in options
    }
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", options.pop("port", 0)))
    chosen = ActionServer(policy="random", zmq_port=0, drain_s=options.pop("drain_s", 2.0), **options)
    server = Server(chosen, ActionService(policy, ServiceSettings(**settings)), token, listener)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until_ready(url(server))
        yield server
    finally:
        server.stop()
        thread.join(60)
        assert not thread.is_alive()


def wait_until_ready(url: str, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2, context=ANYONE if url[4] == "s" else None):
                return
        except OSError:
            assert time.monotonic() < until, f"{url} is not ready"
            time.sleep(0.02)


def frame(seed: int = 0, height: int = 32, width: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def observation(step: int = 0, episode: str = "spatial/0/0/7", instruction: str = "open the drawer") -> Observation:
    images = {"agentview": frame(step), "wrist": frame(step + 1000)}
    return Observation(images, np.linspace(-1, 1, 8, dtype=np.float32) + step, instruction, episode, step)


def url(server: Server) -> str:
    return f"http{'s' if server.options.tls_certificate else ''}://127.0.0.1:{server.port}"


def native(step: int = 0, **changes: Any) -> dict[str, Any]:
    seen = observation(step, f"episode {step}")
    return told(seen.images, seen.state, seen.instruction, seen.episode, seen.step) | changes


def wait_until(happened: Callable[[], bool], seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.005)


def post(server: Server, message: Any, **options: Any) -> requests.Response:
    headers = {"Content-Type": "application/msgpack"} | options.pop("headers", {})
    body = message if isinstance(message, bytes) else VLA_EVAL.pack(message)
    return requests.post(f"{url(server)}/act", data=body, headers=headers, timeout=30, **options)


def all_that_comes(connection: socket.socket) -> bytes:
    """Return the bytes that come until the server closes."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)
