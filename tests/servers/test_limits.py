"""What strangers may take up before anybody looks at their token: connections, headers, time, memory, guesses."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import requests

from tests.servers.toys import LookingPolicy, all_that_comes, native, post, serving, url, wait_until
from vla_harness.servers.action_server import Server
from vla_harness.servers.core.connections import ConnectionLimits
from vla_harness.servers.core.refusal import Refusal
from vla_harness.servers.core.security import GuessLimiter
from vla_harness.servers.wire.codecs import VLA_EVAL

LIMITS = ConnectionLimits(
    connections=8, header_kb=8, header_s=0.6, request_s=1.2, reply_s=1.0, idle_s=1.5, pipelined=4, upload_mb=1
)
HEAD = b"POST /act HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/msgpack\r\n"
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(LookingPolicy(), limits=LIMITS, max_body_mb=1.0) as server:
        yield server


@contextmanager
def connected(server: Server, *parts: bytes) -> Iterator[socket.socket]:
    """Open a connection and send ``parts``."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        for part in parts:
            connection.sendall(part)
        yield connection


def status(reply: bytes) -> int:
    return int(reply.split(maxsplit=2)[1]) if reply else 0


def healthy(server: Server) -> bool:
    return requests.get(f"{url(server)}/health", timeout=5).ok


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ([], 0),
        ([b"\r\n"], 0),
        ([b"POST /act HT"], 408),
        ([HEAD], 408),
        ([HEAD, b"X: 1\r\n" * 10], 408),
        ([HEAD, b"Content-Length: 1000\r\n\r\n", b"x"], 408),
        ([HEAD, b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\nabc"], 408),
        ([HEALTH, b"GET"], 200),
    ],
    ids=[
        "silent",
        "empty line",
        "half a line",
        "half a header",
        "many fields",
        "half a body",
        "half a chunk",
        "second",
    ],
)
def test_what_does_not_arrive_in_time_is_closed(server: Server, sent: list[bytes], expected: int) -> None:
    with connected(server, *sent) as connection:
        started = time.monotonic()
        assert status(all_that_comes(connection)) == expected
        assert time.monotonic() - started < 8
    assert healthy(server)


def test_a_trickle_does_not_prolong_the_time(server: Server) -> None:
    for head, end in ((HEAD, 408), (HEAD + b"Content-Length: 1000\r\n\r\n", 408)):
        with connected(server, head) as connection:
            connection.settimeout(0.1)
            reply = b""
            for _ in range(80):
                try:
                    connection.sendall(b"x")
                    reply = connection.recv(1000)
                    break
                except TimeoutError:
                    continue
                except OSError:
                    break
            assert status(reply) in (end, 0)
        assert healthy(server)


@pytest.mark.parametrize(
    "sent",
    [
        [HEAD, b"X: " + b"y" * 10_000 + b"\r\n\r\n"],
        [HEAD, b"X: ", *[b"y" * 5000] * 40],
        [HEAD, *[b"X: 1\r\n"] * 3000],
        [b"GET /" + b"y" * 10_000 + b" HTTP/1.1\r\n\r\n"],
        [HEAD, b"Transfer-Encoding: chunked\r\n\r\n0\r\n", *[b"X: 1\r\n"] * 3000],
    ],
    ids=["one", "endless", "many", "path", "trailers"],
)
def test_large_headers_are_refused(server: Server, sent: list[bytes]) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        try:
            for part in sent:
                connection.sendall(part)
        except OSError:  # it has been closed already
            pass
        assert status(all_that_comes(connection)) in (431, 0)
    assert healthy(server)


def test_beyond_the_limit_the_longest_waiting_connection_goes(server: Server) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(connected(server)) for _ in range(LIMITS.connections)]
        wait_until(lambda: len(server._running.server_state.connections) == LIMITS.connections)  # type: ignore[union-attr]
        assert healthy(server)  # a client that asks gets through
        assert all_that_comes(silent[0]) == b""
    assert healthy(server)


def test_connections_that_are_served_are_not_given_up() -> None:
    limits = ConnectionLimits(connections=2)
    with serving(LookingPolicy(seconds=1.0), limits=limits) as server, ThreadPoolExecutor(2) as clients:
        asked = [clients.submit(post, server, {"observations": [native(step)]}) for step in range(2)]
        wait_until(lambda: server.service.unfinished == 2)
        with connected(server, HEALTH) as connection:
            reply = all_that_comes(connection)
        assert status(reply) == 503 and b"Too many connections" in reply and b"retry-after: 1" in reply
        assert all(reply.result().ok for reply in asked)


def test_replies_that_nobody_reads_end_the_connection(server: Server) -> None:
    asked = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(10)
        connection.connect(("127.0.0.1", server.port))
        started = time.monotonic()
        with pytest.raises(OSError):  # closed by the server
            while time.monotonic() < started + 10:
                connection.sendall(asked)
    with connected(server, HEALTH * 200) as connection:
        assert all_that_comes(connection).count(b"HTTP/1.1") <= 2 * LIMITS.pipelined
    with connected(server, HEALTH * LIMITS.pipelined) as connection:
        assert all_that_comes(connection).count(b"HTTP/1.1 200") == LIMITS.pipelined
    assert healthy(server)


