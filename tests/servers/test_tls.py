"""https and wss with a certificate of the test's own."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests

from tests.servers.toys import ANYONE, LookingPolicy, native, observation, post, serving, url
from vla_harness import UserError
from vla_harness.servers.action_server import Server
from vla_harness.servers.client import connect
from vla_harness.servers.core.connections import ConnectionLimits
from vla_harness.servers.remote.policy import RemotePolicy


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate of 127.0.0.1, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    files = folder / "certificate.pem", folder / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-out", str(files[0]), "-keyout", str(files[1])]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    return files


@pytest.fixture
def server(certificate: tuple[Path, Path]) -> Iterator[Server]:
    limits = ConnectionLimits(header_s=1.0)
    with serving(LookingPolicy(), tls_certificate=certificate[0], tls_key=certificate[1], limits=limits) as server:
        yield server


def test_act_over_https_and_wss(
    server: Server, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    seen = observation()
    wanted = LookingPolicy().one(seen)
    with connect(url(server), patience_s=5) as client:
        chunk = client.act(seen.images, seen.state, seen.instruction, seen.episode, seen.step)
    np.testing.assert_array_equal(chunk, wanted)
    for address in (url(server), url(server).replace("https", "wss")):
        remote = RemotePolicy(address, patience_s=5)
        np.testing.assert_array_equal(remote.act([seen])[0], wanted)
        remote.forget(seen.episode)


def test_a_certificate_that_nobody_vouches_for_is_refused_at_once(server: Server) -> None:
    for address in (url(server), url(server).replace("https", "wss")):
        with pytest.raises(UserError, match="cannot be spoken to over TLS"):
            RemotePolicy(address, patience_s=60)
    with pytest.raises(requests.exceptions.SSLError):
        post(server, {"observations": [native()]})


def test_plain_http_gets_nothing(server: Server) -> None:
    with pytest.raises(requests.ConnectionError):
        requests.get(url(server).replace("https", "http") + "/health", timeout=5)


def test_a_silent_client_is_closed_before_and_after_the_handshake(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as plain:
        assert plain.recv(100) == b""
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as plain,
        ANYONE.wrap_socket(plain) as secure,
    ):
        assert secure.recv(100) == b""
