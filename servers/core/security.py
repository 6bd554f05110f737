"""Who may ask: tokens, and on an open loopback server the names under which a browser may not reach it."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Guard:
    """Lets requests in or refuses them.

    token: what clients must show; None lets everybody in. local: the server is bound to loopback. Then a web page in
    this machine's browser must not reach it under a name of its own (DNS rebinding), nor from its own origin.
    """

    token: str | None
    local: bool

    def check(self, headers: Mapping[str, str], query_token: str | None = None) -> None:
        """Check a request; raises Refusal (401, 403).

        headers: with lower-case names. query_token: for websocket clients that cannot send headers.
        """
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != headers.get("host"):
            raise Refusal(403, "Origin: web pages of other servers get no actions from this one.", "Origin")
        if self.token is None:
            host = urlsplit(f"//{headers.get('host', '')}").hostname or ""
            if self.local and not is_loopback(host):
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
        if scope["type"] in ("http", "websocket") and scope["path"] not in _OPEN:
            query = parse_qs(scope["query_string"].decode("latin-1")) if scope["type"] == "websocket" else {}
            try:
                self._guard.check(Headers(scope=scope), query.get("token", [None])[-1])
            except Refusal as refusal:
                if scope["type"] == "websocket":
                    await send({"type": "websocket.close", "code": 1008, "reason": refusal.sentence})
                else:
                    await (await refused(Request(scope), refusal))(scope, receive, send)
                return
        await self._app(scope, receive, send)


async def refused(request: Request, refusal: Exception) -> Response:
    """Return the HTTP answer to a refused request."""
    assert isinstance(refusal, Refusal)
    headers = {} if refusal.retry_after_s is None else {"Retry-After": str(refusal.retry_after_s)}
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"error": refusal.sentence, "field": refusal.field}, refusal.status, headers)
