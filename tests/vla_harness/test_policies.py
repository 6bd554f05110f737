"""The policies without a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.vla_harness.runs import configuration, episode
from vla_harness import Observation, UserError, available_policies, load_policy
from vla_harness.results import RunFolder


def seen(name: str = "spatial/0/0/7", step: int = 0) -> Observation:
    return Observation({}, np.zeros(0, np.float32), "do it", name, step)


@pytest.mark.parametrize("name", ["noop", "random"])
def test_actions_have_the_shape_that_the_spec_states(name: str) -> None:
    policy = load_policy(name)
    actions = policy.act([seen(step=step) for step in range(5)])
    assert actions.shape == (5, policy.spec.horizon, policy.spec.action.dim) and actions.dtype == np.float32


def test_noop_stands_still_with_an_open_gripper() -> None:
    (action,) = load_policy("noop").act([seen()])[0]
    np.testing.assert_array_equal(action, [0, 0, 0, 0, 0, 0, load_policy("noop").spec.action.gripper_open])


def test_random_actions_are_a_function_of_seed_episode_and_step() -> None:
    policy = load_policy("random", seed=3)
    moments = [seen(name, step) for name in ("spatial/0/0/7", "spatial/0/0/8", "spatial/0/1/7") for step in (0, 1)]
    together = policy.act(moments)
    alone = np.concatenate([load_policy("random", seed=3).act([moment]) for moment in reversed(moments)])[::-1]
    np.testing.assert_array_equal(together, alone)
    assert len({row.tobytes() for row in together}) == len(moments)
    assert not np.array_equal(together, load_policy("random", seed=4).act(moments))
    assert np.abs(together).max() <= 1


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    with RunFolder.create(path, configuration()) as folder:
        folder.add(episode(0, 0))
        folder.add(episode(0, 1, "failure", steps=3))
        folder.add(episode(1, 0, "error", steps=2, error="The toy broke."))
    return path


def test_replay_plays_what_was_stored(earlier: Path) -> None:
    policy = load_policy("replay", checkpoint=str(earlier))
    first, second = episode(0, 0).actions, episode(0, 1).actions
    actions = policy.act([seen("spatial/0/1/7", 2), seen("spatial/0/0/7", 40)])
    np.testing.assert_array_equal(actions[:, 0], [second[2], first[40]])
    assert actions.dtype == np.float32


@pytest.mark.parametrize("missing", ["spatial/0/2/7", "spatial/0/0/8", "object/0/0/7", "spatial/1/0/7"])
def test_replay_of_an_episode_that_is_not_there_says_so(earlier: Path, missing: str) -> None:
    with pytest.raises(UserError, match=f"holds no finished episode {missing} .*--seed") as error:
        load_policy("replay", checkpoint=str(earlier)).act([seen(missing)])
    assert "\n" not in str(error.value)


def test_replay_past_the_end_says_so(earlier: Path) -> None:
    with pytest.raises(UserError, match=r"ended after 3 steps, and step 3 is asked for"):
        load_policy("replay", checkpoint=str(earlier)).act([seen("spatial/0/1/7", 3)])


def test_replay_states_which_run_it_plays(earlier: Path) -> None:
    stated = load_policy("replay", checkpoint=str(earlier)).provenance
    assert stated["checkpoint"] == str(earlier) and len(stated["checkpoint_sha256"]) == 64


def test_replay_refuses_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a run"):
        load_policy("replay", checkpoint=str(tmp_path))
    with RunFolder.create(tmp_path / "empty", configuration()):
        pass
    with pytest.raises(UserError, match="holds no finished episode"):
        load_policy("replay", checkpoint=str(tmp_path / "empty"))
    with RunFolder.create(tmp_path / "wide", configuration()) as folder:
        folder.add(episode(0, 0, actions=np.zeros((80, 9), np.float32)))
    with pytest.raises(UserError, match="have 9 entries"):
        load_policy("replay", checkpoint=str(tmp_path / "wide"))


def test_loading_explains_itself() -> None:
    with pytest.raises(UserError, match=f"choose one of {', '.join(available_policies())}"):
        load_policy("nothing")
    with pytest.raises(UserError, match="give --checkpoint"):
        load_policy("replay", checkpoint=None)
    with pytest.raises(UserError, match="has no option 'checkpoint'; its options: none"):
        load_policy("noop", checkpoint="here")
