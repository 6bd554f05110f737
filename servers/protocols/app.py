"""The application: ``POST /act``, what tells of the server, and the two websocket protocols."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Literal

import numpy as np
from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect

from vla_harness import __version__

from ..core.connections import Lease, UploadBudget
from ..core.decoding import decode
from ..core.refusal import Refusal, bad_field
from ..core.security import Guard, GuardMiddleware, refused
from ..core.service import ActionService
from ..wire.arrays import TooManyEntries, WireError
from ..wire.codecs import VLA_EVAL, pack_json, unpack_json
from . import forms
from .conversation import Gone, unless_gone
from .docs_page import HEADERS, docs_page
from .openapi import ACT, ERRORS, METADATA, UNHEALTHY
from .openpi import serve_openpi
from .vla_eval import serve_vla_eval

log = logging.getLogger("vla_harness.servers")
RootProtocol = Literal["openpi", "vla-eval"]


def create_app(
    service: ActionService,
    guard: Guard,
    max_body: int = 64 * 2**20,
    root_protocol: RootProtocol = "openpi",
    max_uploads: int = 256 * 2**20,
) -> FastAPI:
    """Return the application.

    max_body, max_uploads: bytes of one request, and of all that are read or answered at the same time.
    root_protocol: the websocket protocol of ``/``; ``/openpi`` and ``/vla-eval`` speak theirs anyway.
    """
    uploads = UploadBudget(max(max_body, max_uploads))

    app = FastAPI(
        title="VLA action server",
        version=__version__,
        description="Actions of one policy for the clients of OpenVLA, OpenVLA-OFT, GR00T, openpi and vla-eval.",
        docs_url=None,  # FastAPI's pages load scripts of another host
        redoc_url=None,
    )
    app.add_exception_handler(Refusal, refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_middleware(GuardMiddleware, guard=guard)
    conversations = {"openpi": serve_openpi, "vla-eval": serve_vla_eval}
    for path, name in {"/": root_protocol, **{f"/{name}": name for name in conversations}}.items():
        app.add_api_websocket_route(path, partial(_converse, conversations[name], service))

    compat = service.settings.openvla_compat

    @app.post("/act", openapi_extra=ACT, responses=ERRORS)
    async def act(request: Request) -> Response:
        """Return actions for observations. The form is told by its keys."""
        with uploads.lease() as lease:
            return await answer(request, await _body(request, max_body, lease))

    async def answer(request: Request, body: bytes) -> Response:
        kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
        try:
            message, arrays = await _decode(request, kind, body)
        except WireError as error:
            crowded = isinstance(error, TooManyEntries)
            if compat and not crowded and (detail := _as_fastapi(body)) is not None:
                return detail
            raise Refusal(400, str(error)) from None
        if compat and not isinstance(message, dict):
            return _as_fastapi(body) or JSONResponse("error")
        try:
            asked = await decode(len(body), lambda pixels: forms.read_request(message, service, pixels))
            value = await _unless_gone(request, forms.answer(asked, service))
        except Refusal as refusal:
            if compat and refusal.status in (422, 500):
                return JSONResponse("error")
            raise
        return _encode(value, kind, arrays, asked.double_encoded)

    @app.post("/forget", responses=ERRORS)
    async def forget(episode: str, session: str = "") -> dict[str, str]:
        """Drop the memory of an episode that has ended."""
        service.end_episode(episode, session)
        return {"status": "ok"}

    @app.get("/health", responses=UNHEALTHY)
    async def health() -> JSONResponse:
        """Say whether the policy is warm and takes requests, and if it never will again, why."""
        ready, state = service.health
        reason = {} if service.failure is None else {"reason": service.failure}
        return JSONResponse({"status": state, "model": service.policy.spec.name} | reason, 200 if ready else 503)

    @app.get("/healthz", response_class=PlainTextResponse, responses=UNHEALTHY)
    async def healthz() -> PlainTextResponse:
        """Say the same as openpi's server does."""
        ready, state = service.health
        return PlainTextResponse("OK\n" if ready else f"{service.failure or state}\n", 200 if ready else 503)

    @app.get("/metadata", responses=METADATA)
    async def metadata() -> JSONResponse:
        """Say what the policy reads and writes, and what it was made of."""
        return JSONResponse(service.metadata())

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        return HTMLResponse(docs_page(app.openapi(), str(request.base_url)), headers=HEADERS)

    @app.get("/config")
    async def config() -> dict[str, Any]:
        """Say the batching's settings as vla-eval's server does; they cannot be changed from here."""
        settings = service.settings
        return {"applied": {}, "config": {"max_batch_size": settings.max_batch, "max_wait_time": settings.max_wait_s}}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Return counters and histograms in Prometheus's text format."""
        return Response(service.metrics.text(), media_type=service.metrics.content_type)

    return app


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    field = str(first["loc"][-1])
    return await refused(request, bad_field(field, f"{first['msg']}."))


