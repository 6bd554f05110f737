"""The crew on this machine: the policy in this process, and worker processes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, cast

from ..types import Observation, Policy
from .crew import Crew, Events, Replica, ask_policy
from .jobs import Answered, Question, WorkerSetup
from .process import WorkerProcess


class LocalReplica(Replica):
    """The policy itself."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.ready = True
        self._policy = policy

    def _ask(self, questions: Sequence[Question]) -> Answered:
        return ask_policy(self._policy, cast(Sequence[Observation], questions))

    def forget(self, episode: str) -> None:
        """Have the policy drop the memory of ``episode``."""
        self._policy.forget(episode)

    def close(self) -> None:
        """Nothing: the policy is the caller's."""


class LocalCrew(Crew):
    """One policy in this process; each worker is a spawned process."""

    copies = 1
    shortage = "This machine has no room for a worker."

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.spec = policy.spec
        self.cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._policy = policy

    @property
    def provenance(self) -> Mapping[str, Any]:
        """The policy's."""
        return self._policy.provenance

    def hire(self, setup: WorkerSetup, events: Events) -> WorkerProcess:
        """Start a worker process."""
        return WorkerProcess(setup, events)

    def enlist(self, events: Events) -> LocalReplica:
        """Return the policy."""
        return LocalReplica(self._policy)