def test_bodies_of_all_requests_together_have_a_limit(server: Server) -> None:
    half = b"Content-Length: 700000\r\n\r\n" + b"x" * 600_000
    with connected(server, HEAD, half), connected(server, HEAD, half) as second:
        reply = all_that_comes(second)
        assert status(reply) == 503 and b"Too many large requests" in reply
    wait_until(lambda: post(server, {"observations": [native()]}).ok)  # the first one's bytes are given back


def test_an_upload_that_breaks_off_is_one_line(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        with connected(server, HEAD, b"Content-Length: 1000\r\n\r\nabc"):
            time.sleep(0.2)
        wait_until(lambda: bool(caplog.records))
        time.sleep(0.2)
    assert [record.getMessage() for record in caplog.records] == ["An upload to /act broke off after 3 bytes."]
    assert caplog.records[0].exc_info is None


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        ({"Host": "["}, "Host"),
        ({"Host": "localhost:x"}, "Host"),
        ({"Host": "a@localhost"}, "Host"),
        ({"Origin": "http://["}, "Origin"),
        ({"Origin": "null"}, "Origin"),
        ({"Host": "localhost", "Origin": "http://localhost:]"}, "Origin"),
    ],
)
def test_headers_that_are_no_addresses_are_refused(server: Server, headers: dict[str, str], field: str) -> None:
    for path in ("/act", "/metadata", "/", "/openpi"):
        reply = requests.get(f"{url(server)}{path}", headers=headers)
        assert (reply.status_code in (400, 403, 404, 405), reply.json().get("field")) == (True, field), path
    if field == "Host":
        for path in ("/health", "/docs", "/openapi.json"):
            assert requests.get(f"{url(server)}{path}", headers=headers).status_code in (200, 400, 403)


@pytest.mark.parametrize(
    "change",
    [
        {"state": [1e30] + [0.0] * 7},
        {"state": [0.0] * 7 + [-1e7]},
        {"instruction": "\ud800"},
        {"episode": "\udfff"},
        {"images": {"\ud800": 1}},
        {"images": {"agentview": "\ud800"}},
    ],
)
def test_what_no_policy_can_read_is_refused(server: Server, change: dict[str, Any]) -> None:
    seen = {"images": {}, "state": [0.0] * 8, "instruction": "x", "episode": "e"} | change
    reply = requests.post(f"{url(server)}/act", data=json.dumps({"observations": [seen], "\udc00": 1}))
    assert reply.status_code in (400, 422) and reply.json()["error"]
    reply = requests.post(f"{url(server)}/act", data=json.dumps({"encoded": json.dumps({"observations": [seen]})}))
    assert reply.status_code in (400, 422)


def test_failures_that_quote_the_client_can_be_sent(server: Server) -> None:
    with serving(LookingPolicy(), openvla_compat=True) as compatible:
        for body in ('["\ud800"]', "[1e999]", "[NaN]", '"\\ud800"'):
            reply = requests.post(f"{url(compatible)}/act", data=body.encode("utf-8", "surrogatepass"))
            assert reply.status_code in (400, 422) or reply.text == '"error"'


def test_guesses_of_the_token_are_slowed_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GuessLimiter, "EVERY_S", 0.4)
    monkeypatch.setattr(GuessLimiter, "LONGEST_S", 1.2)
    with serving(LookingPolicy(), token="geheim") as server:
        started = time.monotonic()
        statuses = []
        for guess in range(6):
            headers = {"Authorization": f"Bearer {guess}"}
            statuses.append(requests.get(f"{url(server)}/metadata", headers=headers).status_code)
        assert statuses == [401] * 6 and time.monotonic() - started > 0.3
        with ThreadPoolExecutor(16) as clients:  # all at once is no way around
            replies = list(clients.map(lambda _: requests.get(f"{url(server)}/metadata", headers=headers), range(16)))
        codes = sorted(reply.status_code for reply in replies)
        assert codes.count(429) >= 12 and set(codes) == {401, 429}
        assert all(reply.headers["Retry-After"] in ("1", "2") for reply in replies if reply.status_code == 429)
        assert healthy(server)


def test_clients_with_the_token_never_wait_and_other_addresses_are_not_meant() -> None:
    limiter = GuessLimiter()
    for _ in range(1000):
        assert limiter.reserve("10.0.0.1") == 0
        limiter.forgive("10.0.0.1")
    waits = [limiter.reserve("10.0.0.2") for _ in range(8)]
    assert waits[:5] == [0] * 5 and waits[5:] == pytest.approx([2, 4, 6], abs=0.1)
    with pytest.raises(Refusal) as refused:
        limiter.reserve("10.0.0.2")
    assert (refused.value.status, refused.value.retry_after_s) == (429, 8)
    assert limiter.reserve("10.0.0.3") == 0
    for number in range(8):
        limiter.reserve(f"2001:db8::{number}")
    with pytest.raises(Refusal):
        limiter.reserve("2001:db8::ffff")
    assert limiter.reserve("2001:db9::1") == 0


def test_two_hundred_clients_at_once() -> None:
    with serving(LookingPolicy(max_batch=64), max_queue=256) as busy, ExitStack() as stack:
        body = VLA_EVAL.pack({"observations": [native()]})
        head = HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        clients = [stack.enter_context(connected(busy, head)) for _ in range(200)]
        for client in clients:
            client.sendall(body)
        assert [status(all_that_comes(client)) for client in clients] == [200] * 200
        wait_until(lambda: busy._running.server_state.connections == set())  # type: ignore[union-attr]
