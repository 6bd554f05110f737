"""The engine with several copies of the policy, some of which are lost: a crew of threads, real worker processes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence

import pytest

from tests.vla_harness.toy_runs import CARD, Reacher, jobs, play, substance
from vla_harness.errors import RunFailed
from vla_harness.rollout import RolloutSettings, engine, run_episodes
from vla_harness.rollout.crew import Events, Replica, ask_policy
from vla_harness.rollout.jobs import Answered, Gone, Loaded, Question, WorkerSetup
from vla_harness.rollout.local import LocalCrew
from vla_harness.rollout.process import WorkerProcess
from vla_harness.types import EpisodeResult

Fault = Callable[["Copy", Answered], Answered | Gone]
"""What becomes of an answer."""


class Copy(Replica):
    """A copy with a memory of its own, in a thread."""

    def __init__(self, number: int, events: Events, fault: Fault) -> None:
        super().__init__()
        self.number, self.policy, self.batches = number, Reacher(), 0
        self._events, self._fault = events, fault
        self._asked: queue.SimpleQueue[Sequence[Question] | None] = queue.SimpleQueue()
        events.put((self, Loaded()))
        threading.Thread(target=self._work, daemon=True).start()

    def _ask(self, questions: Sequence[Question]) -> None:
        self._asked.put(questions)

    def _work(self) -> None:
        while (questions := self._asked.get()) is not None:
            self.batches += 1
            self._events.put((self, self._fault(self, ask_policy(self.policy, questions))))  # type: ignore[arg-type]

    def forget(self, episode: str) -> None:
        self.policy.forget(episode)

    def close(self) -> None:
        self._asked.put(None)


class Threads(LocalCrew):
    copies = 2

    def __init__(self, fault: Fault) -> None:
        super().__init__(Reacher())
        self.made: list[Copy] = []
        self._fault = fault

    def enlist(self, events: Events) -> Copy:  # type: ignore[override]
        self.made.append(Copy(len(self.made), events, self._fault))
        return self.made[-1]


def play_with(crew: LocalCrew, log: list[str], workers: int = 3) -> dict[str, EpisodeResult]:
    found = list(run_episodes(jobs(), crew, RolloutSettings(CARD, workers), log.append))
    assert len({result.key for result in found}) == len(found) == len(jobs())
    return {str(result.key): result for result in found}


@pytest.fixture(scope="module")
def expected() -> dict[str, tuple[str, str, str]]:
    return substance(play(jobs()))


def test_episodes_of_a_lost_copy_start_again_and_all_end_the_same(expected: dict[str, tuple[str, str, str]]) -> None:
    def fault(copy: Copy, answered: Answered) -> Answered | Gone:
        return Gone("its node is gone") if copy.number == 0 and copy.batches == 4 else answered

    log: list[str] = []
    crew = Threads(fault)
    results = play_with(crew, log)
    assert substance(results) == expected
    assert len(crew.made) == 3
    assert "A copy of the policy was lost: its node is gone" in log
    again = {key for key, result in results.items() if result.attempts > 1}
    assert again and again == {line.partition("\n")[0] for line in log if "that knew it was lost" in line}


def test_a_question_that_does_not_arrive_costs_its_episode_only(expected: dict[str, tuple[str, str, str]]) -> None:
    def fault(copy: Copy, answered: Answered) -> Answered | Gone:
        return Answered([None, *answered.chunks[1:]]) if copy.number == 1 and copy.batches == 3 else answered

    log: list[str] = []
    results = play_with(Threads(fault), log)
    assert substance(results) == expected
    assert sorted(result.attempts for result in results.values()) == [1] * 11 + [2]
    assert len(log) == 1 and "lost on its way" in log[0]


def test_a_policy_that_is_always_lost_ends_the_run() -> None:
    with pytest.raises(RunFailed, match=r"^The policy was lost 6 times in a row: no memory left$"):
        play_with(Threads(lambda copy, answered: Gone("no memory left")), [], workers=1)


class Nobody(LocalCrew):
    """Its workers never find a place."""

    shortage = "There is no room."

    def hire(self, setup: WorkerSetup, events: Events) -> WorkerProcess:
        worker = super().hire(setup, events)
        worker.ready = False
        return worker


def test_a_run_that_finds_no_place_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "SHORTAGE_S", 1.0)
    with pytest.raises(RunFailed, match=r"^There is no room\.$"):
        play_with(Nobody(Reacher()), [], workers=1)


def test_the_batches_are_counted() -> None:
    crew = Threads(lambda copy, answered: answered)
    results = play_with(crew, [])
    times = crew.batch_times.as_data()
    asked = [ms for result in results.values() for ms in result.policy_ms]
    assert sum(int(size) * count for size, (count, _) in times["sizes"].items()) == times["waits"][0] == len(asked)
    assert sum(seconds for _, seconds in times["sizes"].values()) <= times["waits"][1] < sum(asked) / 1000
