"""LIBERO's clients of five projects play a task through the server, by their own rules, and succeed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import anyio
import gymnasium
import json_numpy
import numpy as np
import pytest
import requests
import zmq
from openpi_client import image_tools
from openpi_client.websocket_client_policy import WebsocketClientPolicy
from vla_eval.benchmarks.libero.benchmark import LIBEROBenchmark
from vla_eval.benchmarks.libero.benchmark import (
    _quat_to_axisangle_robosuite as quat2axisangle,
)  # openpi's copy is equal
from vla_eval.connection import Connection
from vla_eval.runners.sync_runner import SyncEpisodeRunner

from tests.servers.toys import serving
from vla_harness import Observation, load_policy
from vla_harness.conventions import Adapter
from vla_harness.envs.libero.environment import LiberoEnv
from vla_harness.protocols import SETTLE_ACTION
from vla_harness.servers.action_server import Server
from vla_harness.servers.wire.codecs import GROOT
from vla_harness.types import DELTA_EEF_POSE, Policy, PolicySpec

SUITE, TASK, MAX_STEPS = "spatial", 0, 220
STATE = ("eef_pos", "eef_axis_angle", "gripper_qpos")


class StockView(Mapping[str, Any]):
    """The raw observations of LIBERO's stock environment: frames upside down, quaternions as MuJoCo has them."""

    _PARTS = {"robot0_eef_pos": "eef_pos", "robot0_eef_quat": "eef_quat_xyzw", "robot0_gripper_qpos": "gripper_qpos"}
    _CAMERAS = {"agentview_image": "agentview", "robot0_eye_in_hand_image": "wrist"}

    def __init__(self, task: LiberoEnv) -> None:
        self._task = task
        self._parts = task.proprioception()

    def __getitem__(self, name: str) -> np.ndarray:
        if name in self._CAMERAS:
            return self._task.render_camera(self._CAMERAS[name], 256, 256)[::-1]
        return np.array(self._parts[self._PARTS[name]])

    def __iter__(self) -> Iterator[str]:
        return iter([*self._CAMERAS, *self._PARTS])

    def __len__(self) -> int:
        return 5


class StockEnv:
    """What the clients use of LIBERO's stock environment."""

    def __init__(self, task: LiberoEnv) -> None:
        self.task = task
        self.robots = task._episodes.problem.robots
        self.instruction = task.instruction

    def reset(self) -> StockView:
        self.task.reset(seed=0, options={"initial_state": 0})
        for _ in range(10):
            self.task.step(np.array(SETTLE_ACTION, np.float32))
        return StockView(self.task)

    def step(self, action: Sequence[float]) -> tuple[StockView, float, bool, dict[str, Any]]:
        info = self.task.step(np.array(action, np.float32))[4]
        return StockView(self.task), float(info["success"]), info["success"], info


class Recited(Policy):
    """Recites an episode's actions, and checks what it sees against ``shown``, the simulator's own view."""

    def __init__(self, env: StockEnv, actions: np.ndarray, cameras: tuple[str, ...], state_keys: tuple[str, ...]):
        self.spec = PolicySpec("recited", DELTA_EEF_POSE, cameras, (128, 128), state_keys=state_keys, horizon=8)
        self._env, self._adapter = env, Adapter(env.task.interface, self.spec, "libero")
        self._actions = np.concatenate([actions, np.zeros((8, 7), np.float32)])
        self._shown: tuple[dict[str, np.ndarray], np.ndarray] | None = None  # while the server warms up
        self._next = 0

    def show(self, step: int) -> None:
        """Prepare for an observation of the simulator as it is now."""
        frames = {camera: self._env.task.render_camera(camera, 128, 128) for camera in self.spec.cameras}
        self._shown, self._next = (frames, self._adapter.state(self._env.task.proprioception())), step

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        (seen,) = observations
        frames, state = self._shown or ({}, seen.state)
        for camera, frame in frames.items():
            off = np.abs(seen.images[camera].astype(float) - frame).mean()
            assert off < 5 < np.abs(seen.images[camera][:, ::-1].astype(float) - frame).mean(), (camera, off)
        np.testing.assert_allclose(seen.state, state, atol=1e-5)
        return self._actions[None, self._next : self._next + 8]


@pytest.fixture(scope="module")
def env() -> Iterator[StockEnv]:
    made = gymnasium.make(
        f"vla_harness.envs:libero/{SUITE}-v0", task=TASK, observations="on_request", assets="primitive"
    )
    assert isinstance(made.unwrapped, LiberoEnv)
    yield StockEnv(made.unwrapped)
    made.close()


@pytest.fixture(scope="module")
def tformer() -> Iterator[Server]:
    with serving(load_policy("tformer")) as server:
        yield server


@pytest.fixture(scope="module")
def actions(env: StockEnv) -> np.ndarray:
    """The scripted expert's actions, which close and hold the gripper."""
    expert, played = load_policy("scripted"), []
    env.reset()
    for step in range(MAX_STEPS):
        played.append(expert.act([Observation({}, np.zeros(0), "", "one", step, env.task.scene())])[0, 0])
        if env.step(played[-1])[2]:
            assert set(np.unique(np.array(played)[:, -1])) >= {0.0, 1.0}
            return np.array(played)
    raise AssertionError("no success")


def test_openpis_client_succeeds_with_the_shipped_policy(env: StockEnv, tformer: Server) -> None:
    """As openpi's examples/libero/main.py."""
    client = WebsocketClientPolicy("127.0.0.1", tformer.port)
    seen, plan = env.reset(), list[np.ndarray]()
    for _ in range(MAX_STEPS):
        if not plan:
            frames = [
                image_tools.convert_to_uint8(image_tools.resize_with_pad(frame, 224, 224))
                for frame in frames_of(seen, "agentview_image", "robot0_eye_in_hand_image")
            ]
            element = {
                "observation/image": frames[0],
                "observation/wrist_image": frames[1],
                "observation/state": state_of(seen),
                "prompt": env.instruction,
            }
            plan = list(client.infer(element)["actions"][:5])
        seen, _, done, _ = env.step(plan.pop(0).tolist())
        if done:
            return
    pytest.fail("no success")


