"""Which protocol a policy is evaluated under, here and behind a server."""

import json
from dataclasses import asdict
from typing import Any

import pytest

from vla_harness.protocols import chunk_text, default_protocol
from vla_harness.servers.remote.metadata import read_spec
from vla_harness.types import DELTA_EEF_POSE, PolicySpec


@pytest.mark.parametrize(
    ("stated", "protocol"),
    [
        ({"protocol": "openvla-oft", "horizon": 8}, "openvla-oft"),
        ({"protocol": "vla-harness"}, "vla-harness"),
        ({}, "openvla"),
        ({"horizon": 8}, "vla-harness"),  # nobody has said that one action of eight is meant to be executed
    ],
)
def test_the_default_protocol_is_the_policys_own_and_a_server_states_it(stated: dict[str, Any], protocol: str) -> None:
    spec = PolicySpec("some", DELTA_EEF_POSE, image_path="as rendered", **stated)
    assert default_protocol(spec) == protocol
    served = read_spec(json.loads(json.dumps({"spec": asdict(spec), "max_batch": spec.max_batch})), "http://x")
    assert served == spec and default_protocol(served) == protocol


def test_what_is_executed_of_a_chunk_is_said() -> None:
    assert [chunk_text(*case) for case in ((16, 1), (8, 8), (8, None), (8, 50), (1, 1))] == [
        "1 of the policy's 16",
        "all of the policy's 8",
        "all of the policy's 8",
        "all of the policy's 8",
        "1",
    ]
