"""Clients of a server that is not there yet, or behind a proxy: what they say, and which way they take."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.servers.toys import LookingPolicy, observation, serving
from vla_harness import UserError
from vla_harness.servers.remote.network import is_this_machine
from vla_harness.servers.remote.policy import RemotePolicy

DEAD_PROXY = "http://user:secret@127.0.0.1:9"


@pytest.fixture
def free_port() -> Iterator[int]:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.mark.parametrize("scheme", ["http", "ws", "tcp"])
def test_a_refused_connection_is_waited_for_with_one_line(
    scheme: str, free_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"{scheme}://127.0.0.1:{free_port}"
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(UserError, match=r"gave no action within 0.5 seconds: .*refused"),
    ):
        RemotePolicy(url, patience_s=0.5)
    (line,) = caplog.messages
    assert line.startswith(f"{url}: ConnectionRefusedError") and line.endswith("waiting up to 0.5 seconds.")


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, DEAD_PROXY)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")


@pytest.mark.usefixtures("proxied")
def test_websockets_of_this_machine_go_without_the_proxy_of_the_environment() -> None:
    with serving(LookingPolicy()) as server:
        for host in ("127.0.0.1", "localhost"):
            remote = RemotePolicy(f"ws://{host}:{server.port}/openpi", patience_s=1)
            assert remote.act([observation()]).shape == (1, 3, 7)
            remote.forget(observation().episode)


@pytest.mark.usefixtures("proxied")
@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_a_proxy_that_is_not_there_is_named_at_once(scheme: str) -> None:
    with pytest.raises(UserError) as raised:
        RemotePolicy(f"{scheme}://192.0.2.1:8000", patience_s=60)
    said = str(raised.value)
    assert "through the proxy http://127.0.0.1:9" in said and "add 192.0.2.1 to $no_proxy" in said
    assert "secret" not in said


def test_a_proxy_that_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=refuse)
        thread.start()
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{listener.getsockname()[1]}")
        monkeypatch.setenv("no_proxy", "")
        with pytest.raises(UserError, match=r"through the proxy http://127.0.0.1.*no_proxy.*403"):
            RemotePolicy("wss://192.0.2.1:8000", patience_s=60)
        thread.join(10)


def test_addresses_of_this_machine() -> None:
    assert is_this_machine("127.0.0.1") and is_this_machine("localhost") and not is_this_machine("192.0.2.1")
