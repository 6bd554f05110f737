"""The rollout engine on a toy environment, with real worker processes."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vla_harness.errors import ConventionError, RunFailed, UserError
from vla_harness.policies.basic import RandomPolicy
from vla_harness.protocols import PROTOCOLS, Protocol
from vla_harness.rollout import EnvironmentRecipe, EpisodeJob, RolloutSettings, run_episodes
from vla_harness.types import DELTA_EEF_POSE, EpisodeKey, EpisodeResult, Observation, Policy, PolicySpec

ROOT = Path(__file__).resolve().parents[2]
STEPS = 40
CARD = replace(PROTOCOLS["openvla"], max_steps={"toy": STEPS}, actions_per_inference=None, image_size=(16, 24))


class Reacher(Policy):
    """Goes straight to the target, four actions a call; each call of an episode is a little slower than the last.

    The slowing is its memory: an episode that is started again without ``forget`` is another one.
    """

    def __init__(self, fault: Callable[[Sequence[Observation]], None] | None = None, **spec: Any) -> None:
        usual: dict[str, Any] = {
            "action": DELTA_EEF_POSE,
            "state_keys": ("eef_pos",),
            "horizon": 4,
            "reads_scene": True,
        }
        self.spec = PolicySpec("reacher", **usual | spec)
        self.seen: list[list[Observation]] = []
        self.forgotten: list[str] = []
        self._calls: dict[str, int] = {}
        self._fault = fault

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        self.seen.append(list(observations))
        return np.stack([self._one(observation, observations) for observation in observations])

    def _one(self, observation: Observation, batch: Sequence[Observation]) -> np.ndarray:
        calls = self._calls[observation.episode] = self._calls.get(observation.episode, 0) + 1
        if self._fault is not None:
            self._fault(batch)  # after the memory has changed, and perhaps half way through the batch
        actions = np.zeros((self.spec.horizon, 7), np.float32)
        assert observation.scene is not None
        towards = observation.scene["target"] - observation.state[:3]
        actions[:, :3] = np.clip(towards / (0.1 * self.spec.horizon) * 0.99**calls, -0.4, 0.4)
        return actions

    def forget(self, episode: str) -> None:
        self.forgotten.append(episode)
        self._calls.pop(episode, None)


def jobs(tasks: Iterable[int] = range(3), states: Iterable[int] = range(4), **options: Any) -> list[EpisodeJob]:
    states = list(states)
    return [
        EpisodeJob(
            EpisodeKey("toy", task, state, 7),
            f"toy_{task}",
            f"reach target {task}",
            EnvironmentRecipe("tests.toy_environment:toy/reach-v0", {"task": task, **options}),
        )
        for task in tasks
        for state in states
    ]


def play(
    todo: Sequence[EpisodeJob],
    policy: Policy | None = None,
    workers: int = 1,
    log: Callable[[str], None] = lambda text: None,
    protocol: Protocol = CARD,
    **settings: Any,
) -> dict[str, EpisodeResult]:
    found = list(run_episodes(todo, policy or Reacher(), RolloutSettings(protocol, workers, **settings), log))
    results = {str(result.key): result for result in found}
    assert len(results) == len(found) == len(todo)
    return results


def substance(results: dict[str, EpisodeResult]) -> dict[str, tuple[str, str, str]]:
    return {key: (result.outcome, result.action_sha256, result.state_sha256) for key, result in results.items()}


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


# Failing parts.


def test_a_worker_that_dies_is_replaced_and_its_episode_played_again(
    tmp_path: Path, expected: dict[str, EpisodeResult]
) -> None:
    log: list[str] = []
    policy = Reacher()
    trouble = {"kind": "die", "initial_state": 1, "step": 13, "marker": str(tmp_path / "died")}
    todo = [*jobs([0], trouble=trouble), *jobs([1, 2])]
    results = play(todo, policy, workers=2, log=log.append)
    assert substance(results) == substance(expected)
    assert {key for key, result in results.items() if result.attempts == 2} == {"toy/0/1/7"}
    assert policy.forgotten.count("toy/0/1/7") == 2
    assert len(log) == 1 and "killed by SIGKILL" in log[0]


def test_a_worker_that_hangs_is_replaced_and_its_episode_played_again(
    tmp_path: Path, expected: dict[str, EpisodeResult]
) -> None:
    trouble = {"kind": "hang", "initial_state": 1, "step": 13, "marker": str(tmp_path / "hung")}
    log: list[str] = []
    results = play(jobs([0], trouble=trouble), log=log.append, silence_s=2.0)
    assert substance(results).items() <= substance(expected).items()
    assert results["toy/0/1/7"].attempts == 2 and "silent for 2 seconds" in log[0]


def test_a_slow_simulator_is_not_taken_for_a_hung_one() -> None:
    (result,) = play(jobs([0], [0], step_s=0.1), RandomPolicy(), silence_s=2.0).values()
    assert (result.attempts, result.outcome) == (1, "failure") and result.env_s > 2.0


def test_a_slow_policy_is_not_taken_for_a_hung_worker() -> None:
    def fault(batch: Sequence[Observation]) -> None:
        time.sleep(2.5 if batch[0].step == 4 else 0.0)

    (result,) = play(jobs([0], [0]), Reacher(fault), silence_s=1.0).values()
    assert (result.attempts, result.outcome) == (1, "success") and result.policy_ms[1] > 2500


def test_an_episode_that_always_kills_its_worker_is_an_error(expected: dict[str, EpisodeResult]) -> None:
    todo = [*jobs([0], [0, 1, 2, 3], trouble={"kind": "leave", "initial_state": 1, "step": 13})]
    results = play(todo)
    broken = results.pop("toy/0/1/7")
    assert (broken.outcome, broken.attempts, broken.state_sha256) == ("error", 3, "")
    assert broken.error == "The episode was given up after 3 attempts: its worker left with exit code 3."
    assert substance(results).items() <= substance(expected).items()


@pytest.mark.parametrize(("moment", "when"), [("step", "after 3 steps"), ("reset", "before the first step")])
def test_an_exception_of_the_environment_is_an_error_of_that_episode(
    moment: str, when: str, expected: dict[str, EpisodeResult]
) -> None:
    log: list[str] = []
    results = play(
        jobs([0], trouble={"kind": "raise", "moment": moment, "initial_state": 2, "step": 13}), log=log.append
    )
    broken = results.pop("toy/0/2/7")
    assert (broken.outcome, broken.attempts) == ("error", 1)
    assert broken.error == f"The episode broke off {when}: RuntimeError: the toy broke."
    assert substance(results).items() <= substance(expected).items()
    assert len(log) == 1 and "Traceback" in log[0] and log[0].startswith("toy/0/2/7")


@pytest.mark.parametrize(
    ("kind", "sentence", "plays"),
    [
        ("raise", "The environment of task 1 cannot be built: RuntimeError: the toy broke.", 1),
        ("assets", "The environment of task 1 cannot be built: The toy's mesh is missing: fetch it.", 1),
        ("die", "The environment of task 1 cannot be built: its worker was killed by SIGKILL, every time.", 3),
    ],
)
def test_a_task_that_cannot_be_built_does_not_end_the_run(
    kind: str, sentence: str, plays: int, expected: dict[str, EpisodeResult]
) -> None:
    results = play([*jobs([0, 2]), *jobs([1], trouble={"kind": kind, "moment": "build"})], workers=2)
    broken = [results.pop(str(job.key)) for job in jobs([1])]
    assert [result.outcome for result in broken] == ["error"] * 4
    assert {result.error for result in broken} == {sentence}
    assert sum(result.attempts for result in broken) <= plays + 1  # both workers may have tried at once
    assert substance(results).items() <= substance(expected).items()


def test_a_hung_construction_has_its_own_patience(tmp_path: Path, expected: dict[str, EpisodeResult]) -> None:
    trouble = {"kind": "hang", "moment": "build", "marker": str(tmp_path / "hung")}
    log: list[str] = []
    results = play(jobs([0], trouble=trouble), build_s=6.0, silence_s=0.5, log=log.append)
    assert substance(results).items() <= substance(expected).items() and "silent for 6 seconds" in log[0]


def test_an_action_that_is_not_finite_is_an_error_of_its_episode() -> None:
    class Wild(Reacher):
        def _one(self, observation: Observation, batch: Sequence[Observation]) -> np.ndarray:
            actions = super()._one(observation, batch)
            if observation.episode == "toy/0/1/7" and observation.step == 4:
                actions[2, 5] = np.nan
            return actions

    results = play(jobs([0]), Wild())
    assert [result.outcome for result in results.values()].count("error") == 1
    assert "returned nan as entry 5 of action 2" in results["toy/0/1/7"].error and results["toy/0/1/7"].steps == 4


# The policy: batches and failures.


def test_waiting_questions_share_a_call_up_to_the_largest_batch(expected: dict[str, EpisodeResult]) -> None:
    policy = Reacher(fault=lambda batch: time.sleep(0.02), max_batch=2)
    assert substance(play(jobs(), policy, workers=3)) == substance(expected)
    sizes = {len(batch) for batch in policy.seen}
    assert sizes == {1, 2}


def test_an_episode_on_which_the_policy_fails_is_the_only_error(expected: dict[str, EpisodeResult]) -> None:
    def fault(batch: Sequence[Observation]) -> None:
        time.sleep(0.02)
        if any(observation.episode == "toy/0/1/7" and observation.step == 4 for observation in batch):
            raise UserError("Nothing is stored for this one: give another.")

    policy = Reacher(fault)
    results = play(jobs(), policy, workers=3)
    broken = results.pop("toy/0/1/7")
    assert (broken.outcome, broken.error) == (
        "error",
        "The policy failed: Nothing is stored for this one: give another.",
    )
    assert substance(results).items() <= substance(expected).items()
    assert set(policy.forgotten) == {str(job.key) for job in jobs()}


def test_a_broken_policy_ends_the_run_and_the_episodes_before_are_kept() -> None:
    calls = []

    def fault(batch: Sequence[Observation]) -> None:
        calls.append(batch)
        if len(calls) > 20:
            raise ConnectionError("the server is gone")

    found = []
    with pytest.raises(RunFailed, match=r"3 episodes in a row: ConnectionError: the server is gone\.$"):
        for result in run_episodes(jobs(), Reacher(fault), RolloutSettings(CARD, 1), lambda text: None):
            found.append(result)
    assert found and {result.outcome for result in found} == {"success"}


def test_actions_of_a_wrong_shape_are_the_policys_failure() -> None:
    class Flat(RandomPolicy):
        def act(self, observations: Sequence[Observation]) -> np.ndarray:
            return super().act(observations)[:, 0]

    with pytest.raises(RunFailed, match=r"returned actions of shape \(1, 7\), not \(1, 1, 7\)"):
        play(jobs(), Flat())


def test_specs_that_do_not_go_together_are_refused_before_the_first_episode() -> None:
    policy = Reacher(state_keys=("joint_pos",))
    with pytest.raises(ConventionError, match=r"'reacher' reads the state part 'joint_pos'.*'toy/reach-v0'"):
        play(jobs(), policy)
    assert not policy.seen


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


# Processes.


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_leaving_early_ends_the_workers() -> None:
    before = set(children(os.getpid()))
    results = run_episodes(jobs(step_s=0.01), RandomPolicy(), RolloutSettings(CARD, 2), lambda text: None)
    next(results)
    workers = set(children(os.getpid())) - before
    assert len(workers) >= 2
    results.close()
    assert not any(alive(pid) for pid in workers - {tracker_pid()})


def tracker_pid() -> int | None:
    """multiprocessing's helper process, which stays until this one ends."""
    from multiprocessing import resource_tracker

    return resource_tracker._resource_tracker._pid  # type: ignore[attr-defined]


