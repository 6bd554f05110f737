"""The server's own conduct: batches, back-pressure, errors, tokens, limits, shutdown."""

from __future__ import annotations

import gzip
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgpack
import numpy as np
import pytest
import requests
import zmq
from PIL import Image
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect as websocket

from tests.servers.toys import (
    LookingPolicy,
    RawPolicy,
    RememberingPolicy,
    frame,
    observation,
    serving,
)
from vla_harness import UserError, load_policy
from vla_harness.servers.action_server import Server
from vla_harness.servers.client import ServerError, connect
from vla_harness.servers.client import observation as told
from vla_harness.servers.core import sessions
from vla_harness.servers.core.service import ActionService
from vla_harness.servers.remote.policy import RemotePolicy
from vla_harness.servers.wire.codecs import GROOT, OPENPI, VLA_EVAL, json_array


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


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


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(LookingPolicy(), max_body_mb=1.0) as server:
        yield server


def test_concurrent_clients_share_batches_and_each_gets_its_own_answer() -> None:
    policy = LookingPolicy(seconds=0.1)
    with serving(policy) as server, ThreadPoolExecutor(9) as clients:
        replies = list(clients.map(lambda step: post(server, {"observations": [native(step)]}), range(9)))
        for step, reply in enumerate(replies):
            actions = VLA_EVAL.unpack(reply.content)["actions"]
            np.testing.assert_array_equal(actions[0], policy.one(observation(step, f"episode {step}")))
        sizes = policy.batches[1:]  # the first warmed up
        assert sum(sizes) == 9 and max(sizes) > 1 and max(sizes) <= policy.spec.max_batch
        text = requests.get(f"{url(server)}/metrics").text
        assert 'vla_requests_total{protocol="native",status="200"} 9.0' in text
        assert "vla_batch_size_count" in text and "vla_queue_length 0.0" in text


def test_a_batch_that_is_not_full_waits_for_company_when_told_to() -> None:
    policy = LookingPolicy()
    with serving(policy, max_batch=2, max_wait_s=5.0) as server, ThreadPoolExecutor(2) as clients:
        policy.batches.clear()
        first = clients.submit(post, server, {"observations": [native(0)]})
        wait_until(lambda: server.service.unfinished == 1)
        time.sleep(0.1)
        assert not first.done()
        assert post(server, {"observations": [native(1)]}).ok and first.result(5).ok
    assert policy.batches == [2]


def test_one_batch_never_holds_two_questions_of_an_episode() -> None:
    policy = RememberingPolicy()
    with serving(policy) as server:
        twice = [native(0, episode="same"), native(1, episode="same"), native(2, episode="other")]
        actions = VLA_EVAL.unpack(post(server, {"observations": twice}).content)["actions"]
    np.testing.assert_array_equal(actions[:, 0, 0], [1, 2, 1])


def test_health_answers_at_once_while_the_policy_computes() -> None:
    with serving(LookingPolicy(seconds=1.0)) as server, ThreadPoolExecutor(1) as clients:
        asked = clients.submit(post, server, {"observations": [native()]})
        wait_until(lambda: server.service.unfinished == 1)
        started = time.perf_counter()
        assert requests.get(f"{url(server)}/health").json() == {"status": "healthy", "model": "looking"}
        assert not asked.done() and time.perf_counter() - started < 0.5
        assert asked.result(10).ok


def test_health_is_not_ready_before_the_policy_is_warm() -> None:
    service = ActionService(LookingPolicy(seconds=0.5))
    assert service.health == (False, "warming up")
    until = time.monotonic() + 5
    while not service.health[0] and time.monotonic() < until:
        time.sleep(0.01)
    assert service.health == (True, "healthy")
    service.close()


def test_beyond_the_queue_clients_are_told_to_come_again_and_ours_does() -> None:
    with serving(LookingPolicy(seconds=0.3), max_queue=2, max_batch=1) as server, ThreadPoolExecutor(6) as clients:
        replies = list(clients.map(lambda step: post(server, {"observations": [native(step)]}), range(6)))
        refused = [reply for reply in replies if reply.status_code == 503]
        assert refused and len(refused) < 6
        assert refused[0].headers["Retry-After"] == "1"
        assert VLA_EVAL.unpack(replies[[r.ok for r in replies].index(True)].content)
        assert refused[0].json() == {"error": "2 questions wait already; ask again.", "field": ""}
        remote = [RemotePolicy(url(server), patience_s=20) for _ in range(5)]
        results = clients.map(lambda one: one.act([observation(0, str(id(one)))]), remote)
        assert all(actions.shape == (1, 3, 7) for actions in results)


