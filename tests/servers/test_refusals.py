"""What the server refuses, and how: wrong fields, bombs, strangers, web pages."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np
import pytest
import requests
from PIL import Image
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect as websocket

from tests.servers.toys import (
    LookingPolicy,
    RawPolicy,
    frame,
    native,
    observation,
    post,
    serving,
    url,
)
from vla_harness import UserError
from vla_harness.servers.action_server import Server
from vla_harness.servers.core.security import GuessLimiter
from vla_harness.servers.remote.policy import RemotePolicy
from vla_harness.servers.wire.codecs import OPENPI, VLA_EVAL, json_array


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(LookingPolicy(), max_body_mb=1.0) as server:
        yield server


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"images": {"agentview": frame()}}, "observations.0.images.wrist: missing; send an image."),
        ({"images": [1]}, "observations.0.images: expected a map with text keys, got list of length 1."),
        (
            {"state": [1.0, float("nan")] + [0.0] * 6},
            "observations.0.state: expected 8 finite numbers, none beyond a million, got list of length 8.",
        ),
        (
            {"state": np.zeros(7)},
            "observations.0.state: expected 8 finite numbers, none beyond a million,"
            " got an array of shape [7] and dtype float64.",
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


def test_a_token_is_asked_for_on_every_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GuessLimiter, "EVERY_S", 0.01)  # wrong ones come one after the other here
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
        with pytest.raises(UserError, match="refused the connection: server rejected WebSocket connection: HTTP 403"):
            RemotePolicy(f"ws://{address}", token="wrong", patience_s=30)
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
