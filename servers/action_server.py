"""Serve a policy: ``python servers/action_server.py --policy NAME --checkpoint C``, installed as ``vla-server``."""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys
    from pathlib import Path

    if not __package__:  # a file of a checkout, which need not be installed
        sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from vla_harness.launch import launch

    sys.exit(launch("vla_harness.servers.action_server"))

import asyncio
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Annotated

import uvicorn
import uvloop
from tyro.conf import arg

from tformer.values import Duration, Port, PositiveFloat, PositiveInt
from vla_harness.command import DONE, check_options, parse_options, run_command
from vla_harness.errors import RunFailed, UserError
from vla_harness.evaluate import announce
from vla_harness.policy_flags import PolicyFlags
from vla_harness.registry import load_policy
from vla_harness.servers.core.connections import ConnectionLimits, LimitedHttpProtocol
from vla_harness.servers.core.security import Guard, is_loopback
from vla_harness.servers.core.service import ActionService, ServiceSettings
from vla_harness.servers.core.startup import (
    TOKEN_VARIABLE,
    allow_files,
    check_access,
    check_certificate,
    listen,
    read_token,
)
from vla_harness.servers.core.websockets import LimitedWebSocketProtocol
from vla_harness.servers.protocols.app import RootProtocol, create_app
from vla_harness.servers.protocols.zeromq import Gr00tSocket, Version
from vla_harness.types import ImageOrientation

FAILURE_SHOWN_S = 3.0
"""Seconds that /health says why the policy is broken, before the server ends."""


@dataclass(frozen=True, kw_only=True)
class ActionServer(PolicyFlags):
    """Serve a policy's actions over HTTP, websockets and ZeroMQ.

    Exit codes: 0 stopped by a signal or by an authorised client, 1 the policy can never answer again, 2 something to
    put right in the command.
    """

    options: Annotated[tuple[str, ...], arg(metavar="KEY=VALUE ...", help_behavior_hint="(default: none)")] = ()
    """The older name of --policy-option, with all options after it."""

    host: str = "127.0.0.1"
    """Address to listen at. Beyond this machine (0.0.0.0) a token is required."""

    port: Port = 8000
    """Port for HTTP and websockets; 0 for any free one, which is printed."""

    zmq_port: Annotated[Port | None, arg(metavar="N", help_behavior_hint="(default: no ZeroMQ)")] = None
    """Port for GR00T's ZeroMQ clients (theirs is 5555)."""

    protocol: RootProtocol = "openpi"
    """Websocket protocol of the path /. Both are also at /openpi and /vla-eval."""

    groot_version: Version = "n1.5"
    """Whose ZeroMQ clients ask for modality configurations."""

    token_file: Annotated[Path | None, arg(metavar="F", help_behavior_hint=f"(default: ${TOKEN_VARIABLE})")] = None
    """File with the token that clients must show."""

    insecure: bool = False
    """Listen beyond this machine without a token: whoever reaches the port gets actions."""

    tls_certificate: Annotated[Path | None, arg(metavar="F", help_behavior_hint="(default: no TLS)")] = None
    """Certificate chain (PEM) for https and wss; ZeroMQ stays unencrypted."""

    tls_key: Annotated[Path | None, arg(metavar="F", help_behavior_hint="(default: in the certificate's file)")] = None
    """Private key (PEM) of the certificate."""

    max_batch: PositiveInt = 64
    """Most observations in one call of the policy, which may have a lower limit of its own."""

    max_wait_ms: Duration = 0.0
    """Milliseconds a batch that is not full waits for company. 0: what waits goes at once."""

    max_queue: PositiveInt = 64
    """Observations that may wait; beyond it clients are told to come again (503, Retry-After)."""

    max_body_mb: PositiveFloat = 64.0
    """Largest request, in MiB."""

    client_images: Annotated[
        ImageOrientation | None, arg(help_behavior_hint="(default: mirrored, as LIBERO's clients send them)")
    ] = None
    """How the images of other projects' clients lie. Our own clients' images are upright."""

    openvla_compat: bool = False
    """Answer failures of /act as OpenVLA's server does: HTTP 200 and "error"."""

    drain_s: Duration = 30.0
    """Seconds that requests in flight get to finish when the server is stopped."""

    limits: ConnectionLimits = field(default_factory=ConnectionLimits)
    """What clients may take up before they are answered."""