def test_a_client_that_goes_away_frees_its_place() -> None:
    policy = LookingPolicy(seconds=1.5)
    with serving(policy, max_batch=1) as server, ThreadPoolExecutor(1) as clients:
        first = clients.submit(post, server, {"observations": [native(0)]})
        wait_until(lambda: server.service.unfinished == 1)
        with pytest.raises(requests.Timeout):
            requests.post(
                f"{url(server)}/act",
                data=VLA_EVAL.pack({"observations": [native(1)]}),
                headers={"Content-Type": "application/msgpack"},
                timeout=0.1,
            )
        with websocket(f"ws://127.0.0.1:{server.port}/openpi") as gone:
            gone.recv()
            gone.send(OPENPI.pack({"observation/image": frame(), "observation/wrist_image": frame(), "prompt": "x",
                                   "observation/state": np.zeros(8)}))  # fmt: skip
        wait_until(lambda: server.service.unfinished == 1)
        assert first.result(10).ok
    assert len(policy.seen) == 2  # the warm-up's and the first client's


def test_memory_is_kept_by_episode_and_ends_with_it() -> None:
    policy = RememberingPolicy()
    with serving(policy) as server:
        mine, yours = connect(url(server)), connect(url(server), patience_s=0.1)
        assert [mine.act_together([native(0, episode="a")])[0, 0, 0] for _ in range(3)] == [1, 2, 3]
        with pytest.raises(ServerError, match="another client is playing 'a'"):
            yours.act_together([native(0, episode="a")])
        mine.end_episode("a")
        assert yours.act_together([native(0, episode="a")])[0, 0, 0] == 1
        image = {"full_image": frame(), "wrist_image": frame(), "state": np.zeros(8), "instruction": "x"}
        one_shot = [VLA_EVAL.unpack(post(server, image).content)[0][0] for _ in range(2)]
        named = [VLA_EVAL.unpack(post(server, image | {"session": "robot"}).content)[0][0] for _ in range(2)]
        assert (one_shot, named) == ([1, 1], [1, 2])
    assert policy.forgotten[1:3] == ["a", "openvla-oft/0"]


def test_an_episode_whose_client_is_silent_can_be_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "TAKEOVER_S", 0.2)
    policy = RememberingPolicy()
    with serving(policy) as server:
        assert connect(url(server)).act_together([native(0, episode="a")])[0, 0, 0] == 1
        again = RemotePolicy(url(server), patience_s=20)  # as after a kill and --resume
        assert again.act([observation(0, "a")])[0, 0, 0] == 1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"images": {"agentview": frame()}}, "observations.0.images.wrist: missing; send an image."),
        ({"images": [1]}, "observations.0.images: expected a map with text keys, got list of length 1."),
        (
            {"state": [1.0, float("nan")] + [0.0] * 6},
            "observations.0.state: expected 8 finite numbers, got list of length 8.",
        ),
        (
            {"state": np.zeros(7)},
            "observations.0.state: expected 8 finite numbers, got an array of shape [7] and dtype float64.",
        ),
        ({"instruction": 3}, "observations.0.instruction: expected a text of at most 4096 characters, got int."),
        ({"step": -1}, "observations.0.step: expected an integer of at least 0, got int."),
        ({"instruction": "mend"}, "The instruction cannot be carried out: give another one."),
        (
            {"images": {"agentview": frame().astype(np.float32), "wrist": frame()}},
            "observations.0.images.agentview: expected an image, (H, W, 3) uint8 or a PNG or JPEG file,"
            " got an array of shape [32, 32, 3] and dtype float32.",
        ),
    ],
)
def test_a_wrong_field_is_named_with_what_was_expected(server: Server, changes: dict[str, Any], sentence: str) -> None:
    reply = post(server, {"observations": [native() | changes]})
    assert (reply.status_code, reply.json()["error"]) == (422, sentence)


