"""GR00T as a policy: the reference's call and the harness's, batches, noise, number formats, refusals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.vla_harness.groot.goldens import CHECKPOINT, INSTRUCTIONS, TOKENIZER, Goldens, observation
from vla_harness import Observation, load_policy
from vla_harness.conventions import Adapter
from vla_harness.errors import ConventionError, UserError
from vla_harness.policies.groot.assembly import GrootParts, open_groot
from vla_harness.policies.groot.policy import GrootPolicy
from vla_harness.registry import POLICIES

Opened = Callable[[str], GrootParts]


@pytest.fixture(scope="module")
def policy(opened: Opened) -> GrootPolicy:
    return GrootPolicy.of(opened("a"))


def same_actions(actions: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert list(actions) == list(wanted)
    for name, array in wanted.items():
        assert actions[name].shape == array.shape and actions[name].dtype == np.float32
        np.testing.assert_allclose(actions[name], array, rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("case", ["a", "b", "c"])
def test_get_action_equals_the_reference(case: str, cases: Goldens, opened: Opened) -> None:
    actions = GrootPolicy.of(opened(case)).get_action(observation(cases, case), noise=cases[f"{case}.noise"])
    same_actions(actions, {name: array[0] for name, array in cases.under(f"{case}.unnorm.").items()})


def test_the_registry_loads_it(cases: Goldens) -> None:
    policy = load_policy(
        "groot", checkpoint=CHECKPOINT, tokenizer=TOKENIZER, embodiment="new_embodiment", data_config="so100_dualcam",
        precision="fp32", device="cpu",
    )  # fmt: skip
    assert isinstance(policy, GrootPolicy)
    actions = policy.get_action(observation(cases, "a"), noise=cases["a.noise"])
    same_actions(actions, {name: array[0] for name, array in cases.under("a.unnorm.").items()})
    assert policy.get_modality_config()["state"]["modality_keys"] == ["state.single_arm", "state.gripper"]


def test_a_batch_gives_what_its_rows_give_alone(cases: Goldens, policy: GrootPolicy) -> None:
    """The second row's prompt is shorter: padded, as the reference runs it, its actions would be off by 0.05."""
    rows = [observation(cases, case) for case in ("a", "c", "a")]
    batch: dict[str, Any] = {
        name: np.stack([row[name] for row in rows]) for name in rows[0] if "annotation" not in name
    }
    batch["annotation.human.task_description"] = [INSTRUCTIONS[case] for case in ("a", "c", "a")]
    noise = np.concatenate([cases["a.noise"], cases["c.noise"], cases["padded.noise"][1:]])
    together = policy.get_action(batch, noise=noise)
    for i, row in enumerate(rows):
        same_actions(policy.get_action(row, noise=noise[i : i + 1]), {name: a[i] for name, a in together.items()})


def test_rows_that_do_not_match_are_refused(cases: Goldens, policy: GrootPolicy) -> None:
    batch = {name: np.stack([value, value]) for name, value in observation(cases, "a").items() if "annot" not in name}
    with pytest.raises(UserError, match="'annotation' has 1 rows, and the state has 2"):
        policy.get_action(batch | {"annotation": ["push"]})


def looks(cases: Goldens, episodes: Sequence[tuple[str, int, str]]) -> list[Observation]:
    images = {"front": cases["a.obs.video.front"][0], "wrist": cases["a.obs.video.wrist"][0]}
    state = np.concatenate([cases["a.obs.state.single_arm"][0], cases["a.obs.state.gripper"][0]]).astype(np.float32)
    return [Observation(images, state, words, episode, step) for episode, step, words in episodes]


def test_noise_depends_on_seed_episode_and_step_alone(cases: Goldens, opened: Opened, policy: GrootPolicy) -> None:
    first = ("one", 0, "open the drawer")
    others = [("two", 0, "open the drawer"), ("one", 1, "open the drawer"), ("two", 5, "push the red block away")]
    alone = policy.act(looks(cases, [first]))
    assert alone.shape == (1, 16, 6) and alone.dtype == np.float32
    together = policy.act(looks(cases, [*others, first]))
    np.testing.assert_allclose(together[3], alone[0], rtol=0, atol=1e-5)
    assert all(np.abs(row - alone[0]).max() > 0.1 for row in together[:3])
    other_seed = GrootPolicy.of(opened("a"), seed=1).act(looks(cases, [first]))
    assert np.abs(other_seed - alone).max() > 0.1


def test_a_policy_whose_packages_are_missing_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hollow_policy.py").write_text("import torch_that_is_not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(POLICIES, "hollow", "hollow_policy:HollowPolicy")
    with pytest.raises(UserError, match="needs torch_that_is_not_there, which is not installed: run `pip install"):
        load_policy("hollow")