@dataclass
class Server:
    """A server with its ports: ``port`` and ``zmq_port`` are known, ``run`` serves until ``stop`` or a signal."""

    options: ActionServer
    service: ActionService
    token: str | None
    listener: socket.socket
    _running: _Uvicorn | None = field(default=None, init=False)
    _loop: asyncio.AbstractEventLoop | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        options = self.options
        # Its connections inherit this. Without it the body of a reply waits up to 40 ms for the client to acknowledge
        # the headers: uvloop sets it only on sockets that it made itself.
        self.listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port: int = self.listener.getsockname()[1]
        limit = int(options.max_body_mb * 2**20)
        guard = Guard(self.token, is_loopback(options.host))
        self._zmq = None
        if options.zmq_port is not None:
            self._zmq = Gr00tSocket(
                self.service,
                options.host,
                options.zmq_port,
                self.token,
                options.groot_version,
                limit,
                self.stop,
                guard.guesses,
            )
        self.zmq_port = self._zmq.port if self._zmq else None
        self._config = uvicorn.Config(
            create_app(self.service, guard, limit, options.protocol, options.limits.upload_mb * 2**20),
            http=partial(LimitedHttpProtocol, options.limits),  # type: ignore[arg-type] # uvicorn calls it as a class
            log_level="warning",
            access_log=False,  # addresses may hold a token
            ws=partial(LimitedWebSocketProtocol, options.limits.request_s, options.limits.reply_s),  # type: ignore[arg-type] # as above
            ws_max_size=limit,
            ws_per_message_deflate=False,
            ws_ping_interval=30.0,
            ws_ping_timeout=300.0,  # simulators step for minutes without looking at their sockets
            timeout_graceful_shutdown=1,  # what was to be drained has been
            timeout_keep_alive=options.limits.idle_s,  # type: ignore[arg-type] # it is a number of seconds
            ssl_certfile=options.tls_certificate,
            ssl_keyfile=options.tls_key,
        )

    def run(self) -> int:
        """Serve until stopped. Returns how many requests got 503, because the time to drain was over.

        Raises RunFailed when the policy can never answer again.
        """
        uvloop.run(self._serve())
        if self.service.failure is not None:
            raise RunFailed(f"{self.service.failure}; the traceback is above.")
        return self._running.unanswered if self._running else 0

    def stop(self) -> None:
        """Stop; may be called from any thread."""
        if self._loop is not None and self._running is not None:
            with suppress(RuntimeError):  # it has ended, and the loop with it
                self._loop.call_soon_threadsafe(self._running.drain)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._running = _Uvicorn(self._config, self.service, self.options)
        messages = asyncio.create_task(self._zmq.serve()) if self._zmq else None
        try:
            await self._running.serve(sockets=[self.listener])
        finally:
            if self._zmq and messages:
                messages.cancel()
                with suppress(asyncio.CancelledError):
                    await messages
                self._zmq.close()
            await asyncio.to_thread(self.service.close)


