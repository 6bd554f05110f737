"""Clients as their projects ship them, and ours, against a real server on real sockets."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import json_numpy
import numpy as np
import pytest
import requests
import zmq
from openpi_client.websocket_client_policy import WebsocketClientPolicy
from PIL import Image
from vla_eval.connection import Connection

from tests.servers.toys import (
    STATE,
    Gr00tLikePolicy,
    LookingPolicy,
    RawChunkPolicy,
    RawPolicy,
    frame,
    observation,
    serving,
)
from vla_harness import Observation, load_policy
from vla_harness.conventions import orient
from vla_harness.servers.action_server import Server
from vla_harness.servers.client import ServerError, connect
from vla_harness.servers.remote.policy import RemotePolicy
from vla_harness.servers.remote.zeromq_client import Gr00tClient
from vla_harness.types import ActionConvention, PolicySpec

FRAMES = Path(__file__).resolve().parents[1] / "data" / "wire" / "groot_n15"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def looking() -> Iterator[tuple[Server, LookingPolicy]]:
    policy = LookingPolicy()
    with serving(policy) as server:
        yield server, policy


def mirrored(seen: Observation) -> dict[str, np.ndarray]:
    """What other projects' LIBERO clients send: the frame as the network was trained on it."""
    return {camera: orient(image, "upright", "mirrored") for camera, image in seen.images.items()}


def zero_closes(actions: np.ndarray) -> np.ndarray:
    """What OpenVLA's clients expect of a gripper that opens at -1 and closes at 1."""
    closed = (actions[..., -1:].astype(np.float64) + 1) / 2
    return np.concatenate([actions[..., :-1], 1 - closed], axis=-1).astype(np.float32)


def named(seen: Observation, last: Observation) -> Observation:
    """``seen`` under the name that the server gave to a client without one."""
    return Observation(seen.images, seen.state, seen.instruction, last.episode, last.step)


def test_openpi_client_gets_the_chunk_that_the_policy_returns(looking: tuple[Server, LookingPolicy]) -> None:
    server, policy = looking
    client = WebsocketClientPolicy("127.0.0.1", server.port)
    assert client.get_server_metadata()["spec"]["state_keys"] == list(STATE)
    for step in range(2):
        seen = observation(step)
        message = {
            "observation/image": mirrored(seen)["agentview"],
            "observation/wrist_image": mirrored(seen)["wrist"],
            "observation/state": seen.state,
            "prompt": seen.instruction,
        }
        reply = client.infer(message)
        assert reply["server_timing"]["infer_ms"] > 0 and ("prev_total_ms" in reply["server_timing"]) == bool(step)
        np.testing.assert_array_equal(reply["actions"], policy.one(named(seen, policy.seen[-1])))
        assert policy.seen[-1].step == step
    with pytest.raises(RuntimeError, match="observation/state: expected 8 finite numbers"):
        client.infer(message | {"observation/state": np.zeros(7)})


class JointPolicy(LookingPolicy):
    """Of a robot that no convention here describes: five joints, as GR00T's embodiments may be."""

    def __init__(self) -> None:
        super().__init__()
        unknown = ActionConvention("absolute", math.nan, "axis_angle", math.nan, math.nan, math.nan)
        self.spec = PolicySpec("joints", unknown, cameras=("front",), state_keys=("single_arm",), horizon=2)

    def one(self, seen: Observation) -> np.ndarray:
        return np.repeat(seen.state[None], 2, axis=0)


