"""GR00T behind the server: its HTTP form and its ZeroMQ service answer as ``get_action`` does in process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import json_numpy
import numpy as np
import pytest
import requests

from tests.servers.test_server import zmq_call
from tests.servers.toys import serving, url
from tests.vla_harness.groot.goldens import CHECKPOINT, TOKENIZER, Goldens, observation
from vla_harness.policies.groot.assembly import GrootParts, open_groot
from vla_harness.policies.groot.policy import GrootPolicy
from vla_harness.servers.action_server import Server


@pytest.fixture(scope="module")
def parts() -> GrootParts:
    return open_groot(CHECKPOINT, TOKENIZER, "new_embodiment", "so100_dualcam", "fp32", "cpu")


@pytest.fixture(scope="module")
def asked() -> dict[str, Any]:
    return observation(Goldens("cases"), "a")


@pytest.fixture
def wanted(parts: GrootParts, asked: dict[str, Any]) -> dict[str, np.ndarray]:
    """What the first call of a policy of the server's seed returns."""
    return GrootPolicy.of(parts, seed=4).get_action(asked)


@pytest.fixture
def server(parts: GrootParts) -> Iterator[Server]:
    with serving(GrootPolicy.of(parts, seed=4)) as server:
        yield server


def same_actions(actions: Mapping[str, Any], wanted: Mapping[str, np.ndarray]) -> None:
    assert list(actions) == list(wanted) == ["action.single_arm", "action.gripper"]
    for name, array in wanted.items():
        assert actions[name].dtype == array.dtype
        np.testing.assert_array_equal(actions[name], array, err_msg=name)


@pytest.mark.parametrize("encoded", [False, True], ids=["plain", "double-encoded"])
def test_http(encoded: bool, server: Server, asked: dict[str, Any], wanted: dict[str, np.ndarray]) -> None:
    body = json_numpy.dumps({"observation": asked})
    reply = requests.post(f"{url(server)}/act", data=json_numpy.dumps({"encoded": body}) if encoded else body)
    assert reply.status_code == 200
    same_actions(json_numpy.loads(reply.json() if encoded else reply.text), wanted)


def test_zeromq(server: Server, asked: dict[str, Any], wanted: dict[str, np.ndarray]) -> None:
    same_actions(zmq_call(server, {"endpoint": "get_action", "data": asked}), wanted)
    config = zmq_call(server, {"endpoint": "get_modality_config"})
    assert config == {name: dict(value) for name, value in server.service.policy.get_modality_config().items()}  # type: ignore[attr-defined]


def test_zeromq_in_a_batch(
    server: Server, asked: dict[str, Any], parts: GrootParts, wanted: dict[str, np.ndarray]
) -> None:
    batch = {name: np.stack([value] * 2) for name, value in asked.items() if "annotation" not in name}
    batch["annotation.human.task_description"] = asked["annotation.human.task_description"] * 2
    inside = GrootPolicy.of(parts, seed=4).get_action(batch)
    actions = zmq_call(server, {"endpoint": "get_action", "data": batch})
    same_actions(actions, inside)
    assert all(actions[name].shape == (2, *array.shape) for name, array in wanted.items())


def test_what_it_cannot_read_is_one_sentence(server: Server, asked: dict[str, Any]) -> None:
    lacking = {name: value for name, value in asked.items() if name != "state.gripper"}
    reply = requests.post(f"{url(server)}/act", data=json_numpy.dumps({"observation": lacking}))
    assert reply.status_code == 422 and "state.gripper" in reply.json()["error"]
    assert "state.gripper" in zmq_call(server, {"endpoint": "get_action", "data": lacking})["error"]
