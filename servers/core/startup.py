"""Checks of what the server is started with, all of them before the policy loads: token, certificate, ports."""

from __future__ import annotations

import errno
import os
import resource
import socket
import ssl
import stat
import sys
from pathlib import Path

from vla_harness.errors import UserError

from .security import is_loopback

TOKEN_VARIABLE = "VLA_SERVER_TOKEN"

_SHORT_TOKEN = 16
"""A token of fewer characters than this can be guessed."""


def read_token(path: Path | None) -> str | None:
    """Return the token of the file, else of the environment, or None where there is none; raises UserError.

    Warns on stderr of a token that can be guessed, and of a file that other users can read.
    """
    if path is None:
        source, token = f"${TOKEN_VARIABLE}", os.environ.get(TOKEN_VARIABLE, "").strip()
        if not token:
            return None
    else:
        source = f"The token file {path}"
        try:
            token = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{source} cannot be read ({error}): give a text file to --token-file.") from None
        if not token:
            raise UserError(f"{source} is empty: write a long random text into it.")
        _warn_if_shared(path)
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise UserError(
            f"{source} holds other characters than ASCII letters, digits and punctuation, which clients cannot send"
            " in a header: take a token without spaces, such as `openssl rand -hex 32` prints."
        )
    if len(token) < _SHORT_TOKEN:
        _warn(f"{source} holds a token of {len(token)} characters, which can be guessed: `openssl rand -hex 32`.")
    return token


def check_access(host: str, token: str | None, insecure: bool, token_options: str) -> None:
    """Raise UserError where other machines reach ``host`` and neither a token nor ``insecure`` was given.

    token_options: how a token is given, for the sentence.
    """
    if not is_loopback(host) and token is None and not insecure:
        raise UserError(
            f"--host {host} is reached from other machines: give {token_options},"
            " or say --insecure if whoever reaches the port may have actions."
        )


def check_certificate(certificate: Path | None, key: Path | None) -> None:
    """Raise UserError where the certificate and its key (None: in the same file) cannot serve TLS."""
    for path in (certificate, key):
        if path is not None and not path.is_file():
            raise UserError(f"There is no file {path}: give --tls-certificate and --tls-key PEM files.")
    if certificate is None:
        if key is not None:
            raise UserError("--tls-key is given without --tls-certificate: give both, or neither.")
        return
    holder = key or certificate
    try:
        text = holder.read_bytes()
        if b"PRIVATE KEY-----" not in text:
            raise UserError(f"{holder} holds no private key in PEM form: give the certificate's with --tls-key.")
        if b"ENCRYPTED" in text:
            raise UserError(f"The private key in {holder} is encrypted: give one without a passphrase to --tls-key.")
        if b"BEGIN CERTIFICATE-----" not in certificate.read_bytes():
            raise UserError(f"{certificate} holds no certificate in PEM form: give one to --tls-certificate.")
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=lambda: "")
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).replace("_", " ").lower()
        raise UserError(
            f"The certificate {certificate} and the private key in {holder} do not serve TLS ({reason}):"
            " give PEM files that belong together."
        ) from None
    except OSError as error:
        raise UserError(f"The certificate or its key cannot be read ({error}): give readable PEM files.") from None
    _warn_if_shared(holder)


def listen(host: str, port: int, option: str = "--port") -> socket.socket:
    """Return a listening socket; raises UserError, which names ``option``, where the port cannot be had.

    A port that is only bound can be bound once more by another server. What connects before the server runs waits.
    """
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, number)
    except (OSError, OverflowError, UnicodeError) as error:
        raise UserError(f"Port {port} of {host} cannot be bound ({error}): give another --host or {option}.") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # of a server that has just ended
        listener.bind(address)
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            raise UserError(f"Port {port} of {host} is in use: give another {option}, or 0 for any free one.") from None
        raise UserError(f"Port {port} of {host} cannot be bound ({error}): give another --host or {option}.") from None
    return listener


def allow_files(connections: int) -> None:
    """Raise this process's limit of open files, where it is too low for so many connections beside its own files."""
    wanted = connections + 256
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            _warn(f"This process may open {hard} files, fewer than {connections} connections need: raise `ulimit -n`.")
            wanted = hard
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _warn_if_shared(path: Path) -> None:
    if path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
        _warn(f"Every user of this machine can read or change {path}: `chmod 600 {path}`.")


def _warn(sentence: str) -> None:
    print(f"warning: {sentence}", file=sys.stderr, flush=True)