def test_policies_of_other_embodiments_are_asked_in_their_own_terms() -> None:
    policy, joints = JointPolicy(), np.linspace(0, 1, 5, dtype=np.float32)
    with serving(policy) as server:
        client = WebsocketClientPolicy("127.0.0.1", server.port)
        for key in ("observation/front", "observation/image"):
            reply = client.infer({key: frame(1), "observation/state": joints, "prompt": "go"})
            np.testing.assert_array_equal(reply["actions"], [joints, joints])

        async def play() -> tuple[dict[str, Any], np.ndarray]:
            async with Connection(f"ws://127.0.0.1:{server.port}/vla-eval", timeout=10, max_retries=1) as connection:
                await connection.start_episode({"task": {"name": "x"}})
                message = {"images": {"front": frame(1)}, "task_description": "go", "states": joints}
                return connection.server_info, (await connection.act(message))["actions"]

        info, action = anyio.run(play)
    np.testing.assert_array_equal(action, joints)
    assert info["action_spec"] == {"actions": {"name": "raw", "dims": 0, "format": "raw"}}
    assert "quat_no_antipodal" not in info["observation_params"]
    for seen in policy.seen[-3:]:
        np.testing.assert_array_equal(seen.images["front"], frame(1))  # as its network was trained


def test_openpi_client_may_send_what_openpis_own_servers_parse(looking: tuple[Server, LookingPolicy]) -> None:
    """Floats in [0, 1] and channels first, by the rule of openpi's _parse_image."""
    server, policy = looking
    client = WebsocketClientPolicy("127.0.0.1", server.port)
    floats = np.random.default_rng(0).uniform(0, 1, (32, 32, 3)).astype(np.float32)
    bytes_first = np.moveaxis(frame(3), -1, 0)
    message = {
        "observation/image": floats,
        "observation/wrist_image": bytes_first,
        "observation/state": np.zeros(8),
        "prompt": np.array("open the drawer"),
    }
    client.infer(message)
    seen = {camera: orient(image, "upright", "mirrored") for camera, image in policy.seen[-1].images.items()}
    np.testing.assert_array_equal(seen["agentview"], (255 * floats).astype(np.uint8))
    np.testing.assert_array_equal(seen["wrist"], frame(3))
    client.infer(message | {"observation/image": np.moveaxis(floats, -1, 0)})
    again = orient(policy.seen[-1].images["agentview"], "upright", "mirrored")
    np.testing.assert_array_equal(again, seen["agentview"])
    with pytest.raises(RuntimeError, match=r"observation/image: expected floats in \[0, 1\] or uint8"):
        client.infer(message | {"observation/image": 255 * floats})


def test_vla_eval_connection_gets_one_action_for_each_observation(looking: tuple[Server, LookingPolicy]) -> None:
    server, policy = looking

    async def play() -> tuple[dict[str, Any], list[np.ndarray]]:
        async with Connection(f"ws://127.0.0.1:{server.port}/vla-eval", timeout=10, max_retries=1) as connection:
            actions = []
            for _ in range(2):  # episodes
                await connection.start_episode({"task": {"name": "x"}})
                for step in range(4):
                    seen = observation(step)
                    message = {
                        "images": mirrored(seen),
                        "task_description": seen.instruction,
                        "states": seen.state.astype(np.float64),
                    }
                    actions.append((await connection.act(message))["actions"])
                await connection.end_episode({"metrics": {"success": False}, "steps": 4, "elapsed_sec": 1.0})
            with pytest.raises(RuntimeError, match="images"):
                await connection.act({"task_description": "x"})
            return connection.server_info, actions

    before = len(policy.seen)
    info, actions = anyio.run(play)
    assert info["protocol_version"] == 1 and info["action_spec"]["gripper"]["format"] == "binary_close_positive"
    assert info["observation_params"] == {"send_wrist_image": True, "send_state": True, "quat_no_antipodal": True}
    asked = policy.seen[before:]
    assert [seen.step for seen in asked] == [0, 3, 0, 3] and asked[0].episode == asked[1].episode != asked[2].episode
    expected = np.concatenate([policy.one(seen) for seen in asked])
    np.testing.assert_array_equal(actions, np.delete(expected, [4, 5, 10, 11], axis=0))
    np.testing.assert_array_equal(asked[1].images["wrist"], observation(3).images["wrist"])


