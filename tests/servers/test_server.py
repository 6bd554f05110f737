"""The server's own conduct: batches, back-pressure, memory, failures, shutdown."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import requests
import zmq
from websockets.sync.client import connect as websocket

from tests.servers.toys import (
    LookingPolicy,
    RememberingPolicy,
    frame,
    native,
    observation,
    post,
    serving,
    url,
    wait_until,
)
from vla_harness import UserError, load_policy
from vla_harness.servers.action_server import Server
from vla_harness.servers.client import ServerError, connect
from vla_harness.servers.core import sessions
from vla_harness.servers.core.service import ActionService
from vla_harness.servers.remote.policy import RemotePolicy
from vla_harness.servers.wire.codecs import GROOT, OPENPI, VLA_EVAL


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
    with pytest.raises(UserError, match="give HOST:PORT behind one of http://, https://"):
        RemotePolicy("localhost:8000")
