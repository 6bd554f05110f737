"""What demonstrations need of environment and expert: placements of their own, and recovery from disturbances."""

from __future__ import annotations

from collections.abc import Iterator

import gymnasium
import numpy as np
import pytest

from vla_harness import Observation, load_policy
from vla_harness.envs.experts.noise import RecoveryNoise
from vla_harness.envs.experts.policy import ScriptedPolicy
from vla_harness.envs.libero.benchmark import initial_states, suite_tasks
from vla_harness.envs.libero.environment import LiberoEnv
from vla_harness.errors import UserError
from vla_harness.protocols import SETTLE_ACTION

SUITE, TASK = "spatial", 2
BOWL = "akita_black_bowl_1"


@pytest.fixture(scope="module")
def task() -> Iterator[LiberoEnv]:
    environment = gymnasium.make(f"vla_harness.envs:libero/{SUITE}-v0", task=TASK, observations="on_request")
    assert isinstance(environment.unwrapped, LiberoEnv)
    yield environment.unwrapped
    environment.close()


def objects_at(task: LiberoEnv) -> np.ndarray:
    """Return (n, 2): where the movable objects are, from above."""
    return np.array([obj["position"][:2] for obj in task.scene()["objects"].values() if not obj["fixture"]])


def test_fresh_placements_are_never_the_benchmarks(task: LiberoEnv) -> None:
    """Each of 15 placements has an object 1 mm or more away from where it is in each stored state."""
    stored = []
    for state in range(task.initial_states):
        task.reset(seed=0, options={"initial_state": state})
        stored.append(objects_at(task))
    fresh = []
    for seed in range(15):
        task.reset(options={"placement_seed": seed})
        fresh.append(objects_at(task))
    apart = np.abs(np.array(fresh)[:, None] - np.array(stored)).max(axis=(2, 3))
    assert apart.shape == (15, 50)
    assert apart.min() > 0.001
    among = np.abs(np.array(fresh)[:, None] - np.array(fresh)).max(axis=(2, 3))
    assert among[~np.eye(15, dtype=bool)].min() > 1e-6
    # The same regions: no object is farther out than in the stored states, but for a little.
    assert (np.array(fresh).min(axis=0) > np.array(stored).min(axis=0) - 0.02).all()
    assert (np.array(fresh).max(axis=0) < np.array(stored).max(axis=0) + 0.02).all()


def test_a_placement_that_is_stored_is_drawn_again(task: LiberoEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    task.reset(options={"placement_seed": 3})
    first = task.simulator_state()
    task.reset(options={"placement_seed": 4})
    task.reset(options={"placement_seed": 3})
    np.testing.assert_array_equal(task.simulator_state(), first)

    stored = initial_states(suite_tasks(SUITE)[TASK])
    monkeypatch.setattr(task, "_initial_states", np.concatenate([stored, first[None]]))
    task.reset(options={"placement_seed": 3})
    assert np.abs(task.simulator_state() - first).max() > 0.001


def test_refuses_two_ways_to_start(task: LiberoEnv) -> None:
    with pytest.raises(UserError, match="initial state or from a placement seed"):
        task.reset(options={"placement_seed": 3, "initial_state": 0})


def test_recovers_from_noise_on_a_fresh_placement(task: LiberoEnv) -> None:
    policy = load_policy("scripted", noise=0.5, seed=1)
    assert isinstance(policy, ScriptedPolicy)
    task.reset(options={"placement_seed": 0})
    for _ in range(10):
        task.step(np.array(SETTLE_ACTION, np.float32))
    disturbed = 0
    for step in range(220):
        seen = Observation({}, np.zeros(0, np.float32), "", "demo", step, task.scene())
        executed = policy.act([seen])[0, 0]
        wanted = policy.wanted("demo")
        assert np.abs(executed).max() <= 1.0
        assert np.abs(executed - wanted).max() <= 0.5 + 1e-6
        assert executed[-1] == wanted[-1]
        disturbed += bool((executed != wanted).any())
        if task.step(executed)[4]["success"]:
            break
    else:
        pytest.fail("The expert did not recover.")
    assert 0.1 < disturbed / (step + 1) < 0.6


def test_noise_is_a_function_of_seed_episode_and_step() -> None:
    wanted = np.array([0.9, -0.2, 0.1, 0, 0, 0, 1], np.float32)
    noise = RecoveryNoise(0.4, share=1.0, length=3, seed=5)
    executed = [noise.disturb(wanted, "a", step) for step in range(6)]
    np.testing.assert_array_equal(executed[0], executed[2])
    assert (executed[2] != executed[3]).any()
    assert (executed[0] != noise.disturb(wanted, "b", 0)).any()
    assert (executed[0] != RecoveryNoise(0.4, share=1.0, length=3, seed=6).disturb(wanted, "a", 0)).any()
    np.testing.assert_array_equal(executed[0], RecoveryNoise(0.4, share=1.0, length=3, seed=5).disturb(wanted, "a", 1))
    np.testing.assert_array_equal(RecoveryNoise(0.0).disturb(wanted, "a", 0), wanted)
    with pytest.raises(UserError, match="scale and share are 0 to 1"):
        RecoveryNoise(1.5)