def test_act_and_get_action_agree(cases: Goldens, policy: GrootPolicy) -> None:
    from vla_harness.types import random_generator

    noise = random_generator(0, "e", 3).standard_normal((1, 16, 32)).astype(np.float32)
    actions = policy.get_action(observation(cases, "a"), noise=noise)
    (row,) = policy.act(looks(cases, [("e", 3, INSTRUCTIONS["a"])]))
    np.testing.assert_allclose(row, np.concatenate(list(actions.values()), axis=-1), rtol=0, atol=1e-5)


def test_calls_without_noise_draw_it_from_the_seed(cases: Goldens, opened: Opened) -> None:
    def draws(seed: int) -> list[np.ndarray]:
        policy = GrootPolicy.of(opened("a"), seed)
        return [policy.get_action(observation(cases, "a"))["action.single_arm"] for _ in range(2)]

    first, second = draws(4)
    assert np.abs(first - second).max() > 0.1
    assert all(np.array_equal(a, b) for a, b in zip(draws(4), [first, second], strict=True))
    assert np.abs(draws(5)[0] - first).max() > 0.1


@pytest.mark.parametrize(
    ("precision", "most", "root_mean_square"), [("bf16", 0.03, 0.005), ("8bit", 0.06, 0.02), ("4bit", 0.6, 0.25)]
)
def test_error_of_number_formats(precision: str, most: float, root_mean_square: float, cases: Goldens) -> None:
    """Against fp32 actions with a root mean square of 1.3; the widths of 48 and 64 here are hard on 4-bit blocks."""
    parts = open_groot(CHECKPOINT, TOKENIZER, config="so100_dualcam", precision=precision, device="cpu")
    row = parts.transforms.inputs(observation(cases, "a"))
    error = GrootPolicy.of(parts)._normalised([row], cases["a.noise"]) - cases["a.normalized_action"]
    assert 0 < np.abs(error).max() < most
    assert np.sqrt((error**2).mean()) < root_mean_square
    assert parts.model.head.vlln.weight.dtype == torch.bfloat16


def test_more_denoising_steps(cases: Goldens) -> None:
    policy = GrootPolicy(CHECKPOINT, TOKENIZER, data_config="so100_dualcam", precision="fp32", denoising_steps=8)
    actions = policy.get_action(observation(cases, "a"), noise=cases["a.noise"])["action.single_arm"]
    difference = np.abs(actions - cases["a.unnorm.action.single_arm"][0]).max()
    assert 1e-3 < difference < 2.0  # another way from the same noise to nearly the same place
    assert policy.provenance["denoising_steps"] == 8


def test_plain_words_are_another_prompt(cases: Goldens) -> None:
    policy = GrootPolicy(CHECKPOINT, TOKENIZER, data_config="so100_dualcam", precision="fp32", prompt="train")
    actions = policy.get_action(observation(cases, "a"), noise=cases["a.noise"])["action.single_arm"]
    assert np.abs(actions - cases["a.unnorm.action.single_arm"][0]).max() > 1e-3


def test_provenance_names_what_decides_the_actions(policy: GrootPolicy) -> None:
    stated = policy.provenance
    assert stated["precision"] == "fp32" and stated["device"] == "cpu" and stated["checkpoint"] == CHECKPOINT
    assert stated["embodiment"] == "new_embodiment" and stated["data_config"] == "so100_dualcam"
    assert len(stated["checkpoint_sha256"]) == len(stated["statistics_sha256"]) == 64


def test_an_arm_of_joints_is_refused_before_the_first_episode(opened: Opened) -> None:
    from vla_harness.envs.libero.environment import INTERFACE

    with pytest.raises(ConventionError, match="reads the camera 'front'"):
        Adapter(INTERFACE, GrootPolicy.of(opened("a")).spec, "libero/spatial")


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ({"prompt": "loud"}, "prompt is 'loud': choose one of policy, train"),
        ({"frames": "hers"}, "frames is 'hers': choose one of nvidia, lerobot"),
        ({"denoising_steps": 0}, "at least 1"),
        ({"device": "tpu"}, "--device tpu"),
        ({"checkpoint": "/nowhere"}, "no checkpoint folder /nowhere"),
    ],
)
def test_wrong_options_are_refused(option: dict[str, Any], complaint: str) -> None:
    given = {"checkpoint": CHECKPOINT, "tokenizer": TOKENIZER, "data_config": "so100_dualcam", "device": "cpu"}
    with pytest.raises(UserError, match=complaint):
        load_policy("groot", **(given | option))
