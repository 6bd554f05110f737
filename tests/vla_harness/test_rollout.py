"""What an episode of the rollout engine is, on a toy environment with real worker processes."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.vla_harness.toy_runs import CARD, STEPS, Reacher, jobs, play, substance
from vla_harness.policies.basic import RandomPolicy
from vla_harness.types import EpisodeResult, Observation


@pytest.fixture(scope="module")
def expected() -> dict[str, EpisodeResult]:
    return play(jobs())


# What an episode is.


def test_episodes_are_the_same_for_any_number_of_workers_and_any_order(expected: dict[str, EpisodeResult]) -> None:
    shuffled = jobs()
    random.Random(5).shuffle(shuffled)
    three = play(shuffled, workers=3)
    assert substance(three) == substance(expected)
    assert {result.outcome for result in three.values()} == {"success"}
    assert len({result.state_sha256 for result in three.values()}) == len(three)


def test_in_rounds_every_task_plays_a_few_states_before_any_plays_the_next(expected: dict[str, EpisodeResult]) -> None:
    results = play(jobs(), round_states=2)
    order = [(result.key.task_id, result.key.initial_state) for result in results.values()]
    assert order == [(task, state) for half, tasks in ((0, (0, 1, 2)), (2, (2, 0, 1))) for task in tasks for state in
                     (half, half + 1)]  # fmt: skip
    assert substance(results) == substance(expected)


def test_a_result_states_what_happened(expected: dict[str, EpisodeResult]) -> None:
    for result in expected.values():
        assert result.task_name == f"toy_{result.key.task_id}" and result.instruction.endswith(str(result.key.task_id))
        assert result.actions.shape == (result.steps, 7) and result.actions.dtype == np.float32
        assert len(result.policy_ms) == -(-result.steps // 4) and min(result.policy_ms) > 0
        assert result.wall_s > result.env_s > 0 and result.frames == 0 and result.video == ""
        assert len(result.state_sha256) == 64 and result.error == "" and result.attempts == 1


def test_the_policy_is_asked_when_its_chunk_is_used_up_and_sees_what_its_spec_names() -> None:
    policy = Reacher(cameras=("wrist",), reads_scene=True)
    (result,) = play(jobs([0], [0]), policy).values()
    asked = [observation for batch in policy.seen for observation in batch]
    assert [observation.step for observation in asked] == list(range(0, result.steps, 4))
    for observation in asked:
        assert set(observation.images) == {"wrist"} and observation.images["wrist"].shape == (16, 24, 3)
        assert observation.state.dtype == np.float32 and observation.state.shape == (3,)
        assert observation.episode == str(result.key) == "toy/0/0/7" and observation.instruction == "reach target 0"
        assert observation.scene is not None
    assert result.frames == len(asked)
    assert policy.forgotten == ["toy/0/0/7"]


def test_a_policy_that_does_not_read_the_scene_does_not_get_it() -> None:
    scenes: list[Any] = []

    class Watcher(RandomPolicy):
        def act(self, observations: Sequence[Observation]) -> np.ndarray:
            scenes.extend(observation.scene for observation in observations)
            return super().act(observations)

    play(jobs([0], [0]), Watcher())
    assert len(scenes) == STEPS and set(scenes) == {None}


@pytest.mark.parametrize(("cap", "decisions"), [(1, 40), (3, 14), (4, 10), (8, 10), (None, 10)])
def test_the_protocol_caps_how_much_of_a_chunk_is_executed(cap: int | None, decisions: int) -> None:
    class Still(Reacher):
        def _one(self, observation: Observation, batch: Sequence[Observation]) -> np.ndarray:
            return np.full((4, 7), 0.01, np.float32)

    (result,) = play(jobs([0], [0]), Still(), protocol=replace(CARD, actions_per_inference=cap)).values()
    assert (result.outcome, result.steps, len(result.policy_ms)) == ("failure", STEPS, decisions)


def test_the_policys_own_image_size_goes_before_the_protocols() -> None:
    policy = Reacher(cameras=("agentview",), image_size=(8, 10))
    play(jobs([0], [0]), policy)
    assert policy.seen[0][0].images["agentview"].shape == (8, 10, 3)


def test_settle_steps_and_environment_seed_are_the_protocols(expected: dict[str, EpisodeResult]) -> None:
    """The toy's chaos and its target show both in the state."""
    first = [str(job.key) for job in jobs([0])]
    longer = play(jobs([0]), protocol=replace(CARD, settle_steps=11))
    assert all(longer[key].state_sha256 != expected[key].state_sha256 for key in first)
    pushed = play(jobs([0]), protocol=replace(CARD, settle_action=(0.1, 0, 0, 0, 0, 0, -1)))
    assert all(pushed[key].state_sha256 != expected[key].state_sha256 for key in first)
    own = play(jobs([0]), protocol=replace(CARD, environment_seed=None))
    assert [own[key].state_sha256 == expected[key].state_sha256 for key in first] == [True, False, False, False]


def test_hashes_are_of_the_bytes(expected: dict[str, EpisodeResult]) -> None:
    result = expected["toy/0/0/7"]
    assert result.action_sha256 == hashlib.sha256(result.actions.tobytes()).hexdigest()


# Videos.


@pytest.mark.parametrize(
    ("video", "filmed"), [("none", set()), ("failures", {"failure"}), ("all", {"failure", "success"})]
)
def test_episodes_are_filmed_when_they_have_ended(video: str, filmed: set[str], tmp_path: Path) -> None:
    import av

    short = replace(CARD, max_steps={"toy": 14})
    results = play(jobs([0], range(8)), protocol=short, folder=tmp_path, video=video)
    assert {result.outcome for result in results.values()} == {"failure", "success"}
    assert substance(results) == substance(play(jobs([0], range(8)), protocol=short))
    for result in results.values():
        assert bool(result.video) == (result.outcome in filmed) and result.frames == 0
        if result.video:
            with av.open(str(tmp_path / result.video)) as container:
                frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
            assert len(frames) == result.steps + 1 and frames[0].shape == (16, 24, 3)
    assert len(list(tmp_path.rglob("*.mp4"))) == sum(bool(result.video) for result in results.values())


def test_a_film_of_something_else_is_not_kept(tmp_path: Path) -> None:
    """An environment whose second play differs from the first is not repeatable, and the film would lie."""
    log: list[str] = []
    todo = jobs([0], [0], trouble={"kind": "impure"})
    (result,) = play(todo, RandomPolicy(), folder=tmp_path, video="all", log=log.append).values()
    assert (result.outcome, result.video) == ("failure", "") and not list(tmp_path.rglob("*.mp4"))
    assert "did not lead to the same state" in log[0]
