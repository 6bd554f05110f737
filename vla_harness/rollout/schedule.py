"""Which episode a free worker plays next."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable

from .jobs import EpisodeJob

Task = tuple[str, int]


class Schedule:
    """The episodes that nobody plays yet. A worker stays with its task while that has episodes left in the round.

    round_states: initial states of a round. All tasks' episodes from the states of one round are taken before any of
    the next; None makes one round of all.
    """

    def __init__(self, jobs: Iterable[EpisodeJob], round_states: int | None = None) -> None:
        self._round_states = round_states
        self._waiting: dict[Task, deque[EpisodeJob]] = {}
        for job in jobs:
            self._waiting.setdefault(job.task, deque()).append(job)

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def take(self, present: Task | None, occupied: Iterable[Task]) -> EpisodeJob | None:
        """Return the next job for a worker that keeps the environment of ``present``; None when none is left.

        A worker that must change goes where most episodes are left for each worker that is there already;
        ``occupied`` is the tasks of the others, one entry for each.
        """
        rounds = {task: self._round(jobs[0]) for task, jobs in self._waiting.items() if jobs}
        if not rounds:
            return None
        now = min(rounds.values())
        if present is not None and rounds.get(present) == now:
            return self._waiting[present].popleft()
        crowd = Counter(occupied)
        left = {
            task: sum(self._round(job) == now for job in self._waiting[task]) / (1 + crowd[task])
            for task in rounds
            if rounds[task] == now
        }
        return self._waiting[max(left, key=left.__getitem__)].popleft()

    def put_back(self, job: EpisodeJob) -> None:
        """Play ``job`` again, before the others of its task."""
        self._waiting[job.task].appendleft(job)

    def drop(self, task: Task) -> list[EpisodeJob]:
        """Return the episodes of ``task`` that were left, and forget them."""
        jobs = list(self._waiting[task])
        self._waiting[task].clear()
        return jobs

    def _round(self, job: EpisodeJob) -> int:
        return 0 if self._round_states is None else job.key.initial_state // self._round_states