def test_json_numpy_and_requests_as_in_the_readme_of_openvla() -> None:
    with serving(RawPolicy()) as server:
        json_numpy.patch()
        try:
            image = frame(5, 20, 30)
            payload: dict[str, Any] = {"image": image, "instruction": "do something", "unnorm_key": "bridge_orig"}
            action = requests.post(f"http://127.0.0.1:{server.port}/act", json=payload).json()
        finally:
            json.loads, json.dumps = json_numpy._loads, json_numpy._dumps  # undo the patch
            json.load, json.dump = json_numpy._load, json_numpy._dump
    np.testing.assert_array_equal(action, [*image[0, 0], 20, 30, 3, 12])
    assert action.dtype == np.float64


def test_clients_without_json_numpy(looking: tuple[Server, LookingPolicy], tmp_path: Path) -> None:
    server, policy = looking
    seen = observation()
    files = {}
    for name, image in zip(("full_image", "wrist_image"), mirrored(seen).values(), strict=True):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
        files[name] = (tmp_path / f"{name}.png").read_bytes()
    fields = {"instruction": seen.instruction, "state": json.dumps(seen.state.tolist()), "session": "s", "step": "4"}
    reply = requests.post(f"http://127.0.0.1:{server.port}/act", files=files, data=fields)
    wanted = policy.one(Observation(seen.images, seen.state, seen.instruction, "s", 4))
    np.testing.assert_array_equal(np.float32(reply.json()["actions"]), zero_closes(wanted))


def test_openvla_oft_form_returns_a_list_of_actions(looking: tuple[Server, LookingPolicy]) -> None:
    server, policy = looking
    seen = observation()
    images = mirrored(seen)
    payload = {"full_image": images["agentview"], "wrist_image": images["wrist"], "state": seen.state}
    text = json_numpy.dumps(payload | {"instruction": seen.instruction, "session": "s"})
    reply = json_numpy.loads(requests.post(f"http://127.0.0.1:{server.port}/act", data=text).text)
    assert isinstance(reply, list) and len(reply) == 3
    wanted = policy.one(Observation(seen.images, seen.state, seen.instruction, "s", 0))
    np.testing.assert_array_equal(reply, zero_closes(wanted))


def test_openvla_oft_form_gets_what_its_own_server_would_answer() -> None:
    first, second = frame(1), frame(2)
    payload = {"full_image": first, "wrist_image": second, "state": np.full(8, 0.5), "instruction": "go"}
    with serving(RawChunkPolicy()) as server:
        text = requests.post(f"http://127.0.0.1:{server.port}/act", data=json_numpy.dumps(payload)).text
        reply = json_numpy.loads(text)
    np.testing.assert_array_equal(reply, [[*first[0, 0], *second[0, 0], 0.5]] * 8)


@pytest.mark.parametrize(
    ("sent", "answered", "token"),
    [
        ("req_ping", "rep_ping", None),
        ("req_get_action", "rep_get_action", None),
        ("req_get_action_token", "rep_get_action", "secret"),
        ("req_get_action_token", "rep_error", "another"),
        ("req_get_modality_config", "rep_get_modality_config", None),
    ],
)
def test_groot_frames_byte_for_byte(sent: str, answered: str, token: str | None) -> None:
    """What NVIDIA's own client sent, and what NVIDIA's own server answered."""
    with serving(Gr00tLikePolicy(), token) as server, zmq.Context() as context, context.socket(zmq.REQ) as client:
        client.setsockopt(zmq.LINGER, 0)
        client.connect(f"tcp://127.0.0.1:{server.zmq_port}")
        client.send((FRAMES / f"{sent}.msgpack").read_bytes())
        assert client.poll(10_000)
        assert client.recv() == (FRAMES / f"{answered}.msgpack").read_bytes()


@pytest.mark.parametrize("texts", [np.array(["öffne"]), np.array([["öffne"]]), np.array("öffne", ">U9"), ["öffne"]])
def test_groot_annotations_may_be_arrays_of_text(texts: Any) -> None:
    policy = Gr00tLikePolicy()
    data = {"annotation.human.task_description": texts, "state.single_arm": np.zeros((1, 5))}
    with serving(policy) as server:
        Gr00tClient(f"tcp://127.0.0.1:{server.zmq_port}").call("get_action", data)
    assert policy.asked[-1]["annotation.human.task_description"] == ["öffne"]


