"""Messages and connections that would take up the server: entries, pixels, fragments, clients that left."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import msgpack
import numpy as np
import pytest
import requests
import zmq
from PIL import Image
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as websocket

from tests.servers.toys import (
    LookingPolicy,
    RawPolicy,
    all_that_comes,
    frame,
    native,
    observation,
    post,
    serving,
    url,
    wait_until,
)
from vla_harness.servers.action_server import Server
from vla_harness.servers.core import fields
from vla_harness.servers.core.connections import ConnectionLimits
from vla_harness.servers.protocols.zeromq import UNAUTHORIZED
from vla_harness.servers.remote.websocket_clients import OpenpiClient, VlaEvalClient
from vla_harness.servers.remote.zeromq_client import Gr00tClient
from vla_harness.servers.wire.codecs import GROOT, MAX_ENTRIES, json_array

TOKEN = "a token of the tests"
MAPS = b"\x91" + b"\xdc\x27\x10" + b"\x80" * 10_000  # [[{}, {}, …]]
LARGE = b"\xdc" + (600).to_bytes(2, "big") + (b"\xdc\x27\x10" + b"\x80" * 10_000) * 600  # six million empty maps


def picture(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("1", (width, height)).save(file, "PNG")
    return file.getvalue()


HALF = picture(4096, 2100)  # two of them are more than a message may have


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    limits = ConnectionLimits(request_s=0.5, reply_s=0.5)
    with serving(LookingPolicy(), limits=limits, max_queue=8) as server:
        yield server


@pytest.fixture(scope="module")
def guarded() -> Iterator[Server]:
    with serving(LookingPolicy(), TOKEN) as server:
        yield server


def ask(server: Server, *parts: bytes, kind: int = zmq.REQ) -> Any:
    """Return what a ZeroMQ client gets for a message."""
    with zmq.Context() as context, context.socket(kind) as client:
        client.setsockopt(zmq.LINGER, 0)
        client.connect(f"tcp://127.0.0.1:{server.zmq_port}")
        client.send_multipart(parts)
        assert client.poll(20_000)
        return GROOT.unpack(client.recv_multipart()[-1])


def test_more_entries_than_a_message_may_have_are_refused_on_every_protocol(server: Server) -> None:
    said = f"more than {MAX_ENTRIES} entries"
    assert said in post(server, LARGE).json()["error"]
    crowded = b"[" + b"{}," * MAX_ENTRIES + b"{}]"
    reply = requests.post(f"{url(server)}/act", data=crowded, headers={"Content-Type": "application/json"})
    assert reply.status_code == 400 and said in reply.json()["error"]
    assert said in ask(server, LARGE)["error"]
    with websocket(f"ws://127.0.0.1:{server.port}/openpi", max_size=None) as client:
        client.recv()
        client.send(LARGE)
        assert said in str(client.recv())
    with websocket(f"ws://127.0.0.1:{server.port}/vla-eval", max_size=None) as client:
        client.send(LARGE)
        assert said in msgpack.unpackb(client.recv())["payload"]["error"]
    assert post(server, {"observations": [native()]}).ok


def test_zeromqs_token_comes_before_what_else_the_message_holds(guarded: Server) -> None:
    bad_array = {"__ndarray_class__": True, "as_npy": b"no array"}
    message = {"endpoint": "get_action", "data": {"video.agentview": bad_array}}
    assert ask(guarded, msgpack.packb(message)) == {"error": UNAUTHORIZED}
    assert ask(guarded, msgpack.packb(message | {"api_token": [TOKEN]})) == {"error": UNAUTHORIZED}
    assert "as_npy" in ask(guarded, msgpack.packb(message | {"api_token": TOKEN}))["error"]


@pytest.mark.parametrize(
    ("parts", "kind", "said"),
    [
        ([b"a", b"b"], zmq.REQ, "2 parts"),
        ([b""], zmq.REQ, "no msgpack"),
        ([msgpack.packb({"endpoint": "ping"})], zmq.DEALER, None),
        ([b""], zmq.DEALER, "0 parts"),
        ([msgpack.packb({"endpoint": ["x"]})], zmq.REQ, "Unknown endpoint"),
        ([msgpack.packb({"endpoint": "get_action", "data": {"annotation.x": [1]}})], zmq.REQ, "annotation.x"),
    ],
)
def test_zeromq_clients_always_get_an_answer(server: Server, parts: list[bytes], kind: int, said: str | None) -> None:
    reply = ask(server, *parts, kind=kind)
    assert reply["status"] == "ok" if said is None else said in reply["error"]


def test_a_zeromq_request_whose_client_left_is_not_computed() -> None:
    policy = LookingPolicy(seconds=0.3, max_batch=1)
    with serving(policy) as server:
        state = {"state.eef_pos": np.zeros((1, 3)), "state.eef_axis_angle": np.zeros((1, 3))}
        state |= {"state.gripper_qpos": np.zeros((1, 2))}
        videos = {f"video.{camera}": frame()[None] for camera in ("agentview", "wrist")}

        def message(text: str) -> bytes:
            data = {**state, **videos, "annotation.human.task_description": [text]}
            return GROOT.pack({"endpoint": "get_action", "data": data})

        first = threading.Thread(target=ask, args=(server, message("first")))
        first.start()
        wait_until(lambda: server.service.unfinished == 1)
        with zmq.Context() as context, context.socket(zmq.REQ) as leaving:
            leaving.connect(f"tcp://127.0.0.1:{server.zmq_port}")
            leaving.send(message("left"))
            wait_until(lambda: server.service.unfinished == 2)
            leaving.close(linger=0)
        wait_until(lambda: server.service.unfinished < 2)
        ask(server, message("last"))
        first.join(10)
    assert [seen.instruction for seen in policy.seen[1:]] == ["first", "last"]


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def vla_eval(server: Server, image: Any) -> str:
    client = VlaEvalClient(f"ws://127.0.0.1:{server.port}/vla-eval", patience_s=5)
    images = {"agentview": image, "wrist": image}
    try:
        client.act({"images": images, "states": np.zeros(8), "task_description": "x"})
    except Exception as error:
        return str(error)
    finally:
        client.close()
    return ""


def openpi(server: Server, image: Any) -> str:
    client = OpenpiClient(f"ws://127.0.0.1:{server.port}/openpi", patience_s=5)
    message = {"observation/image": image, "observation/wrist_image": image, "observation/state": np.zeros(8)}
    try:
        client.infer(message)
    except Exception as error:
        return str(error)
    finally:
        client.close()
    return ""


def over_http(server: Server, image: Any, **options: Any) -> str:
    seen = native() | {"images": {"agentview": image, "wrist": image}}
    return str(post(server, {"observations": [seen]}, **options).json().get("error"))


def as_json(server: Server, image: Any) -> str:
    message = {"full_image": image, "wrist_image": image, "state": [0.0] * 8, "instruction": "x"}
    return str(requests.post(f"{url(server)}/act", data=json.dumps(message)).json().get("error"))


def as_form(server: Server, image: bytes) -> str:
    fields = {"instruction": "x", "state": json.dumps([0.0] * 8)}
    files = {"full_image": image, "wrist_image": image}
    return str(requests.post(f"{url(server)}/act", data=fields, files=files).json().get("error"))


def over_zeromq(server: Server, image: np.ndarray) -> str:
    data = {"video.agentview": image, "video.wrist": image, "annotation.x": ["x"]}
    return str(ask(server, GROOT.pack({"endpoint": "get_action", "data": data}))["error"])


GRAY = np.zeros((2100, 4096), np.uint8)


@pytest.mark.parametrize(
    ("send", "image"),
    [
        (over_http, HALF),
        (over_http, in_base64(HALF)),
        (over_http, {"__image__": True, "format": "png", "data": HALF}),
        (over_http, GRAY),
        (as_json, in_base64(HALF)),
        (as_json, json_array(GRAY)),
        (as_form, HALF),
        (openpi, HALF),
        (openpi, GRAY),
        (vla_eval, {"__image__": True, "format": "png", "data": HALF}),
        (vla_eval, GRAY),
        (over_zeromq, np.zeros((1, 2100, 4096, 3), np.uint8)),
    ],
)
def test_the_pixels_of_a_message_hold_for_all_its_images(
    server: Server, send: Callable[[Server, Any], str], image: Any
) -> None:
    said = send(server, image)
    assert "pixels, and at most" in said and "beside the others of its message" in said


def test_pictures_are_decoded_beside_the_event_loop(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []
    read = fields.read_picture

    def noted(*arguments: Any) -> np.ndarray:
        image = read(*arguments)
        threads.append(threading.current_thread().name)
        return image

    monkeypatch.setattr(fields, "read_picture", noted)
    small = picture(32, 32)
    assert post(server, {"observations": [native() | {"images": {"agentview": small, "wrist": small}}]}).ok
    assert vla_eval(server, {"__image__": True, "format": "png", "data": small}) == ""
    assert len(threads) == 4 and all(name.startswith("decode") for name in threads)


# Websockets.


def shaken(server: Server, path: str = "/openpi", **options: int) -> socket.socket:
    """Return a socket that speaks to a websocket byte by byte."""
    connection = socket.socket()
    if buffer := options.get("buffer"):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    connection.settimeout(20)
    connection.connect(("127.0.0.1", server.port))
    key = base64.b64encode(os.urandom(16)).decode()
    connection.sendall(
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    reply = b""
    while b"\r\n\r\n" not in reply:
        reply += connection.recv(1)
    return connection


def header(opcode: int, size: int, last: bool = True) -> bytes:
    """Return a client's frame header of fewer than 126 bytes; the mask is zero."""
    return bytes([opcode | (0x80 if last else 0), 0x80 | size, 0, 0, 0, 0])


