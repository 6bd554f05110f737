"""Bytes and values that strangers send: every decoder returns a value or raises WireError, every form Refusal.

hypothesis draws the messages; each is then read whole, with single bytes changed, and cut off: 22 cases a draw.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import msgpack
import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from schemathesis.generation.case import Case
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from tests.servers.toys import Gr00tLikePolicy, LookingPolicy, RawPolicy
from vla_harness.servers.core.refusal import Refusal
from vla_harness.servers.core.security import Guard
from vla_harness.servers.core.service import ActionService, ServiceSettings
from vla_harness.servers.protocols.app import create_app
from vla_harness.servers.protocols.forms import Request, read_request
from vla_harness.servers.wire.arrays import WireError, read_npy, write_npy
from vla_harness.servers.wire.codecs import GROOT, OPENPI, VLA_EVAL, pack_json, unpack_json
from vla_harness.servers.wire.pictures import PixelBudget, read_picture

DRAWS = settings(max_examples=250, deadline=None, database=None, suppress_health_check=list(HealthCheck))
CASES = 22


def picture_file(kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(file, kind)
    return file.getvalue()


PICTURES = [picture_file("PNG"), picture_file("JPEG")]
DTYPES = st.sampled_from(
    ["|u1", "<f4", ">f8", "|b1", "|O", "<U4", "V8", "<M8[s]", "f4,f4", "(9,)f8", "", "<i8", "float32"]
)
SHAPES = st.lists(st.integers(-2, 6) | st.sampled_from([2**31, 2**62]), max_size=4)
BLOBS = st.binary(max_size=64) | st.sampled_from(PICTURES)
LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=8) | BLOBS


def array_maps(encode: Callable[[str], Any]) -> st.SearchStrategy[dict[Any, Any]]:
    """Return maps that look like arrays, images and configurations, whole or with something missing or wrong."""
    fields: dict[Any, st.SearchStrategy[Any]] = {
        encode("data"): BLOBS | LEAVES,
        encode("dtype"): DTYPES | LEAVES,
        encode("shape"): SHAPES | LEAVES,
        "format": st.sampled_from(["png", "jpeg", "raw", "gif", 1]),
        "as_npy": st.binary(max_size=200) | st.just(write_npy(np.zeros((2, 3), np.float32))) | LEAVES,
        "as_json": st.text(max_size=20) | LEAVES,
    }
    marks = ("__ndarray__", "__npgeneric__", "__image__", "__ndarray_class__", "__ModalityConfig_class__")
    marked: dict[Any, st.SearchStrategy[Any]] = {encode(mark): st.just(True) for mark in marks[:2]}
    marked |= {mark: st.just(True) for mark in marks}
    return st.fixed_dictionaries({}, optional=marked | fields)


DAMAGE = st.binary(min_size=2 * (CASES - 1), max_size=2 * (CASES - 1))


def damaged(data: bytes, damage: bytes) -> Iterator[bytes]:
    """Return ``data``, and in turn with one byte changed or cut off there."""
    yield data
    for place, byte in zip(damage[::2], damage[1::2], strict=True):
        at = (place * 257 + byte) % (len(data) + 1)
        yield data[:at] + (bytes([byte]) + data[at + 1 :] if place % 4 else b"")


@pytest.mark.parametrize("codec", [OPENPI, VLA_EVAL, GROOT], ids=["openpi", "vla-eval", "groot"])
def test_msgpack(codec: Any) -> None:
    """Random bytes, and messages whose arrays are wrong or whose bytes were changed on the way."""
    encode = (lambda name: name.encode()) if codec is OPENPI else str
    values = st.recursive(LEAVES | array_maps(encode), lambda inner: st.lists(inner, max_size=3), max_leaves=6)
    messages = st.dictionaries(st.text(max_size=6), values, max_size=3).map(msgpack.packb)

    @DRAWS
    @given(st.binary(max_size=80) | messages, DAMAGE)
    def check(data: bytes, damage: bytes) -> None:
        for case in damaged(data, damage):
            try:
                value = codec.unpack(case)
            except WireError as error:
                assert str(error).endswith(".") and "\n" not in str(error)
                continue
            assert_plain(value)

    check()


def assert_plain(value: Any) -> None:
    """No array that came through holds objects."""
    if isinstance(value, np.ndarray):
        assert value.dtype.kind in "biuf" and value.flags.writeable
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            assert_plain(part)


JSON_ARRAYS = st.fixed_dictionaries(
    {},
    optional={
        "__numpy__": st.binary(max_size=48).map(lambda data: base64.b64encode(data).decode()) | st.text(max_size=9),
        "__ndarray__": st.text(max_size=9),
        "dtype": DTYPES | st.integers(),
        "shape": SHAPES,
    },
)


@DRAWS
@given(st.binary(max_size=80) | JSON_ARRAYS.map(lambda value: json.dumps([value]).encode()), DAMAGE)
def test_json(data: bytes, damage: bytes) -> None:
    for case in damaged(data, damage):
        with suppress(WireError):
            assert_plain(unpack_json(case)[0])


NPY = [write_npy(np.arange(6.0).reshape(2, 3)), write_npy(np.zeros((1, 2), np.uint8))]


@DRAWS
@given(st.sampled_from(NPY), DAMAGE)
def test_npy(data: bytes, damage: bytes) -> None:
    for case in damaged(data, damage):
        with suppress(WireError):
            assert_plain(read_npy(case))


@DRAWS
@given(st.sampled_from(PICTURES), DAMAGE)
def test_pictures(data: bytes, damage: bytes) -> None:
    for case in damaged(data, damage):
        with suppress(WireError):
            assert read_picture(case, PixelBudget(10_000)).ndim == 3


@DRAWS
@given(st.integers(0, 5), st.sampled_from(["|u1", "<f4", ">f8", "|b1", "<i8"]), st.integers(0, 2**32))
def test_what_is_packed_comes_back(size: int, dtype: str, seed: int) -> None:
    array = np.random.default_rng(seed).integers(0, 2, (size, 2)).astype(dtype)
    for codec in (OPENPI, VLA_EVAL, GROOT):
        (back,) = codec.unpack(codec.pack([array]))
        np.testing.assert_array_equal(back, array)
        assert back.dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(unpack_json(pack_json([array]))[0][0], array)


@pytest.fixture(scope="module")
def services() -> Iterator[list[ActionService]]:
    made = [ActionService(policy()) for policy in (LookingPolicy, RawPolicy, Gr00tLikePolicy)]
    yield made
    for service in made:
        service.close()


ARRAYS = st.builds(
    lambda shape, dtype: np.zeros([abs(size) % 6 for size in shape], dtype),
    SHAPES,
    st.sampled_from(["|u1", "<f4", "|b1"]),
)
KEYS = st.sampled_from(
    [
        "image",
        "full_image",
        "wrist_image",
        "instruction",
        "unnorm_key",
        "state",
        "session",
        "step",
        "episode",
        "images",
        "observation",
        "observations",
        "encoded",
        "agentview",
        "wrist",
        "video.agentview",
        "video.front",
        "state.single_arm",
        "state.eef_pos",
        "video",
        "language",
        "annotation.human.task_description",
    ]
)
FORMS = st.recursive(
    LEAVES | ARRAYS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=12,
)


def test_forms(services: list[ActionService]) -> None:
    """Messages that decode, but whose fields are anything."""

    @DRAWS
    @given(st.dictionaries(KEYS, FORMS, max_size=6), st.sampled_from(services))
    def check(message: dict[str, Any], service: ActionService) -> None:
        try:
            assert isinstance(read_request(message, service), Request)
        except Refusal as refusal:
            assert refusal.status in (400, 422) and refusal.sentence.count("\n") == 0

    check()


service = ActionService(LookingPolicy(), ServiceSettings())
schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(service, Guard(None, False)))


@schema.parametrize()
@settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_openapi(case: Case) -> None:
    """Requests made from our own description: no 500, and nothing that the description does not say.

    Which fields a request needs depends on the policy, and fields that it does not need are ignored, as the servers do
    that these forms come from: a request that fits the description may be refused, and one that does not, answered.
    """
    response = case.call()
    case.validate_response(response, excluded_checks=[positive_data_acceptance, negative_data_rejection])