class VlaEvalLibero(LIBEROBenchmark):
    """vla-eval's own benchmark on our simulator."""

    def __init__(self, stock: StockEnv, **options: Any) -> None:
        super().__init__(**options)
        self._stock = stock

    def reset(self, task: Any) -> Any:
        self._env = self._stock
        return self._stock.reset()


def test_vla_evals_benchmark_succeeds_with_the_shipped_policy(env: StockEnv, tformer: Server) -> None:
    async def play() -> Any:
        async with Connection(f"ws://127.0.0.1:{tformer.port}/vla-eval", timeout=60, max_retries=1) as connection:
            asked = connection.server_info["observation_params"]
            known = inspect.signature(LIBEROBenchmark.__init__).parameters  # as its orchestrator does
            benchmark = VlaEvalLibero(env, **{key: value for key, value in asked.items() if key in known})
            return await SyncEpisodeRunner().run_episode(
                benchmark, {"name": env.instruction}, connection, max_steps=MAX_STEPS
            )

    assert anyio.run(play)["metrics"]["success"]


def play(env: StockEnv, policy: Recited, ask: Callable[[StockView], Sequence[np.ndarray]]) -> bool:
    """Return whether a client succeeds that executes as many actions as ``ask`` returns."""
    seen, plan = env.reset(), list[np.ndarray]()
    for step in range(MAX_STEPS):
        if not plan:
            policy.show(step)
            plan = list(ask(seen))
        seen, _, done, _ = env.step(plan.pop(0).tolist())
        if done:
            return True
    return False


def frames_of(seen: StockView, *names: str) -> list[np.ndarray]:
    """What LIBERO's clients send as frames."""
    return [np.ascontiguousarray(seen[name][::-1, ::-1]) for name in names]


def state_of(seen: StockView) -> np.ndarray:
    parts = (seen["robot0_eef_pos"], quat2axisangle(seen["robot0_eef_quat"]), seen["robot0_gripper_qpos"])
    return np.concatenate(parts)


def openvla_gripper(action: np.ndarray) -> np.ndarray:
    """OpenVLA's normalize_gripper_action(binarize=True), then invert_gripper_action."""
    action = np.array(action, np.float64)
    action[..., -1] = -np.sign(2 * action[..., -1] - 1)
    return action


@pytest.mark.parametrize("form", ["openvla", "openvla-oft"])
def test_openvlas_clients_succeed(env: StockEnv, actions: np.ndarray, form: str) -> None:
    """As experiments/robot/libero/run_libero_eval.py of both projects, their model behind their deploy.py."""
    plain = form == "openvla"
    policy = Recited(env, actions, ("agentview",) if plain else ("wrist", "agentview"), () if plain else STATE)
    with serving(policy) as server:

        def ask(seen: StockView) -> Sequence[np.ndarray]:
            front, wrist = frames_of(seen, "agentview_image", "robot0_eye_in_hand_image")
            message = (
                {"image": front} if plain else {"full_image": front, "wrist_image": wrist, "state": state_of(seen)}
            )
            text = json_numpy.dumps(message | {"instruction": env.instruction})
            reply = json_numpy.loads(requests.post(f"http://127.0.0.1:{server.port}/act", data=text).text)
            return [openvla_gripper(action) for action in ([reply] if plain else reply)]

        assert play(env, policy, ask)


@pytest.mark.parametrize("nested", [False, True], ids=["n1.5", "n1.6"])
def test_groots_clients_succeed(env: StockEnv, actions: np.ndarray, nested: bool) -> None:
    """As N1.5's examples/Libero/eval over ZeroMQ, and N1.6's with a batch and nested names."""
    policy = Recited(env, actions, ("agentview", "wrist"), ("eef_pos", "eef_quat_xyzw", "gripper_qpos"))
    parts = ("x", "y", "z", "roll", "pitch", "yaw")
    with serving(policy) as server, zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(f"tcp://127.0.0.1:{server.zmq_port}")

        def ask(seen: StockView) -> Sequence[np.ndarray]:
            frames, state = frames_of(seen, "agentview_image", "robot0_eye_in_hand_image"), state_of(seen)
            states = {part: state[None, i : i + 1] for i, part in enumerate(parts)} | {"gripper": state[None, 6:]}
            videos = dict(zip(("image", "wrist_image"), (frame[None] for frame in frames), strict=True))
            text = np.array([env.instruction])
            language = "annotation.human.action.task_description"
            data: dict[str, Any] = {f"video.{key}": value for key, value in videos.items()}
            data |= {f"state.{key}": value for key, value in states.items()} | {language: text}
            if nested:
                data = {
                    "video": {key: value[None] for key, value in videos.items()},
                    "state": {key: value[None] for key, value in states.items()},
                    "language": {language: [[env.instruction]]},
                }
                data = {"observation": data, "options": None}
            socket.send(GROOT.pack({"endpoint": "get_action", "data": data}))
            assert socket.poll(60_000)
            reply = GROOT.unpack(socket.recv())
            chunk = {f"action.{key}": value[0] for key, value in reply[0].items()} if nested else reply
            joined = np.concatenate([chunk[f"action.{key}"] for key in (*parts, "gripper")], axis=1)
            joined[:, -1] = np.sign(1 - 2 * joined[:, -1])  # normalize_gripper_action(binarize=True)
            return list(joined)

        assert play(env, policy, ask)
