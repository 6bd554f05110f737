"""The command of the server with toy policies in the registry: "looking", and "slow", which takes half a second."""

from __future__ import annotations

import sys

from tests.servers.toys import LookingPolicy
from vla_harness.registry import POLICIES
from vla_harness.servers.action_server import main


class SlowPolicy(LookingPolicy):
    """Slow enough to be stopped while it computes."""

    def __init__(self) -> None:
        super().__init__(seconds=0.5)


POLICIES["looking"] = "tests.servers.toys:LookingPolicy"
POLICIES["slow"] = "tests.servers.toy_server:SlowPolicy"

if __name__ == "__main__":
    sys.exit(main())