def test_workers_use_one_blas_thread_and_this_process_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    before = set(children(os.getpid()))
    results = run_episodes(jobs([0], step_s=0.01), RandomPolicy(), RolloutSettings(CARD, 1), lambda text: None)
    next(results)
    (worker,) = set(children(os.getpid())) - before - {tracker_pid()}
    inherited = Path(f"/proc/{worker}/environ").read_bytes().split(b"\0")
    assert b"OMP_NUM_THREADS=1" in inherited and b"MKL_NUM_THREADS=1" in inherited
    assert os.environ["OMP_NUM_THREADS"] == "5" and "MKL_NUM_THREADS" not in os.environ
    results.close()


PARENT = """
from tests.vla_harness.test_rollout import *
if __name__ == "__main__":
    todo = jobs(range(2), range(3), step_s=float(sys.argv[1]))
    for result in run_episodes(todo, RandomPolicy(), RolloutSettings(CARD, 2, silence_s=float(sys.argv[2])), print):
        print(result.key, flush=True)
"""


@pytest.mark.parametrize("step_s", [0.01, 60.0])  # playing, and in the middle of a simulator's call
def test_workers_die_with_a_killed_parent(step_s: float, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen(
        [sys.executable, str(script), str(step_s), "60"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    ) as parent:
        assert parent.stdout is not None
        if step_s < 1:
            parent.stdout.readline()
        else:
            wait_for(lambda: len(children(parent.pid)) == 3)
            time.sleep(3.0)
        workers = children(parent.pid)
        assert len(workers) == 3  # two workers, and multiprocessing's resource tracker
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        wait_for(lambda: not any(alive(pid) for pid in workers))


def test_a_stopped_parent_does_not_take_its_workers_for_hung(tmp_path: Path) -> None:
    """As after Ctrl-Z and `fg`, or on a machine that slept."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen(
        [sys.executable, str(script), "0.02", "2"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        processes = [parent.pid, *children(parent.pid)]
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(3.0)
        for pid in reversed(processes):
            os.kill(pid, signal.SIGCONT)
        printed = parent.stdout.read()
    assert parent.returncode == 0 and len(printed.splitlines()) == 5 and "loss" not in printed


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_hashes_are_of_the_bytes(expected: dict[str, EpisodeResult]) -> None:
    result = expected["toy/0/0/7"]
    assert result.action_sha256 == hashlib.sha256(result.actions.tobytes()).hexdigest()
