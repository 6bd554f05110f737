"""What a server is started with: ports, certificates and tokens are looked at before the policy loads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vla_harness.errors import UserError
from vla_harness.servers.action_server import ActionServer, bind_server
from vla_harness.servers.core.startup import check_certificate, listen, read_token

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}


def test_two_servers_never_share_a_port() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        for host in ("127.0.0.1", "0.0.0.0", "localhost"):
            with pytest.raises(UserError, match=rf"^Port {port} of {host} is in use: give another --port, or 0 for"):
                listen(host, port)
        with pytest.raises(UserError, match=rf"^Port {port} of 127.0.0.1 is in use: give another --zmq-port"):
            bind_server(ActionServer(policy="random", port=0, zmq_port=port))
    with listen("127.0.0.1", port):  # free again at once
        pass


def test_one_port_for_both_protocols_is_refused() -> None:
    with pytest.raises(UserError, match=r"^--port and --zmq-port are both 8123: give two ports\.$"):
        bind_server(ActionServer(policy="random", port=8123, zmq_port=8123))


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a certificate c.pem and its key k.pem, the key encrypted, another's key, and both in one file."""
    folder = tmp_path_factory.mktemp("keys")
    for command in (
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=a -out c.pem -keyout k.pem",
        "ec -in k.pem -aes256 -passout pass:secret -out encrypted.pem",
        "ecparam -name prime256v1 -genkey -noout -out other.pem",
    ):
        subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)
    (folder / "both.pem").write_text((folder / "c.pem").read_text() + (folder / "k.pem").read_text())
    (folder / "cut.pem").write_text((folder / "k.pem").read_text()[:90] + "\n-----END PRIVATE KEY-----\n")
    (folder / "text.pem").write_text("certificate")
    for file in folder.iterdir():
        file.chmod(0o600)
    return folder


@pytest.mark.parametrize(
    ("certificate", "key", "sentence"),
    [
        (None, "k.pem", r"--tls-key is given without --tls-certificate: give both, or neither\."),
        ("no.pem", "k.pem", r"There is no file \S*no.pem: give --tls-certificate and --tls-key PEM files\."),
        ("c.pem", "no.pem", r"There is no file \S*no.pem: give --tls-certificate and --tls-key PEM files\."),
        ("c.pem", None, r"\S*c.pem holds no private key in PEM form: give the certificate's with --tls-key\."),
        ("c.pem", "c.pem", r"\S*c.pem holds no private key in PEM form: give the certificate's with --tls-key\."),
        ("k.pem", "k.pem", r"\S*k.pem holds no certificate in PEM form: give one to --tls-certificate\."),
        ("text.pem", "k.pem", r"\S*text.pem holds no certificate in PEM form: give one to --tls-certificate\."),
        ("c.pem", "encrypted.pem", r"The private key in \S*encrypted.pem is encrypted: give one without a passphrase"),
        (
            "c.pem",
            "other.pem",
            r"The certificate \S*c.pem and the private key in \S*other.pem do not serve TLS \(key val",
        ),
        (
            "c.pem",
            "cut.pem",
            r"The certificate \S*c.pem and the private key in \S*cut.pem do not serve TLS \(.*\): give",
        ),
    ],
)
def test_tls_mistakes_are_one_sentence(keys: Path, certificate: str | None, key: str | None, sentence: str) -> None:
    files = [None if name is None else keys / name for name in (certificate, key)]
    with pytest.raises(UserError, match=f"^{sentence}"):
        check_certificate(*files)


def test_certificates_that_serve(keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_certificate(None, None)
    check_certificate(keys / "c.pem", keys / "k.pem")
    check_certificate(keys / "both.pem", None)
    assert capsys.readouterr().err == ""
    (keys / "k.pem").chmod(0o644)
    check_certificate(keys / "c.pem", keys / "k.pem")
    assert "warning: Every user of this machine can read or change" in capsys.readouterr().err
    (keys / "k.pem").chmod(0o600)


def test_the_limit_of_open_files_follows_the_connections() -> None:
    check = """
import resource
from vla_harness.servers.core.startup import allow_files
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 1000))
for connections in (10, 512, 900):
    allow_files(connections)
    print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, env=ENVIRONMENT)
    assert done.stdout.split() == ["266", "768", "1000"]
    assert done.stderr == (
        "warning: This process may open 1000 files, fewer than 900 connections need: raise `ulimit -n`.\n"
    )


LONG = "0123456789abcdef0123456789abcdef"


def test_a_token_that_can_be_guessed_or_read_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "token"
    file.write_text(f"{LONG}\n")
    file.chmod(0o600)
    assert read_token(file) == LONG and capsys.readouterr().err == ""
    file.chmod(0o644)
    assert read_token(file) == LONG
    assert capsys.readouterr().err == (
        f"warning: Every user of this machine can read or change {file}: `chmod 600 {file}`.\n"
    )
    file.chmod(0o600)
    file.write_text("x")
    assert read_token(file) == "x"
    assert capsys.readouterr().err.startswith(f"warning: The token file {file} holds a token of 1 characters")


@pytest.mark.parametrize(
    "token", ["pässword-of-many-letters", "two words of a token", "a\nb", "tab\tulator", "\x1b[31m"]
)
def test_a_token_that_clients_cannot_send_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("VLA_SERVER_TOKEN", token)
    with pytest.raises(UserError, match=r"^\$VLA_SERVER_TOKEN holds other characters than ASCII letters"):
        read_token(None)
    (tmp_path / "token").write_text(token, encoding="utf-8")
    with pytest.raises(UserError, match=r"^The token file \S* holds other characters than ASCII letters"):
        read_token(tmp_path / "token")
