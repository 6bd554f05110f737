"""What foreign, older and newer servers say of their policy is one sentence at the start, and never a traceback."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import numpy as np
import pytest
import zmq

from tests.servers.toys import observation
from tests.vla_harness.train.test_groot import DEMO
from vla_harness.conventions import Adapter
from vla_harness.data import open_dataset
from vla_harness.envs.libero.environment import INTERFACE
from vla_harness.errors import UserError
from vla_harness.eval.offline import main as offline
from vla_harness.offline import evaluate_trajectory, predictor_of
from vla_harness.policies.groot.embodiments import data_config
from vla_harness.registry import load_policy
from vla_harness.servers.client import ServerError
from vla_harness.servers.remote.metadata import read_spec
from vla_harness.servers.remote.websocket import _vla_eval_spec
from vla_harness.servers.wire.codecs import GROOT
from vla_harness.types import DELTA_EEF_POSE, JointConvention, PolicySpec

SPEC = PolicySpec("toy", DELTA_EEF_POSE, ("agentview",), (64, 64), state_keys=("eef_pos",), horizon=4, max_batch=8)
METADATA: dict[str, Any] = {
    "server": "vla-harness", "policy": "toy", "spec": asdict(SPEC), "stateful": False, "provenance": {},
    "client_images": "upright", "max_batch": 8,
}  # fmt: skip


def changed(path: str, value: Any) -> Any:
    """Return the metadata with the value at the dotted ``path``; a value of ``...`` takes the key away."""
    metadata = json.loads(json.dumps(METADATA))
    *above, key = path.split(".")
    place = metadata
    for name in above:
        place = place[name]
    if value is ...:
        del place[key]
    else:
        place[key] = value
    return metadata


def test_what_our_own_server_says_is_read_back() -> None:
    assert read_spec(json.loads(json.dumps(METADATA)), "url") == SPEC
    older = changed("spec.state_lengths", ...)
    assert read_spec(older, "url") == SPEC
    joints = JointConvention("joint_delta", 0.05, -1.0, 1.0, (7,))
    assert read_spec(changed("spec.action", asdict(joints)), "url").action == joints


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("spec", ..., "None as spec"),
        ("spec", [], r"\[\] as spec"),
        ("spec.horizon", ..., r"does not state spec\.horizon"),
        ("spec.horizon", -1, r"-1 as spec\.horizon"),
        ("spec.horizon", 10**12, r"1000000000000 as spec\.horizon"),
        ("spec.horizon", "four", r"'four' as spec\.horizon"),
        ("spec.horizon", True, r"True as spec\.horizon"),
        ("spec.cameras", "agentview", r"'agentview' as spec\.cameras"),
        ("spec.cameras", ["a", "a"], r"as spec\.cameras"),
        ("spec.cameras", [7], r"7 as spec\.cameras\.0"),
        ("spec.image_size", [0, 64], r"as spec\.image_size"),
        ("spec.image_size", [64], r"as spec\.image_size"),
        ("spec.image_orientation", "sideways", r"'sideways' as spec\.image_orientation"),
        ("spec.state_keys", None, r"None as spec\.state_keys"),
        ("spec.state_lengths", [3, 3], r"as spec"),
        ("spec.warp", 9, r"states spec\.warp, which this version does not know"),
        ("spec.action", None, r"None as spec\.action"),
        ("spec.action.mode", "telepathy", r"'telepathy' as spec\.action\.mode"),
        ("spec.action.rotation", ..., r"does not state spec\.action\.rotation"),
        ("spec.action.frame", "tool", r"states spec\.action\.frame, which this version does not know"),
        ("spec.action.gripper_open", "wide", r"'wide' as spec\.action\.gripper_open"),
        ("spec.action.arms", 10**6, r"as spec\.action"),
        ("max_batch", 0, "0 as max_batch"),
        ("max_batch", ..., "None as max_batch"),
    ],
)
def test_each_field_is_checked(path: str, value: Any, sentence: str) -> None:
    with pytest.raises(ServerError, match=rf"^http://there .*{sentence}"):
        read_spec(changed(path, value), "http://there")


@contextmanager
def http_server(metadata: Any) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(metadata).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


@pytest.mark.parametrize("metadata", [changed("spec.horizon", None), changed("provenance", 3), [], {"spec": 1}])
def test_an_http_server_with_other_metadata_is_a_sentence(metadata: Any) -> None:
    with http_server(metadata) as url, pytest.raises(UserError, match=f"^{url} "):
        load_policy("remote", url=url, patience_s=2.0)


@pytest.mark.parametrize(
    "hello",
    [
        {"action_spec": []},
        {"action_spec": {"position": 3}},
        {"action_spec": {"position": {"format": ["delta_xyz"]}}},
        {"action_spec": "all"},
    ],
)
def test_an_odd_hello_of_a_model_server_is_a_sentence(hello: Mapping[str, Any]) -> None:
    with pytest.raises((ServerError, UserError), match="ws://there"):
        _vla_eval_spec(hello, "ws://there")


@contextmanager
def groot_server(answer: Callable[[str, Any], Any], address: str = "127.0.0.1") -> Iterator[str]:
    """A ZeroMQ server that answers as GR00T's does."""
    leave = threading.Event()

    def run(socket: zmq.Socket[bytes]) -> None:
        while not leave.is_set():
            if socket.poll(20):
                message = GROOT.unpack(socket.recv())
                socket.send(GROOT.pack(answer(message["endpoint"], message.get("data"))))

    with zmq.Context() as context, context.socket(zmq.REP) as socket:
        socket.setsockopt(zmq.IPV6, 1)
        port = socket.bind_to_random_port(f"tcp://{address}")
        thread = threading.Thread(target=run, args=(socket,))
        thread.start()
        try:
            yield f"tcp://{address}:{port}"
        finally:
            leave.set()
            thread.join(10)


