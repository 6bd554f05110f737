"""An evaluation command on the toy environment: everything of the real ones but the simulator.

$TOY holds the environments' options as JSON. "broken" in it makes the policy fail from its hundredth call on.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

import numpy as np

from tests.toy_environment import ToyEnvironment
from vla_harness.command import parse_options, run_command
from vla_harness.evaluate import RunOptions, Site, Suite, SuiteTask, evaluate
from vla_harness.policies.basic import RandomPolicy
from vla_harness.registry import POLICIES
from vla_harness.types import Observation

OPTIONS = json.loads(os.environ.get("TOY", "{}"))


class BrokenPolicy(RandomPolicy):
    """Random until its server is gone."""

    _calls = 0

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        self._calls += 1
        if self._calls > 500:
            raise ConnectionError("the server is gone")
        return super().act(observations)


def main() -> int:
    """Run the command. The suite is called "spatial", because protocols state the steps of LIBERO's suites."""
    POLICIES["broken"] = "tests.eval.toy_command:BrokenPolicy"
    offered, states = ToyEnvironment(0).interface, ToyEnvironment.initial_states
    tasks = [SuiteTask(task, f"toy_{task}", f"reach target {task}", states, offered) for task in (0, 1)]
    suite = Suite(
        "toy",
        "spatial",
        "tests.toy_environment:toy/reach-v0",
        tasks,
        lambda: Site({"kind": "none"}, "nothing", OPTIONS),
    )
    return run_command(lambda: evaluate(parse_options(RunOptions, None, "toy"), suite))


if __name__ == "__main__":
    sys.exit(main())
