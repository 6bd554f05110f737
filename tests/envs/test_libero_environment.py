"""LIBERO as gymnasium environments: the checker, what an episode depends on, and what a user can get wrong."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from vla_harness.envs.libero.benchmark import LiberoTask, initial_states, suite_tasks
from vla_harness.envs.libero.environment import LiberoEnv
from vla_harness.errors import UserError


def make(suite: str, **options: Any) -> LiberoEnv:
    environment = gymnasium.make(f"vla_harness.envs:libero/{suite}-v0", **options).unwrapped
    assert isinstance(environment, LiberoEnv)
    return environment


@pytest.fixture(scope="module")
def environment() -> LiberoEnv:
    return make("spatial", task=2, observations="on_request")


@pytest.mark.filterwarnings("ignore:.*A Box observation space (min|max)imum value:UserWarning")
@pytest.mark.parametrize("suite", ["spatial", "object", "goal", "10", "90"])
def test_every_suite_passes_gymnasiums_checker(suite: str) -> None:
    environment = make(suite, render_mode="rgb_array", cameras=("wrist",), image_size=(48, 64))
    check_env(environment)
    environment.close()


def test_the_suites_are_the_benchmarks() -> None:
    sizes = {suite: len(suite_tasks(suite)) for suite in ("spatial", "object", "goal", "10", "90")}
    assert sizes == {"spatial": 10, "object": 10, "goal": 10, "10": 10, "90": 90}
    assert (
        suite_tasks("spatial")[9].instruction
        == "pick up the black bowl on the wooden cabinet and place it on the plate"
    )
    scene = suite_tasks("10")[0]
    assert scene.name.startswith("LIVING_ROOM_SCENE2_")
    assert scene.instruction == "put both the alphabet soup and the tomato sauce in the basket"


def test_tasks_and_states_are_those_of_the_benchmarks_own_classes(environment: LiberoEnv) -> None:
    import torch  # the benchmark's module loads its states with it
    from libero.libero.benchmark import task_maps

    for suite in ("spatial", "object", "goal", "10", "90"):
        ours = [(task.name, task.instruction) for task in suite_tasks(suite)]
        assert ours == [(task.name, task.language) for task in task_maps[f"libero_{suite}"].values()]
    task = suite_tasks("goal")[3]
    np.testing.assert_array_equal(initial_states(task), torch.load(task.initial_states_file, weights_only=False))


def test_an_episode_depends_on_state_and_seed_alone(environment: LiberoEnv) -> None:
    def play(index: int, seed: int) -> np.ndarray:
        environment.reset(seed=seed, options={"initial_state": index})
        for _ in range(3):
            environment.step(np.array([0.3, -0.2, -1.0, 0.1, 0.0, 0.2, 1.0], np.float32))
        return environment.simulator_state()

    first = play(4, 0)
    other_seed = play(4, 1)
    play(5, 0)
    np.random.seed(123)  # the caller's global generator is neither used nor disturbed
    expected = np.random.RandomState(123).uniform()
    np.testing.assert_array_equal(play(4, 0), first)
    assert np.random.uniform() == expected
    fixtures = environment.model.body("wooden_cabinet_1_main").pos.copy()
    play(4, 1)
    assert np.any(environment.model.body("wooden_cabinet_1_main").pos != fixtures)
    np.testing.assert_array_equal(play(4, 1), other_seed)


def test_frames_are_made_on_request(environment: LiberoEnv) -> None:
    observation, _ = environment.reset(seed=0, options={"initial_state": 0})
    assert set(observation) == set(environment.interface.state)
    frame = environment.render_camera("agentview", 48, 80)
    assert frame.shape == (48, 80, 3) and frame.dtype == np.uint8
    state = environment.simulator_state()
    environment.render_camera("wrist", 700, 900)  # larger than mujoco's default buffer
    np.testing.assert_array_equal(environment.simulator_state(), state)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"task": 10}, "has tasks 0 to 9, not 10"),
        ({"cameras": ("front",)}, "no camera 'front'"),
        ({"assets": "/nowhere"}, "There is no asset folder /nowhere"),
    ],
)
def test_what_a_user_can_get_wrong(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make("spatial", **options)


def test_an_initial_state_the_task_does_not_have(environment: LiberoEnv) -> None:
    with pytest.raises(UserError, match="initial states 0 to 49, not 50"):
        environment.reset(options={"initial_state": 50})


def test_initial_states_are_read_without_running_code(tmp_path: Path) -> None:
    class Danger:
        def __reduce__(self) -> tuple[Any, ...]:
            return print, ("ran",)

    path = tmp_path / "x.pruned_init"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Danger(), protocol=2))
    with pytest.raises(UserError, match="not part of an array"):
        initial_states(LiberoTask(0, "x", "x", path, path))