GR1 = data_config("fourier_gr1_arms_waist").modality_config


def arms(endpoint: str, data: Any) -> Any:
    """Answer as a server of GR1: each action is the state of its name, the whole horizon long."""
    if endpoint == "get_modality_config":
        return GR1
    return {f"action.{key}": np.repeat(np.asarray(data[f"state.{key}"]), 16, axis=0) for key in names()}


def names() -> list[str]:
    return [key.removeprefix("action.") for key in GR1["action"]["modality_keys"]]


def test_a_groot_server_of_any_embodiment_is_evaluated_offline(
    capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    dataset = open_dataset(DEMO)
    with groot_server(arms) as url:
        policy = load_policy("remote", url=url, patience_s=5.0)
        found = evaluate_trajectory(predictor_of(policy, dataset), dataset.episode(0), 20)
        assert found.inference_rows == (0, 16)
        np.testing.assert_allclose(found.prediction[16:], np.repeat(found.state[16:17], 4, axis=0), rtol=1e-6)
        with pytest.raises(UserError, match="reads the camera 'ego_view'"):
            Adapter(INTERFACE, policy.spec, "libero/spatial")
        options = ["--policy", "remote", "--policy-option", f"url={url}", "--dataset", str(DEMO)]
        options += ["--trajectories", "1", "--steps", "8", "--out", str(tmp_path / "out")]
        assert offline(options) == 0
    assert "MSE" in capsys.readouterr().out


def test_a_data_configuration_says_what_a_servers_names_mean(tmp_path: Any) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        '[hand]\nvideo = ["front"]\nstate = ["place", "turn", "fingers"]\naction = ["move", "twist", "grip"]\n'
        'language = "annotation.task"\n[hand.robot]\ncameras = ["agentview"]\nimage_size = [64, 64]\n'
        'image_orientation = "upright"\nstate_keys = ["eef_pos", "eef_axis_angle", "gripper_qpos"]\n'
        'action = { mode = "delta", translation_unit = 0.05, rotation = "axis_angle", rotation_unit = 0.5,'
        " gripper_open = 0.0, gripper_closed = 1.0 }\n"
    )
    asked: list[Any] = []

    def answer(endpoint: str, data: Any) -> Any:
        if endpoint == "get_modality_config":
            return data_config(str(own)).modality_config
        asked.append(data)
        return {"action.move": np.ones((16, 3)), "action.twist": np.zeros((16, 3)), "action.grip": np.ones(16)}

    with groot_server(answer) as url:
        policy = load_policy("remote", url=url, patience_s=5.0, data_config=str(own))
        chunk = policy.act([observation()])[0]
        with pytest.raises(UserError, match=r"reads front, .* and the data configuration libero names image, "):
            load_policy("remote", url=url, patience_s=5.0, data_config="libero")
    assert Adapter(INTERFACE, policy.spec, "libero/spatial").actions(chunk)[0].tolist() == [1, 1, 1, 0, 0, 0, 1]
    assert {key: np.shape(asked[0][f"state.{key}"]) for key in ("place", "turn", "fingers")} == {
        "place": (1, 3), "turn": (1, 3), "fingers": (1, 2)
    }  # fmt: skip
    np.testing.assert_array_equal(asked[0]["video.front"][0], observation().images["agentview"])


@pytest.mark.parametrize(
    "config",
    [[], {}, {"video": 3}, {"action": {"modality_keys": [1]}}, {"action": {"modality_keys": ["action.x"]}}, "no"],
)
def test_a_groot_server_that_states_no_modalities_is_a_sentence(config: Any) -> None:
    with groot_server(lambda endpoint, data: config) as url, pytest.raises(UserError, match=f"^{url} "):
        load_policy("remote", url=url, patience_s=2.0)


def test_a_groot_server_is_reached_over_ipv6() -> None:
    with groot_server(arms, "[::1]") as url:
        assert load_policy("remote", url=url, patience_s=5.0).spec.horizon == 16