def test_a_failure_of_the_policy_shows_no_traceback_and_costs_no_neighbour() -> None:
    policy = LookingPolicy(seconds=0.2)
    with serving(policy) as server, ThreadPoolExecutor(4) as clients:
        words = ["go", "break", "go on", "stop"]
        asked = [
            clients.submit(post, server, {"observations": [native(i, instruction=w)]}) for i, w in enumerate(words)
        ]
        replies = [one.result(10) for one in asked]
        assert [reply.status_code for reply in replies] == [200, 500, 200, 200]
        assert replies[1].json()["error"] == "The policy failed on this request; the server's log says how."
        assert "vla_policy_errors_total 1.0" in requests.get(f"{url(server)}/metrics").text
        with websocket(f"ws://127.0.0.1:{server.port}/") as client:
            client.recv()
            client.send(OPENPI.pack({"observation/image": frame(), "observation/wrist_image": frame(),
                                     "observation/state": np.zeros(8), "prompt": "break"}))  # fmt: skip
            assert "secret" not in str(client.recv())


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", {"Content-Type": "application/json"}, 400),
        (b"[" * 100_000, {"Content-Type": "application/json"}, 400),
        (b"\xc1", {}, 400),
        (b"x" * 2**20 + b"x", {}, 413),
        (b"{}", {"Content-Type": "text/html"}, 415),
        (gzip.compress(b"{}"), {"Content-Encoding": "gzip", "Content-Type": "application/json"}, 415),
        (b"--x\r\n", {"Content-Type": "multipart/form-data; boundary=x"}, 422),
        (b"", {"Content-Type": "multipart/form-data"}, 400),
    ],
)
def test_bodies_that_cannot_be_read(server: Server, body: bytes, headers: dict[str, str], status: int) -> None:
    reply = post(server, body, headers=headers)
    assert (reply.status_code, sorted(reply.json())) == (status, ["error", "field"])


def test_a_body_of_unsaid_length_is_cut_off_at_the_limit(server: Server) -> None:
    reply = post_chunks(server, (b"x" * 100_000 for _ in range(12)))
    assert reply.status_code == 413


def post_chunks(server: Server, chunks: Iterator[bytes]) -> requests.Response:
    return requests.post(f"{url(server)}/act", data=chunks, headers={"Content-Type": "application/msgpack"}, timeout=30)


def bomb() -> bytes:
    """Return 20 kB of PNG that hold 400 MB of black."""
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    "image",
    [
        bomb(),
        {"__image__": True, "format": "png", "data": bomb()},
        {"__ndarray__": True, "data": b"x" * 8, "dtype": "|O", "shape": [1]},
        {"__ndarray__": True, "data": b"x" * 8, "dtype": "|u1", "shape": [2**40, 2**40]},
        {"__ndarray__": True, "data": b"", "dtype": "<f8", "shape": [2**62, 0]},
        {"__ndarray__": True, "data": b"x", "dtype": "V1", "shape": [1]},
    ],
    ids=["bomb", "bomb in a marked map", "objects", "sizes", "empty", "records"],
)
def test_bombs_and_objects_are_refused(server: Server, image: Any) -> None:
    reply = post(server, msgpack.packb({"image": image, "instruction": "x"}))
    assert reply.status_code in (400, 422) and "image" in reply.json()["error"] + "image"


def test_a_token_is_asked_for_on_every_protocol() -> None:
    with serving(LookingPolicy(), token="geheim") as server:
        address = f"127.0.0.1:{server.port}"
        for headers in (
            {},
            {"Authorization": "Bearer no"},
            {"Authorization": "geheim"},
            {"Authorization": "Basic geheim"},
        ):
            assert post(server, b"", headers=headers).status_code == 401
            assert requests.get(f"{url(server)}/metadata", headers=headers).status_code == 401
            assert requests.get(f"{url(server)}/metrics", headers=headers).status_code == 401
        for scheme in ("Bearer", "Api-Key"):
            assert requests.get(f"{url(server)}/metadata", headers={"Authorization": f"{scheme} geheim"}).ok
        assert requests.get(f"{url(server)}/health").ok and requests.get(f"{url(server)}/healthz").text == "OK\n"
        for path in ("/", "/openpi", "/vla-eval?token=wrong"):
            with pytest.raises(InvalidStatus), websocket(f"ws://{address}{path}"):
                pass
        with websocket(f"ws://{address}/openpi", additional_headers={"Authorization": "Api-Key geheim"}) as client:
            assert OPENPI.unpack(client.recv())["server"] == "vla-harness"
        with pytest.raises(UserError, match=r"refused \(401\): Authorization: send the server's token"):
            RemotePolicy(url(server), token="wrong", patience_s=1)
        for kind in (
            url(server),
            f"ws://{address}/vla-eval",
            f"ws://{address}/openpi",
            f"tcp://127.0.0.1:{server.zmq_port}",
        ):
            remote = RemotePolicy(kind, token="geheim", patience_s=5)
            assert remote.act([observation()]).shape[0] == 1
            remote.forget(observation().episode)


