"""Who may ask: tokens, and on an open loopback server the names under which a browser may not reach it."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from .refusal import Refusal

_OPEN = ("/health", "/healthz", "/docs", "/openapi.json")
"""Paths that need no token: they say nothing of the policy but its name."""


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a server bound to ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class GuessLimiter:
    """Slows down whoever tries tokens: five at once, then one every two seconds for each address.

    An address whose last guesses were wrong waits before its next token is looked at, right or wrong, so that nothing
    is learnt from not waiting. One that never guessed wrongly never waits. An IPv6 network of 64 bits is one address.
    """

    BURST, EVERY_S, LONGEST_S, ADDRESSES = 5, 2.0, 6.0, 4096

    def __init__(self) -> None:
        self._spent: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def reserve(self, address: str) -> float:
        """Count a guess and return the seconds to wait before it is looked at; raises Refusal (429) for too many."""
        now = time.monotonic()
        spent, since = self._spent.get(key := _network(address), (0.0, now))
        spent = max(0.0, spent - (now - since) / self.EVERY_S) + 1
        wait_s = max(0.0, spent - self.BURST) * self.EVERY_S
        if wait_s > self.LONGEST_S:
            raise Refusal(
                429,
                "Authorization: too many wrong tokens came from this address; wait.",
                "Authorization",
                math.ceil(wait_s),
            )
        self._keep(key, spent, now)
        return wait_s

    def forgive(self, address: str) -> None:
        """Take back the last guess, which was right."""
        if (key := _network(address)) in self._spent:
            spent, since = self._spent[key]
            self._keep(key, spent - 1, since)

    def _keep(self, key: str, spent: float, now: float) -> None:
        self._spent[key] = spent, now
        self._spent.move_to_end(key)
        if spent <= 0:
            del self._spent[key]
        elif len(self._spent) > self.ADDRESSES:
            self._spent.popitem(last=False)


@dataclass(frozen=True)
class Guard:
    """Lets requests in or refuses them.

    token: what clients must show; None lets everybody in. local: the server is bound to loopback. Then a web page in
    this machine's browser must not reach it under a name of its own (DNS rebinding), nor from its own origin.
    """

    token: str | None
    local: bool
    guesses: GuessLimiter = field(default_factory=GuessLimiter)

    async def admit(self, headers: Mapping[str, str], query_token: str | None = None, address: str = "") -> None:
        """Check a request from ``address``, after a while if wrong tokens came from there; see ``check``.

        Raises Refusal (401, 403, 429).
        """
        guessed = self.token is not None and (query_token is not None or "authorization" in headers)
        if guessed and (wait_s := self.guesses.reserve(address)):
            await asyncio.sleep(wait_s)
        self.check(headers, query_token)
        if guessed:
            self.guesses.forgive(address)

    def check(self, headers: Mapping[str, str], query_token: str | None = None) -> None:
        """Check a request; raises Refusal (401, 403).

        headers: with lower-case names. query_token: for websocket clients that cannot send headers.
        """
        origin, host = headers.get("origin"), headers.get("host", "")
        if origin is not None and _authority(origin) != host:
            raise Refusal(403, "Origin: web pages of other servers get no actions from this one.", "Origin")
        if self.token is None:
            if self.local and not is_loopback(_host_name(host)):
                raise Refusal(403, "Host: this server answers on localhost only; start it with a token.", "Host")
            return
        scheme, _, credential = headers.get("authorization", "").partition(" ")
        given = credential.strip() if scheme.lower() in ("bearer", "api-key") else query_token
        self.check_token(given)

    def check_token(self, given: object) -> None:
        """Check a token that came with a message; raises Refusal (401). The comparison takes constant time."""
        if self.token is None:
            return
        shown = given if isinstance(given, str) else ""
        if not hmac.compare_digest(shown.encode("utf-8", "surrogatepass"), self.token.encode()):
            raise Refusal(
                401, "Authorization: send the server's token as `Bearer TOKEN` or `Api-Key TOKEN`.", "Authorization"
            )


class GuardMiddleware:
    """Puts a Guard before an application, for HTTP and websockets."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app, self._guard = app, guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer with the refusal: as HTTP, for a websocket in place of the upgrade (403)."""
        if scope["type"] in ("http", "websocket"):
            headers = Headers(scope=scope)
            try:
                if _host_name(headers.get("host", "localhost")) == "":
                    raise Refusal(400, "Host: this is no name or address of a server.", "Host")
                if scope["path"] not in _OPEN:
                    query = parse_qs(scope["query_string"].decode("latin-1")) if scope["type"] == "websocket" else {}
                    address = (scope.get("client") or ("", 0))[0]
                    await self._guard.admit(headers, query.get("token", [None])[-1], address)
            except Refusal as refusal:
                if scope["type"] == "websocket":
                    await send({"type": "websocket.close", "code": 1008, "reason": refusal.sentence})
                else:
                    await (await refused(Request(scope), refusal))(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _authority(url: str) -> str | None:
    """Return a URL's host and port, or None of what is no URL."""
    try:
        return urlsplit(url).netloc
    except ValueError:
        return None


def _host_name(host: str) -> str:
    """Return the name or address in a Host header, "" where there is none."""
    try:
        parts = urlsplit(f"//{host}")
        plain = parts.netloc == host and "@" not in host and (parts.port is None or parts.port > 0)
    except ValueError:  # brackets that do not close, a port that is no number
        return ""
    return (parts.hostname or "") if plain else ""


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return address if parsed.version == 4 else str(ipaddress.ip_network(f"{parsed}/64", strict=False))


async def refused(request: Request, refusal: Exception) -> Response:
    """Return the HTTP answer to a refused request."""
    assert isinstance(refusal, Refusal)
    headers = {} if refusal.retry_after_s is None else {"Retry-After": str(refusal.retry_after_s)}
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"error": refusal.sentence, "field": refusal.field}, refusal.status, headers)