def test_a_message_in_very_many_fragments_ends_the_connection(server: Server) -> None:
    with shaken(server) as connection:
        connection.sendall(header(2, 1, last=False) + b"x" + (header(0, 1, last=False) + b"x") * 2000)
        assert b"more than 1024 fragments" in all_that_comes(connection)


@pytest.mark.parametrize("begun", [header(2, 9) + b"x", header(2, 1, last=False) + b"x"], ids=["frame", "fragment"])
def test_a_message_that_does_not_arrive_ends_the_connection(server: Server, begun: bytes) -> None:
    with shaken(server) as connection:
        connection.sendall(begun)
        assert b"the message did not arrive" in all_that_comes(connection)


def test_answers_that_nobody_reads_end_the_connection(server: Server) -> None:
    with shaken(server, buffer=4096) as connection, pytest.raises(OSError):
        while True:
            connection.sendall((header(9, 125) + bytes(125)) * 100)


def test_websockets_go_for_others_when_there_are_too_many() -> None:
    with serving(LookingPolicy(), limits=ConnectionLimits(connections=3)) as server:
        address = f"ws://127.0.0.1:{server.port}/vla-eval"
        with ExitStack() as opened:
            first, *_ = [opened.enter_context(websocket(address)) for _ in range(4)]
            with pytest.raises(ConnectionClosed):
                first.recv(timeout=10)
        assert requests.get(f"{url(server)}/health").ok


