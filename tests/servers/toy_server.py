"""The command of the server with toy policies in the registry.

"looking"; "slow", which takes half a second; "stuck", which answers once; "broken", which always fails.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import numpy as np

from tests.servers.toys import LookingPolicy
from vla_harness.registry import POLICIES
from vla_harness.servers import action_server
from vla_harness.types import Observation


class SlowPolicy(LookingPolicy):
    """Slow enough to be stopped while it computes."""

    def __init__(self) -> None:
        super().__init__(seconds=0.5)


class StuckPolicy(LookingPolicy):
    """Answers once."""

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        if self.seen:
            time.sleep(600)
        return super().act(observations)


class BrokenPolicy(LookingPolicy):
    """Answers never."""

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        raise RuntimeError("no weights")


POLICIES["looking"] = "tests.servers.toys:LookingPolicy"
POLICIES["slow"] = "tests.servers.toy_server:SlowPolicy"
POLICIES["stuck"] = "tests.servers.toy_server:StuckPolicy"
POLICIES["broken"] = "tests.servers.toy_server:BrokenPolicy"

if __name__ == "__main__":
    action_server.FAILURE_SHOWN_S = 0.2
    sys.exit(action_server.main())