def test_web_pages_do_not_reach_an_open_server(server: Server) -> None:
    reply = requests.get(f"{url(server)}/metadata", headers={"Host": "rebound.example"})
    assert (reply.status_code, reply.json()["field"]) == (403, "Host")
    reply = requests.get(f"{url(server)}/metadata", headers={"Origin": "http://evil.example"})
    assert (reply.status_code, reply.json()["field"]) == (403, "Origin")
    headers = {"Origin": "http://evil.example"}
    with pytest.raises(InvalidStatus), websocket(f"ws://127.0.0.1:{server.port}/", additional_headers=headers):
        pass


def zmq_call(server: Server, message: Any) -> Any:
    with zmq.Context() as context, context.socket(zmq.REQ) as client:
        client.setsockopt(zmq.LINGER, 0)
        client.connect(f"tcp://127.0.0.1:{server.zmq_port}")
        client.send(message if isinstance(message, bytes) else GROOT.pack(message))
        assert client.poll(10_000)
        return GROOT.unpack(client.recv())


def test_groot_n16_bodies() -> None:
    policy = LookingPolicy()
    with serving(policy, groot_version="n1.6") as server:
        seen = observation()
        batch = {
            "video": {camera: np.stack([image, image])[:, None] for camera, image in seen.images.items()},
            "state": {
                "eef_pos": np.zeros((2, 1, 3)),
                "eef_axis_angle": np.zeros((2, 1, 3)),
                "gripper_qpos": np.zeros((2, 1, 2)),
            },
            "language": {"task": [["go left"], ["go right"]]},
        }
        actions, info = zmq_call(server, {"endpoint": "get_action", "data": {"observation": batch, "options": None}})
        assert info == {} and {key: value.shape for key, value in actions.items()} == {
            "translation": (2, 3, 3),
            "rotation": (2, 3, 3),
            "gripper": (2, 3, 1),
        }
        wanted = np.stack([policy.one(asked) for asked in policy.seen[-2:]])
        np.testing.assert_array_equal(np.concatenate(list(actions.values()), axis=-1), wanted)
        assert [asked.instruction for asked in policy.seen[-2:]] == ["go left", "go right"]
        assert zmq_call(server, {"endpoint": "reset", "data": {"options": None}}) == {}
        config = zmq_call(server, {"endpoint": "get_modality_config"})
        assert config["video"]["modality_keys"] == ["video.agentview", "video.wrist"]


def test_zeromq_refuses_in_sentences_and_kill_needs_a_token() -> None:
    with serving(LookingPolicy()) as server:
        assert zmq_call(server, {"endpoint": "kill"}) == {
            "error": "kill: a server without a token is stopped where it runs."
        }
        assert zmq_call(server, b"\xc1") == {"error": "The message is no msgpack: FormatError."}
        assert zmq_call(server, {"endpoint": "dance"}) == {"error": "Unknown endpoint: dance"}
        assert zmq_call(server, {"data": {}}) == {"error": "video.agentview: missing; send (T, H, W, 3) uint8."}
    with serving(LookingPolicy(), token="geheim") as server:
        assert zmq_call(server, {"endpoint": "kill"}) == {"error": "Unauthorized: Invalid API token"}
        assert zmq_call(server, {"endpoint": "ping", "api_token": "geheim"})["status"] == "ok"
        assert zmq_call(server, {"endpoint": "kill", "api_token": "geheim"})["status"] == "ok"
        until = time.monotonic() + 10
        with pytest.raises(requests.ConnectionError):
            while time.monotonic() < until:
                requests.get(f"{url(server)}/health", timeout=1)


