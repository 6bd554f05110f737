"""The rollout engine when workers, environments and policies fail, with real worker processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.vla_harness.toy_runs import CARD, Reacher, jobs, play, substance
from vla_harness.errors import ConventionError, EpisodesLost, RunFailed, UserError
from vla_harness.policies.basic import RandomPolicy
from vla_harness.rollout import RolloutSettings, run_episodes
from vla_harness.types import EpisodeResult, Observation

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def expected() -> dict[str, EpisodeResult]:
    return play(jobs())


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


def test_an_episode_whose_memory_was_lost_is_played_again_and_its_neighbours_go_on(
    expected: dict[str, EpisodeResult],
) -> None:
    class Forgetful(Reacher):
        lost = 0

        def act(self, observations: Sequence[Observation]) -> np.ndarray:
            actions = super().act(observations)
            hit = [o.episode == "toy/0/1/7" and o.step > 0 and not self.lost for o in observations]
            if not any(hit):
                return actions
            self.lost += 1
            chunks = [None if gone else chunk for gone, chunk in zip(hit, actions, strict=True)]
            raise EpisodesLost("the server lost what its policy remembered of the episode", chunks)

    log: list[str] = []
    results = play(jobs(), Forgetful(), workers=2, log=log.append)
    assert substance(results) == substance(expected)
    assert {key for key, result in results.items() if result.attempts == 2} == {"toy/0/1/7"}
    assert log == ["toy/0/1/7\nthe server lost what its policy remembered of the episode (loss 1)"]


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


def test_a_policy_that_refuses_every_episode_of_a_task_does_not_end_the_run() -> None:
    def fault(batch: Sequence[Observation]) -> None:
        if batch[0].episode.startswith("toy/0/"):
            raise UserError("There is no skill for this task: choose another.")

    results = play(jobs(), Reacher(fault), workers=1)
    assert {key: result.outcome for key, result in results.items()} == {
        str(job.key): "error" if job.key.task_id == 0 else "success" for job in jobs()
    }


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
import sys
from tests.vla_harness.toy_runs import *
from vla_harness.policies.basic import RandomPolicy
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
