"""What the OpenAPI page says of ``POST /act``: its four forms, with examples that work as they are."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from ..wire.codecs import json_array

_PIXELS = json_array(np.full((4, 4, 3), 128, np.uint8))
_NUMBERS = {"type": "array", "items": {"type": "number"}, "maxItems": 1024}
_TEXT = {"type": "string", "maxLength": 4096}
_COUNT = {"type": "integer", "minimum": 0}
_PNG = base64.b64encode(
    base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAQAAAAECAIAAAAmkwkpAAAAEElEQVR4nGNoaGiAIwbiOAATsBHBMXJ9iwAAAABJRU5ErkJggg=="
    )
).decode()

_ARRAY = {
    "type": "object",
    "description": "json_numpy",
    "required": ["__numpy__", "dtype", "shape"],
    "properties": {
        "__numpy__": {"type": "string", "contentEncoding": "base64"},
        "dtype": {"type": "string", "examples": ["|u1", "<f4"]},
        "shape": {"type": "array", "items": _COUNT, "maxItems": 8},
    },
}
_IMAGE = {"oneOf": [_ARRAY, {"type": "string", "description": "A PNG or JPEG file in base64"}]}
_VECTOR = {"oneOf": [_ARRAY, _NUMBERS]}
_SESSION = {"session": _TEXT | {"description": "Names the episode, for policies that remember it"}, "step": _COUNT}
_OPENVLA = {
    "type": "object",
    "title": "OpenVLA",
    "required": ["image", "instruction"],
    "properties": {"image": _IMAGE, "instruction": _TEXT, "unnorm_key": _TEXT, **_SESSION},
}
_OFT = {
    "type": "object",
    "title": "OpenVLA-OFT",
    "required": ["full_image", "instruction"],
    "properties": {"full_image": _IMAGE, "wrist_image": _IMAGE, "state": _VECTOR, "instruction": _TEXT, **_SESSION},
}
_GROOT = {
    "type": "object",
    "title": "GR00T",
    "required": ["observation"],
    "properties": {"observation": {"type": "object", "description": "video.…, state.…, annotation.…"}, **_SESSION},
}
_NATIVE = {
    "type": "object",
    "title": "Native",
    "description": "Our own client's form: any number of observations, images upright.",
    "required": ["observations"],
    "properties": {
        "observations": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["images", "state", "instruction", "episode"],
                "properties": {
                    "images": {"type": "object", "additionalProperties": _IMAGE},
                    "state": _VECTOR,
                    "instruction": _TEXT,
                    "episode": _TEXT,
                    "step": _COUNT,
                },
            },
        },
        "session": _TEXT,
    },
}
_ENCODED = {
    "type": "object",
    "title": "Double-encoded",
    "required": ["encoded"],
    "properties": {"encoded": {"type": "string", "description": "Any of the others as JSON text"}},
    "additionalProperties": False,
}
_FORMS = {"anyOf": [_OPENVLA, _OFT, _GROOT, _NATIVE, _ENCODED]}
_FILE = {"type": "string", "format": "binary"}

ACT: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": _FORMS,
                "examples": {
                    "openvla": {"value": {"image": _PIXELS, "instruction": "push the plate"}},
                    "base64": {"value": {"image": _PNG, "instruction": "push the plate"}},
                    "openvla-oft": {
                        "value": {
                            "full_image": _PIXELS,
                            "wrist_image": _PIXELS,
                            "state": [0.0] * 8,
                            "instruction": "push the plate",
                        }
                    },
                },
            },
            "application/msgpack": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["instruction"],
                    "properties": {
                        "image": _FILE,
                        "full_image": _FILE,
                        "wrist_image": _FILE,
                        "instruction": {"type": "string"},
                        "state": {"type": "string", "description": "A JSON list of numbers"},
                        "unnorm_key": {"type": "string"},
                        "session": {"type": "string"},
                        "step": {"type": "string", "description": "A number"},
                    },
                }
            },
        },
    },
    "responses": {
        "200": {
            "description": "Actions: json_numpy arrays to those who sent some, else lists of numbers",
            "content": {
                "application/json": {"schema": {}},
                "application/msgpack": {"schema": {"type": "string", "format": "binary"}},
            },
        }
    },
}

_ERROR = {
    "type": "object",
    "required": ["error", "field"],
    "properties": {"error": {"type": "string"}, "field": {"type": "string"}},
}


def _error(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": _ERROR}}}


ERRORS: dict[int | str, dict[str, Any]] = {
    400: _error("The body cannot be decoded"),
    401: _error("No token, or another one"),
    403: _error("A web page of another server asks"),
    409: _error("Another client plays this episode"),
    413: _error("The body is too large"),
    415: _error("The body's type is not read"),
    422: _error("A field is missing or wrong; the sentence names it"),
    503: _error("The queue is full, or the server is warming up or shutting down; see Retry-After"),
}
METADATA: dict[int | str, dict[str, Any]] = {401: ERRORS[401], 403: ERRORS[403]}
UNHEALTHY: dict[int | str, dict[str, Any]] = {503: {"description": "Warming up, shutting down, or broken"}}
