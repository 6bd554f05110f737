"""The policy: the reference's actions, the harness's interface, and formats of fewer bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from vla_harness import Observation, UserError, load_policy
from vla_harness.checkpoints import module_bytes
from vla_harness.conventions import orient
from vla_harness.policies.openvla.policy import OpenVLAPolicy

Arrays = Mapping[str, np.ndarray]


def loaded(checkpoint: str, **options: Any) -> OpenVLAPolicy:
    policy = load_policy("openvla", checkpoint=checkpoint, device="cpu", **{"unnorm_key": "libero_spatial", **options})
    assert isinstance(policy, OpenVLAPolicy)
    return policy


@pytest.fixture(scope="module")
def policy(tiny: str) -> OpenVLAPolicy:
    return loaded(tiny, precision="fp32")


def observations(goldens: Arrays, facts: Mapping[str, Any]) -> list[Observation]:
    """Return upright frames, as an environment gives them, of the simulator's raw ones, which are upside down."""
    return [
        Observation({"agentview": orient(image, "upside_down", "upright")}, np.zeros(0, np.float32), words, "0", 0)
        for image, words in zip(goldens["images"], facts["instructions"], strict=True)
    ]


@pytest.mark.parametrize("key", ["libero_spatial", "bridge_orig"])
def test_predict_action_gives_the_reference_s_numbers(
    policy: OpenVLAPolicy, goldens: Arrays, facts: Mapping[str, Any], key: str
) -> None:
    for row, instruction in enumerate(facts["instructions"]):
        action = policy.predict_action(goldens["images"][row], instruction, unnorm_key=key)
        assert action.dtype == np.float64
        np.testing.assert_array_equal(action, goldens[f"actions_{key}_fp32"][row])


def test_act_takes_the_libero_path_and_turns_the_gripper(
    policy: OpenVLAPolicy, goldens: Arrays, facts: Mapping[str, Any]
) -> None:
    seen = observations(goldens, facts)
    actions = policy.act(seen)
    assert actions.shape == (4, policy.spec.horizon, policy.spec.action.dim) and actions.dtype == np.float32
    expected = goldens["libero_actions_fp32"]
    np.testing.assert_array_equal(actions[:, 0, :6], expected[:, :6].astype(np.float32))
    np.testing.assert_array_equal(actions[:, 0, 6], np.where(expected[:, 6] > 0.5, -1, 1))
    np.testing.assert_array_equal(actions, np.concatenate([policy.act([one]) for one in seen]))


def test_the_provenance_names_what_made_the_numbers(policy: OpenVLAPolicy, tiny: str) -> None:
    stated = policy.provenance
    assert (stated["precision"], stated["device"], stated["unnorm_key"]) == ("fp32", "cpu", "libero_spatial")
    assert stated["checkpoint"] == tiny and len(stated["checkpoint_sha256"]) == 64
    assert stated["checkpoint_revision"] is None


@pytest.mark.parametrize(("precision", "share", "error"), [("8bit", 0.52, 0.03), ("4bit", 0.30, 0.3)])
def test_fewer_bits_take_less_memory_and_act(
    tiny: str, goldens: Arrays, facts: Mapping[str, Any], precision: str, share: float, error: float
) -> None:
    policy = loaded(tiny, precision=precision)
    actions = policy.act(observations(goldens, facts)[:2])
    assert actions.shape == (2, 1, 7) and np.isfinite(actions).all()
    layer = policy.model.language_model.layers.get_submodule("0.self_attn")
    assert module_bytes(layer) < share * 2 * (4 * 128 * 128)  # of four matrices in bf16
    with torch.inference_mode():
        pixels = torch.randn(1, 6, 224, 224, generator=torch.Generator().manual_seed(0))
        exact, rounded = (p.model.patches(pixels).float() for p in (loaded(tiny, precision="bf16"), policy))
    assert (rounded - exact).norm() < error * exact.norm()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"unnorm_key": "libero_goal"}, "no statistics for 'libero_goal': give --unnorm-key, one of bridge_orig"),
        ({"precision": "2bit"}, "no precision '2bit': choose one of fp32, bf16, 8bit, 4bit"),
    ],
)
def test_what_cannot_be_met_is_said_in_a_sentence(tiny: str, options: dict[str, str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        loaded(tiny, **options)