def test_shutdown_finishes_what_is_in_flight() -> None:
    policy = LookingPolicy(seconds=1.0)
    done: list[Any] = []

    def talk(port: int) -> None:
        with websocket(f"ws://127.0.0.1:{port}/") as client:
            client.recv()
            client.send(OPENPI.pack({"observation/image": frame(), "observation/wrist_image": frame(),
                                     "observation/state": np.zeros(8), "prompt": "x"}))  # fmt: skip
            done.append(OPENPI.unpack(client.recv())["actions"].shape)

    with serving(policy, drain_s=20.0) as server:
        talker = threading.Thread(target=talk, args=(server.port,))
        asker = threading.Thread(target=lambda: done.append(post(server, {"observations": [native()]}).status_code))
        talker.start()
        asker.start()
        wait_until(lambda: server.service.unfinished == 2)
        server.stop()
        wait_until(lambda: server.service.draining)
        refused = requests.get(f"{url(server)}/health")
        assert (refused.status_code, refused.json()["status"]) == (503, "shutting down")
    talker.join()
    asker.join()
    assert sorted(done, key=str) == [(3, 7), 200]


def test_compatible_failures_are_the_reference_s() -> None:
    with serving(RawPolicy(), openvla_compat=True) as server:
        bad: dict[str, Any] = {"image": json_array(frame()), "instruction": "x", "unnorm_key": "nope"}
        reply = requests.post(f"{url(server)}/act", json=bad)
        assert (reply.status_code, reply.text) == (200, '"error"')
    with serving(RawPolicy()) as server:
        reply = requests.post(f"{url(server)}/act", json=bad)
        sentence = "There is no unnorm_key 'nope': choose bridge_orig."
        assert (reply.status_code, reply.json()) == (422, {"error": sentence, "field": ""})
        plain = requests.post(f"{url(server)}/act", json=bad | {"unnorm_key": "bridge_orig", "image": png()})
        assert plain.json()["action"][3:] == [32, 32, 3, 1]


def png() -> str:
    import base64

    file = io.BytesIO()
    Image.fromarray(frame()).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def test_a_policy_that_reads_the_simulator_is_not_served() -> None:
    with pytest.raises(UserError, match="reads the simulator's state, which no client sends"):
        ActionService(load_policy("scripted"))


def test_a_server_that_is_gone_costs_one_sentence() -> None:
    with serving(LookingPolicy()) as server:
        remote = RemotePolicy(url(server), patience_s=0.3)
    with pytest.raises(ServerError, match=r"gave no action within 0.3 seconds: \w*Error"):
        remote.act([observation()])
    for scheme in ("http", "ws"):
        with pytest.raises(UserError, match="check --server, its token and that it runs"):
            RemotePolicy(f"{scheme}://127.0.0.1:{server.port}", patience_s=0.2)
    with pytest.raises(UserError, match="give http://, https://, ws://, wss:// or tcp://HOST:PORT"):
        RemotePolicy("localhost:8000")


def test_vla_eval_messages_that_are_none_are_answered_and_the_connection_stays(server: Server) -> None:
    with websocket(f"ws://127.0.0.1:{server.port}/vla-eval") as client:
        for message in (b"\xc1", "text", msgpack.packb([1]), msgpack.packb({"type": "hello"})):
            client.send(message)
            assert VLA_EVAL.unpack(client.recv())["type"] == "error"
        client.send(VLA_EVAL.pack({"type": "hello", "payload": {}, "seq": 7, "timestamp": 0.0}))
        reply = VLA_EVAL.unpack(client.recv())
        assert (reply["type"], reply["seq"], reply["payload"]["model_server"]) == ("hello", 7, "looking")
    assert requests.get(f"{url(server)}/config?max_batch_size=3").json()["config"]["max_batch_size"] == 64


def test_openapi_describes_the_forms_with_examples_that_work() -> None:
    with serving(LookingPolicy()) as server:
        described = requests.get(f"{url(server)}/openapi.json").json()
        body = described["paths"]["/act"]["post"]["requestBody"]["content"]["application/json"]
        assert requests.get(f"{url(server)}/docs").ok
        statuses = {
            name: requests.post(f"{url(server)}/act", data=json.dumps(example["value"])).status_code
            for name, example in body["examples"].items()
        }
    assert statuses == {"openvla": 422, "base64": 422, "openvla-oft": 200}  # this policy sees two cameras
