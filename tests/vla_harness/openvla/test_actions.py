"""Prompt tokens, action tokens, statistics and the gripper against the reference's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.vla_harness.openvla.tiny_checkpoint import DATA
from vla_harness import UserError
from vla_harness.checkpoints import find_checkpoint
from vla_harness.conventions import axis_angle_from_quat
from vla_harness.errors import CheckpointError
from vla_harness.policies.openvla.actions import (
    Bounds,
    choose_key,
    libero_gripper,
    read_statistics,
    token_values,
    value_tokens,
)
from vla_harness.policies.openvla.configuration import read_config
from vla_harness.policies.openvla.prompt import Prompt

Arrays = Mapping[str, np.ndarray]
CONFIG = json.loads((DATA / "config.json").read_text())
NO_NOOPS = json.loads((DATA / "dataset_statistics_no_noops.json").read_text())
SIZES = read_config(CONFIG, "tiny")


def test_texts_become_the_reference_s_tokens(tiny: str) -> None:
    prompt = Prompt(find_checkpoint(tiny))
    for case in json.loads((DATA / "tokenizer_cases.json").read_text(encoding="utf-8")):
        assert prompt.encode(case["text"]) == case["ids"], case["text"]


def test_a_prompt_ends_in_one_space(tiny: str, facts: Mapping[str, Any]) -> None:
    prompt = Prompt(find_checkpoint(tiny))
    for instruction, text in zip(facts["instructions"], facts["prompts"], strict=True):
        assert prompt.tokens(instruction) == [*prompt.encode(text), 29871]
        assert prompt.tokens(instruction)[:17] == prompt.encode(text + " ")[:17]


def test_any_token_decodes_as_in_the_reference(goldens: Arrays) -> None:
    values = token_values(np.repeat(goldens["decode_ids"][:, None], 7, axis=1), SIZES)
    for key in ("libero_spatial", "bridge_orig"):
        actions = Bounds.of(CONFIG["norm_stats"][key]["action"]).unnormalise(values)
        np.testing.assert_array_equal(actions, goldens[f"decode_actions_{key}"])


def test_an_action_survives_the_way_through_tokens_within_half_a_bin() -> None:
    values = np.linspace(-1, 1, 999)
    tokens = value_tokens(values, SIZES)
    assert tokens.min() == 31744 and tokens.max() == 31999
    np.testing.assert_allclose(token_values(tokens, SIZES), values, atol=1.001 / 255)


def test_the_gripper_is_turned_as_in_the_reference(goldens: Arrays) -> None:
    np.testing.assert_array_equal(
        libero_gripper(goldens["libero_gripper_in"]), goldens["libero_gripper_inverted_after_binarize"]
    )


def test_quaternions_become_the_reference_s_axis_angles(goldens: Arrays) -> None:
    ours = [axis_angle_from_quat(quat.copy()) for quat in goldens["libero_quat_xyzw"]]
    np.testing.assert_allclose(ours, goldens["libero_axisangle"], atol=1e-12)


def test_the_key_is_the_suite_s_or_the_one_without_pauses() -> None:
    two = CONFIG["norm_stats"]
    assert choose_key(two, "libero_spatial") == "libero_spatial"
    assert choose_key(NO_NOOPS, "libero_spatial") == choose_key(NO_NOOPS, None) == "libero_spatial_no_noops"
    with pytest.raises(UserError, match="no statistics for 'libero_goal': give --unnorm-key, one of bridge_orig, lib"):
        choose_key(two, "libero_goal")
    with pytest.raises(UserError, match="several data sets: give --unnorm-key, one of bridge_orig, libero_spatial"):
        choose_key(two, None)


def test_a_statistics_file_replaces_those_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert read_statistics(find_checkpoint(str(tmp_path))).keys() == CONFIG["norm_stats"].keys()
    (tmp_path / "dataset_statistics.json").write_text(json.dumps(NO_NOOPS))
    assert read_statistics(find_checkpoint(str(tmp_path))) == NO_NOOPS


def test_another_model_s_configuration_is_refused() -> None:
    with pytest.raises(CheckpointError, match="vision backbone 'siglip-vit-so400m'"):
        read_config(CONFIG | {"vision_backbone_id": "siglip-vit-so400m"}, "org/other")
