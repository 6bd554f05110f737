"""Addresses that name the wrong scheme, certificate or port are one sentence at once, in every client."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.test_remote_metadata import arms, groot_server
from tests.servers.toys import LookingPolicy, serving, url
from vla_harness.errors import UserError
from vla_harness.servers.action_server import Server
from vla_harness.servers.remote.policy import RemotePolicy

SCHEMES = {"http": "https", "ws": "wss"}


def certificate(folder: Path, names: str) -> tuple[Path, Path]:
    files = folder / "certificate.pem", folder / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=toy"
    options = ["-addext", f"subjectAltName={names}", "-out", str(files[0]), "-keyout", str(files[1])]
    subprocess.run([*command.split(), *options], check=True, capture_output=True)
    return files


@pytest.fixture(scope="module")
def plain() -> Iterator[Server]:
    with serving(LookingPolicy()) as server:
        yield server


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """A server whose certificate is for another name, and the certificate."""
    files = certificate(tmp_path_factory.mktemp("tls"), "DNS:elsewhere.example")
    with serving(LookingPolicy(), tls_certificate=files[0], tls_key=files[1]) as server:
        yield server, files[0]


def sentence(address: str) -> str:
    """What a user reads who gives ``address``, which must not take the minute that a server is waited for."""
    started = time.monotonic()
    with pytest.raises(UserError) as caught:
        RemotePolicy(address, patience_s=60.0)
    assert time.monotonic() - started < 30.0
    assert str(caught.value).count("\n") == 0 and "_ssl.c" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_server_without_tls(scheme: str, plain: Server) -> None:
    secure = url(plain).replace("http", SCHEMES[scheme], 1)
    there = url(plain).replace("http", scheme, 1)
    assert sentence(secure) == (
        f"{secure} cannot be spoken to over TLS, as it speaks none: give {there}, or have it serve TLS."
    )


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_server_with_tls(scheme: str, other: tuple[Server, Path]) -> None:
    address = url(other[0]).replace("https", scheme, 1)
    assert sentence(address) == f"{address} speaks TLS: give {address.replace(scheme, SCHEMES[scheme], 1)}."


@pytest.mark.parametrize("scheme", SCHEMES.values())
def test_certificates(scheme: str, other: tuple[Server, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    server, file = other
    address = url(server).replace("https", scheme, 1)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    unknown = sentence(address)
    assert (
        "nobody here vouches for its certificate (self-signed certificate)" in unknown and "$SSL_CERT_FILE" in unknown
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    assert "its certificate is another's (IP address mismatch" in sentence(address)


def test_zeromqs_client_says_what_else_listens(plain: Server, other: tuple[Server, Path]) -> None:
    for server, scheme in ((plain, "http"), (other[0], "https")):
        address = url(server).replace(scheme, "tcp", 1)
        assert f"{address} speaks {scheme} and no ZeroMQ: give {scheme}://" in sentence(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_a_name_with_addresses_of_both_families_reaches_the_one_that_answers(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def both(name: str, port: int, *_: object) -> list[tuple[object, ...]]:
        assert name == "twofold"
        kind = socket.SOCK_STREAM
        return [
            (socket.AF_INET6, kind, 0, "", ("::1", port, 0, 0)),
            (socket.AF_INET, kind, 0, "", ("127.0.0.1", port)),
        ]

    with groot_server(arms, host) as address:
        monkeypatch.setattr(socket, "getaddrinfo", both)
        assert RemotePolicy(f"tcp://twofold:{address.rpartition(':')[2]}", patience_s=5.0).spec.horizon == 16


@pytest.mark.parametrize(
    "address",
    [
        *("http://there:99999", "ws://there:99999", "wss://there:abc", "http://[", "ws://[", "tcp://[::1", "http://"),
        *(
            "http://a b",
            "ws://there\n",
            "http://a\0b:80",
            "tcp://\ud800:80",
            f"ws://{'a' * 300}:80",
            "ftp://there",
            "there",
        ),
    ],
)
def test_what_is_no_address_is_a_sentence(address: str) -> None:
    assert sentence(address).startswith(f"{address!r} is no address of a server: give HOST:PORT behind one of http://,")
