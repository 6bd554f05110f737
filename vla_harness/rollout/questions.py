"""The questions that wait for an answer, and which copy of the policy answers them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from .crew import Replica, WorkerLink
from .jobs import Question


class Questions:
    """Questions in the order of asking; a worker has at most one.

    An episode stays with the copy of the policy that it asked first, because that one holds its memory. Where that
    copy is lost, the episode is an orphan: its next question cannot be answered, and it has to start again.
    """

    def __init__(self, max_batch: int) -> None:
        self._max_batch = max_batch
        self._waiting: dict[WorkerLink, Question] = {}
        self._homes: dict[str, Replica] = {}
        self._given: Counter[Replica] = Counter()
        self._orphans: set[str] = set()
        self._alone: set[str] = set()

    def add(self, worker: WorkerLink, question: Question) -> None:
        """Take the question of ``worker``."""
        self._waiting[worker] = question

    def settle(self, worker: WorkerLink, question: Question) -> bool:
        """Remove an answered question; return whether ``worker`` still waits for that answer."""
        if self._waiting.get(worker) is not question:
            return False
        del self._waiting[worker]
        return True

    def drop(self, worker: WorkerLink, episode: str) -> None:
        """Remove what there is of an episode that ended or broke off; the policy forgets it."""
        self._waiting.pop(worker, None)
        self._orphans.discard(episode)
        if home := self._homes.pop(episode, None):
            home.forget(episode)

    def ask_alone(self, episode: str) -> None:
        """Never put a question of ``episode`` into a batch with others again."""
        self._alone.add(episode)

    def lose(self, replica: Replica) -> None:
        """Make orphans of the episodes of a copy that is gone."""
        lost = {episode for episode, home in self._homes.items() if home is replica}
        self._orphans |= lost
        for episode in lost:
            del self._homes[episode]

    def orphans(self) -> list[WorkerLink]:
        """Return the workers that wait for an answer nobody can give."""
        return [worker for worker, question in self._waiting.items() if question.episode in self._orphans]

    def assign(self, replicas: Sequence[Replica]) -> None:
        """Give each new episode to the copy that has the fewest, in turn; nothing happens while no copy is ready."""
        ready = [replica for replica in replicas if replica.ready]
        if not ready:
            return
        crowd = Counter(self._homes.values())
        for question in self._waiting.values():
            if question.episode not in self._homes:
                home = min(ready, key=lambda replica: (crowd[replica], self._given[replica]))
                self._homes[question.episode] = home
                crowd[home] += 1
                self._given[home] += 1

    def batch(self, replica: Replica) -> list[tuple[WorkerLink, Question]]:
        """Return the next batch for a free copy, oldest questions first; they go on waiting until ``settle``."""
        batch: list[tuple[WorkerLink, Question]] = []
        for worker, question in self._waiting.items():
            if self._homes.get(question.episode) is not replica:
                continue
            if question.episode in self._alone:
                if not batch:
                    return [(worker, question)]
            elif len(batch) < self._max_batch:
                batch.append((worker, question))
        return batch

    def answerable(self, replicas: Sequence[Replica]) -> bool:
        """Return whether a copy could begin a batch now."""
        free = {id(replica) for replica in replicas if replica.free}
        return bool(free) and any(
            question.episode not in self._homes or id(self._homes[question.episode]) in free
            for question in self._waiting.values()
        )