class _Uvicorn(uvicorn.Server):
    """Finishes what is in flight before it closes connections; a second signal closes them at once."""

    def __init__(self, config: uvicorn.Config, service: ActionService, options: ActionServer) -> None:
        super().__init__(config)
        self._service, self._drain_s, self._limits = service, options.drain_s, options.limits
        self._swept_at = time.monotonic()
        self._draining: asyncio.Task[None] | None = None
        self._failed_at: float | None = None
        self.unanswered = 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen. uvicorn's own leaves a silent client a minute for its TLS handshake."""
        await self.lifespan.startup()
        tls = self.config.ssl
        handshake_s = self._limits.header_s if tls else None
        loop, backlog = asyncio.get_running_loop(), self.config.backlog
        self.servers = [
            await loop.create_server(
                self._connection, sock=one, ssl=tls, backlog=backlog, ssl_handshake_timeout=handshake_s
            )
            for one in sockets or ()
        ]
        self.started = True

    def _connection(self) -> asyncio.Protocol:
        make: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    async def on_tick(self, counter: int) -> bool:
        """Do what is due ten times a second; return whether the server is to end."""
        if counter % 5 == 0:
            now = time.monotonic()
            for connection in list(self.server_state.connections):
                if isinstance(connection, LimitedHttpProtocol):
                    connection.sweep(now, now - self._swept_at)
            self._swept_at = now
        if self._service.failure is not None:
            now = asyncio.get_running_loop().time()
            self._failed_at = self._failed_at or now
            if now - self._failed_at > FAILURE_SHOWN_S:
                self.should_exit = True
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal."""
        if self._draining is None:
            asyncio.get_running_loop().call_soon_threadsafe(self.drain)
        else:
            self.should_exit = self.force_exit = True

    def drain(self) -> None:
        """Begin to stop."""
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain())

    async def _drain(self) -> None:
        self.unanswered = await self._service.drain(self._drain_s)
        await asyncio.sleep(0.1)  # the last answers are on their way
        self.should_exit = True


def bind_server(options: ActionServer) -> Server:
    """Check the options, take the ports, load the policy. Raises UserError."""
    check_options(options)
    token = read_token(options.token_file)
    check_access(options.host, token, options.insecure, f"--token-file or ${TOKEN_VARIABLE}")
    check_certificate(options.tls_certificate, options.tls_key)
    if options.zmq_port == options.port != 0:
        raise UserError(f"--port and --zmq-port are both {options.port}: give two ports.")
    arguments = _with_older_options(options).policy_arguments()
    allow_files(options.limits.connections)
    listener = listen(options.host, options.port)
    if options.zmq_port:  # ZeroMQ binds when the policy is there; a port that is taken is found now
        listen(options.host, options.zmq_port, "--zmq-port").close()
    policy = load_policy(options.policy, **arguments)
    settings = ServiceSettings(
        options.max_batch,
        options.max_wait_ms / 1000,
        options.max_queue,
        options.client_images,
        options.openvla_compat,
    )
    return Server(options, ActionService(policy, settings), token, listener)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; ``arguments`` without the program's name. Returns the exit code."""
    return run_command(lambda: _serve(parse_options(ActionServer, arguments, "action_server.py")))


def _serve(options: ActionServer) -> int:
    server = bind_server(options)
    secure = "s" if options.tls_certificate else ""
    host = f"[{options.host}]" if ":" in options.host else options.host
    announce("policy", f"{options.policy}{f' from {options.checkpoint}' if options.checkpoint else ''}")
    announce("http", f"http{secure}://{host}:{server.port} (POST /act; what it takes: /docs)")
    announce("websocket", f"ws{secure}://{host}:{server.port} ({options.protocol}; also /openpi and /vla-eval)")
    if server.zmq_port is not None:
        announce("zeromq", f"tcp://{host}:{server.zmq_port} (GR00T {options.groot_version})")
    announce("other clients", server.service.other_clients)
    announce("token", "required" if server.token else "none")
    unanswered = server.run()
    requests = f"{unanswered} request{'s' * (unanswered > 1)} got 503 after --drain-s {options.drain_s:g}"
    announce("stopped", requests if unanswered else "what was in flight is answered")
    if server.service.computing:  # the interpreter's own end would tear down the thread that the policy computes in
        os._exit(DONE)
    return DONE


def _with_older_options(options: ActionServer) -> ActionServer:
    """Return ``options`` with --options as --policy-option; --options took the unnorm key, too, which had no flag."""
    keys = [pair.partition("=")[2] for pair in options.options if pair.startswith("unnorm_key=")]
    if len(keys) + (options.unnorm_key is not None) > 1:
        raise UserError("The unnorm key is given twice: give --unnorm-key once, and none in --options.")
    others = tuple(pair for pair in options.options if not pair.startswith("unnorm_key="))
    unnorm_key = keys[0] if keys else options.unnorm_key
    return replace(options, unnorm_key=unnorm_key, policy_option=(*options.policy_option, *others), options=())