def test_groot_http_form() -> None:
    with serving(Gr00tLikePolicy(gripper=False)) as server:
        url = f"http://127.0.0.1:{server.port}"
        reply = requests.post(f"{url}/act", data=(FRAMES / "http_act_request.json").read_bytes())
        assert reply.json() == json.loads((FRAMES / "http_act_response.json").read_text())
        assert requests.get(f"{url}/health").json()["status"] == "healthy"


def test_remote_policies_act_as_the_policy_does_in_process(looking: tuple[Server, LookingPolicy]) -> None:
    server, policy = looking
    address = f"127.0.0.1:{server.port}"
    for url in (f"http://{address}", f"ws://{address}/openpi", f"tcp://127.0.0.1:{server.zmq_port}"):
        remote = RemotePolicy(url, patience_s=5)
        assert remote.spec.action == policy.spec.action and remote.spec.state_keys == policy.spec.state_keys
        seen = [observation(step, f"spatial/{step}/0/7") for step in range(3)]
        actions = remote.act(seen)
        if url.startswith("tcp"):  # GR00T's protocol names no episodes
            seen = [named(one, told) for one, told in zip(seen, policy.seen[-3:], strict=True)]
        np.testing.assert_array_equal(actions, [policy.one(one) for one in seen])
        for one in seen:
            remote.forget(one.episode)
    assert load_policy("remote", url=f"http://{address}").provenance["server_policy"] == "looking"


def test_remote_vla_eval_policy_gets_single_actions(looking: tuple[Server, LookingPolicy]) -> None:
    server, policy = looking
    remote = RemotePolicy(f"ws://127.0.0.1:{server.port}/vla-eval", patience_s=5)
    assert remote.spec.horizon == 1 and remote.spec.cameras == ("agentview", "wrist")
    first, second, other = observation(0, "a"), observation(1, "a"), observation(0, "b")
    actions = remote.act([first, other])
    np.testing.assert_array_equal(actions[:, 0], [policy.one(first)[0], policy.one(other)[0]])
    np.testing.assert_array_equal(remote.act([second])[0, 0], policy.one(first)[1])
    remote.forget("a")
    np.testing.assert_array_equal(remote.act([first])[0, 0], policy.one(first)[0])


def test_light_client_imports_numpy_and_msgpack_alone() -> None:
    """As on a robot, where the rest is not installed."""
    check = """
import sys
allowed = {"numpy", "msgpack", "vla_harness", "tformer", "cython_runtime"} | set(sys.stdlib_module_names)
from vla_harness.servers.client import connect
extra = {name.partition(".")[0] for name in sys.modules} - allowed - set(sys.builtin_module_names)
print(sorted(name for name in extra if not name.startswith("_")))
"""
    done = subprocess.run([sys.executable, "-S", "-c", PATHS + check], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stdout + done.stderr


PATHS = f"import sys; sys.path[:0] = {[str(ROOT), *(path for path in sys.path if 'site-packages' in path)]}\n"


def test_light_client_acts(looking: tuple[Server, LookingPolicy]) -> None:
    server, policy = looking
    seen = observation()
    with connect(f"http://127.0.0.1:{server.port}") as client:
        chunk = client.act(seen.images, seen.state, seen.instruction, "monday", 5)
        wanted = policy.one(Observation(seen.images, seen.state, seen.instruction, "monday", 5))
        np.testing.assert_array_equal(chunk, wanted)
        with pytest.raises(ServerError, match=r"refused \(422\): observations.0.state: expected 8 finite numbers"):
            client.act(seen.images, seen.state[1:], seen.instruction)
        with pytest.raises(ServerError, match=r"refused \(422\): observations.0.images.wrist: missing"):
            client.act({"agentview": seen.images["agentview"]}, seen.state, seen.instruction)
