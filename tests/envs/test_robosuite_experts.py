"""The scripted experts on robosuite's tasks, from states that they are not tuned on one by one."""

from __future__ import annotations

import numpy as np
import pytest

from tests.envs.test_robosuite import make
from vla_harness.envs.experts.policy import ScriptedPolicy
from vla_harness.envs.robosuite.benchmark import SUITES
from vla_harness.envs.robosuite.environment import RobosuiteEnv
from vla_harness.protocols import protocol_card
from vla_harness.types import Observation

EXPERTS = {task.name: task.task_id for task in SUITES["single-arm"] if task.expert and task.name != "Lift"}
"""Lift is solved by the test of the command."""


def solve(environment: RobosuiteEnv, initial_state: int, policy: ScriptedPolicy) -> bool:
    """Play one episode and return whether robosuite says that it succeeded."""
    environment.reset(options={"initial_state": initial_state})
    for step in range(protocol_card("robosuite").max_steps["single-arm"]):
        seen = Observation({}, np.zeros(0, np.float32), "", str(initial_state), step, scene=environment.scene())
        *_, info = environment.step(policy.act([seen])[0, 0])
        if info["success"]:
            return True
    return False


@pytest.mark.parametrize("name", EXPERTS)
def test_an_expert_solves_its_task(name: str) -> None:
    assert solve(make("single-arm", task=EXPERTS[name]), 49, ScriptedPolicy())


def test_a_disturbed_expert_finds_back_to_the_handle() -> None:
    assert solve(make("single-arm", task=EXPERTS["Door"]), 48, ScriptedPolicy(noise=0.5, seed=2))
