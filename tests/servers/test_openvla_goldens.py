"""The exchanges of OpenVLA's own server with the tiny checkpoint, recorded, and ours with the same checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import json_numpy
import numpy as np
import pytest
import requests

from tests.servers.toys import serving
from tests.vla_harness.openvla.tiny_checkpoint import DATA, write_tiny_checkpoint
from vla_harness import load_policy
from vla_harness.servers.action_server import Server

EXCHANGES = json.loads(
    (Path(__file__).resolve().parents[1] / "data" / "wire" / "openvla" / "deploy_goldens.json").read_text()
)["exchanges"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    checkpoint = str(write_tiny_checkpoint(tmp_path_factory.mktemp("openvla")))
    policy = load_policy("openvla", checkpoint=checkpoint, precision="fp32", device="cpu", unnorm_key="libero_spatial")
    with serving(policy, openvla_compat=True) as server:
        yield server


def body_of(name: str) -> str:
    """Return the request's body, whose recorded form is cut off after the first bytes of the image."""
    arrays = np.load(DATA / "goldens.npz")
    image = arrays["images"][0]
    asked: dict[str, Any] = {"image": image, "instruction": "push the plate", "unnorm_key": "bridge_orig"}
    whole = {
        "plain": lambda: asked,
        "no_unnorm_key": lambda: {key: asked[key] for key in ("image", "instruction")},
        "bad_unnorm_key": lambda: asked | {"unnorm_key": "nope"},
        "missing_image": lambda: {"instruction": "x"},
        "missing_instruction": lambda: {"image": image},
        "image_as_list": lambda: asked | {"image": image[:2, :2].tolist()},
        "float_image": lambda: asked | {"image": image.astype(np.float32)},
        "gray_image": lambda: asked | {"image": image[:, :, 0]},
        "rgba_image": lambda: asked | {"image": np.concatenate([image, image[:, :, :1]], axis=2)},
        "rect_image": lambda: asked | {"image": arrays["image_rect"]},
        "extra_key": lambda: asked | {"foo": 1},
        "double_encoded": lambda: {"encoded": json_numpy.dumps(asked)},
        "encoded_plus_other": lambda: {"encoded": json_numpy.dumps(asked), "x": 1},
        "encoded_not_json": lambda: {"encoded": "zzz"},
        "empty_object": dict,
        "image_null": lambda: asked | {"image": None},
    }
    literal = {"not_json": "hello", "json_array": "[1,2]"}
    return literal[name] if name in literal else json_numpy.dumps(whole[name]())


@pytest.mark.parametrize("recorded", EXCHANGES[:-1], ids=lambda recorded: recorded["name"])
def test_answers_as_the_reference_does(server: Server, recorded: dict[str, Any]) -> None:
    body = body_of(recorded["name"])
    if recorded["name"] != "image_null":  # its fields were sent in another order
        assert body.startswith(recorded["request_body"][:60])
    headers = {"Content-Type": "application/json"}
    reply = requests.post(f"http://127.0.0.1:{server.port}/act", data=body, headers=headers)
    assert (reply.status_code, reply.headers["content-type"]) == (recorded["status"], recorded["response_content_type"])
    assert reply.text == recorded["response_body"]


def test_a_get_is_not_allowed(server: Server) -> None:
    recorded = EXCHANGES[-1]
    reply = requests.get(f"http://127.0.0.1:{server.port}/act")
    assert (recorded["name"], reply.status_code, reply.text) == ("GET", recorded["status"], recorded["response_body"])


def test_metadata_lists_the_unnorm_keys(server: Server) -> None:
    said = requests.get(f"http://127.0.0.1:{server.port}/metadata").json()
    assert said["unnorm_keys"] == ["bridge_orig", "libero_spatial"] and said["raw_actions"] is True
    assert said["provenance"]["precision"] == "fp32" and said["provenance"]["checkpoint_sha256"]