def test_texts_that_utf_8_cannot_hold_are_refused() -> None:
    with serving(RawPolicy()) as server:
        body = json.dumps({"image": json_array(frame()), "instruction": "\ud800", "unnorm_key": "bridge_orig"})
        reply = requests.post(f"{url(server)}/act", data=body)
        assert reply.status_code == 422 and "half a character" in reply.json()["error"]
        reply = requests.post(f"{url(server)}/act", data=json.dumps({"observation": {"\ud800": 1}}))
        assert reply.status_code == 422


def test_states_beyond_a_robots_are_refused_over_zeromq(server: Server) -> None:
    for value in (1e30, float("nan")):
        data = {"state.eef_pos": np.full((1, 3), value), "annotation.x": ["x"]}
        assert "state.eef_pos" in ask(server, GROOT.pack({"endpoint": "get_action", "data": data}))["error"]


def test_a_drain_that_runs_out_answers_zeromq_clients() -> None:
    with serving(LookingPolicy(seconds=1.5), drain_s=0.2) as server:
        seen = observation()
        client = Gr00tClient(f"tcp://127.0.0.1:{server.zmq_port}", timeout_s=20, patience_s=1)
        data: dict[str, Any] = {f"video.{camera}": image[None] for camera, image in seen.images.items()}
        data |= {"state.eef_pos": np.zeros((1, 3)), "state.eef_axis_angle": np.zeros((1, 3))}
        data |= {"state.gripper_qpos": np.zeros((1, 2)), "annotation.x": ["x"]}
        replies: list[str] = []

        def call() -> None:
            try:
                client.call("get_action", data)
            except Exception as error:
                replies.append(str(error))

        thread = threading.Thread(target=call)
        thread.start()
        wait_until(lambda: server.service.unfinished == 1)
        server.stop()
        thread.join(15)
    assert len(replies) == 1 and "stopped before this was answered" in replies[0]