async def _converse(
    conversation: Callable[[WebSocket, ActionService], Awaitable[None]], service: ActionService, websocket: WebSocket
) -> None:
    await conversation(websocket, service)


async def _body(request: Request, limit: int, lease: Lease) -> bytes:
    """Return the body; refuses one of more than ``limit`` bytes, said or sent, and compressed ones.

    lease: what the body's bytes are counted in.
    """
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Refusal(415, "Content-Encoding: send the body as it is, uncompressed.", "Content-Encoding")
    too_large = Refusal(413, f"The body is larger than {limit} bytes: send smaller images, or fewer.")
    said = request.headers.get("content-length", "0")
    if not said.isdigit() or int(said) > limit:
        raise too_large
    chunks, size = [], 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise too_large
            if not lease.take(len(chunk)):
                raise Refusal(503, "Too many large requests are under way; send it again.", retry_after_s=1)
            chunks.append(chunk)
    except ClientDisconnect:
        log.warning("An upload to %s broke off after %d bytes.", request.url.path, size)
        raise Refusal(499, "The client went away.") from None
    return b"".join(chunks)


async def _decode(request: Request, kind: str, body: bytes) -> tuple[Any, bool]:
    """Return the message and whether the client reads arrays; raises WireError, or Refusal for an unknown kind."""
    if kind == "application/json":
        return await decode(len(body), lambda _: unpack_json(body))
    if kind in ("application/msgpack", "application/x-msgpack"):
        return await decode(len(body), lambda _: VLA_EVAL.unpack(body)), True
    if kind == "multipart/form-data":
        return await _multipart(request, body), False
    raise Refusal(
        415, f"Content-Type: {kind!r} is not read; send JSON, msgpack or multipart/form-data.", "Content-Type"
    )


async def _multipart(request: Request, body: bytes) -> dict[str, Any]:
    """Return the fields of a form: files as bytes, ``state`` and ``step`` as the JSON they hold, the rest as text."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    message: dict[str, Any] = {}
    try:
        async with Request(request.scope, receive).form(max_files=16, max_fields=32) as form:
            for name, value in form.multi_items():
                message[name] = value if isinstance(value, str) else await value.read()
    except (MultiPartException, ValueError, KeyError) as error:
        raise WireError(f"The form cannot be read: {error}.") from None
    except Exception as error:  # starlette turns some of them into its own HTTPException
        raise WireError(f"The form cannot be read: {getattr(error, 'detail', type(error).__name__)}.") from None
    for name in ("state", "step"):
        if isinstance(message.get(name), str):
            message[name], _ = unpack_json(message[name])
    return message


async def _unless_gone(request: Request, work: Awaitable[Any]) -> Any:
    """Return what ``work`` returns; cancel it when the client goes away, so that its place in the queue is free."""
    heard = asyncio.ensure_future(request.receive())  # all of the body has been read
    try:
        return await unless_gone(work, heard)
    except Gone:
        raise Refusal(499, "The client went away.") from None
    finally:
        heard.cancel()


def _encode(value: Any, kind: str, arrays: bool, double_encoded: bool) -> Response:
    """Return the reply in the form the client reads: arrays to those who sent some, else lists of numbers."""
    if kind in ("application/msgpack", "application/x-msgpack"):
        return Response(VLA_EVAL.pack(value), media_type=kind)
    if double_encoded:
        return JSONResponse(pack_json(value, compact=False))
    text = pack_json(value) if arrays else json.dumps(_plain(value), allow_nan=False, separators=(",", ":"))
    return Response(text, media_type="application/json")


def _plain(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return {key: part.tolist() if isinstance(part, np.ndarray) else part for key, part in value.items()}
    if isinstance(value, np.ndarray):
        return {"action": value.tolist()}
    return {"actions": [action.tolist() for action in value]}


def _as_fastapi(body: bytes) -> JSONResponse | None:
    """Return FastAPI's own answer to a body that is no JSON map, as OpenVLA's server gives it; None for a map."""
    try:
        value = json.loads(body)
    except json.JSONDecodeError as error:
        detail = {"type": "json_invalid", "loc": ["body", error.pos], "msg": "JSON decode error", "input": {}}
        return JSONResponse({"detail": [{**detail, "ctx": {"error": error.msg}}]}, 422)
    except (ValueError, RecursionError):
        return JSONResponse({"detail": [{"type": "json_invalid", "loc": ["body"], "msg": "JSON decode error"}]}, 422)
    if isinstance(value, dict):
        return None
    detail = {"type": "dict_type", "loc": ["body"], "msg": "Input should be a valid dictionary"}
    try:
        return JSONResponse({"detail": [detail | {"input": value}]}, 422)
    except ValueError:  # nan, infinity or half a character, which Python reads in JSON and nobody may send
        return JSONResponse({"detail": [detail]}, 422)
