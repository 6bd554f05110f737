"""The reduced recipe of the policy from scratch: record with the expert, train for a minute, compare with before."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vla_harness import Observation, load_policy
from vla_harness.data import DatasetWriter, Feature, open_dataset, record
from vla_harness.data.demonstrations import FRAME_IS_NEW
from vla_harness.envs.libero.benchmark import suite_tasks
from vla_harness.envs.libero.environment import INTERFACE
from vla_harness.errors import UserError
from vla_harness.evaluate import Site, Suite, SuiteTask, untrained_tasks
from vla_harness.policies.tformer.policy import SHIPPED, TformerPolicy
from vla_harness.results.marks import untrained_text
from vla_harness.train.__main__ import main as train_command
from vla_harness.train.tformer import TformerOptions, main, train_policy

RECORDING = record.Record(
    suite="goal", tasks=("1",), episodes=4, assets="primitive", image_size=64, frame_every=4, workers=2,
    out=Path("unused"), format="v3.0",
)  # fmt: skip


def recipe(dataset: Path, out: Path) -> TformerOptions:
    return TformerOptions(
        dataset=(dataset,), out=out, image_size=64, width=16, d_model=64, batch_size=32, steps_per_epoch=30, epochs=3,
        learning_rate=2e-3, warmup_steps=10, ema=0.9, hold_out=4, evaluate_examples=16, shift=1, device="cpu", seed=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("recorded") / "demos"
    assert record.record(replace(RECORDING, out=out)) == 0
    return out


@pytest.fixture(scope="module")
def trained(demos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return train_policy(recipe(demos, tmp_path_factory.mktemp("trained") / "run"))


def observation(demos: Path, row: int = 0, step: int = 0) -> tuple[Observation, np.ndarray]:
    """Return the last episode's row, which was held out, as a rollout shows it, and the 16 actions that follow."""
    episode = open_dataset(demos).episode(3)
    new = np.flatnonzero(episode.column(FRAME_IS_NEW))[row]
    images = {name: episode.images(f"observation.images.{name}", [int(new)])[0] for name in ("agentview", "wrist")}
    state = episode.column("observation.state")[new].astype(np.float32)
    seen = Observation(images, state, episode.instruction(0), "a", step)
    return seen, episode.column("action")[new : new + 16]


def test_training_improves_on_the_untrained_policy(demos: Path, trained: Path, tmp_path: Path) -> None:
    curve = json.loads((trained.parent / "curve.json").read_text())
    assert [point["step"] for point in curve] == [30, 60, 90]
    assert curve[-1]["action_l1"] < curve[0]["action_l1"]
    untrained = train_policy(replace(recipe(demos, tmp_path / "untrained"), steps_per_epoch=1, epochs=1, ema=0.0))
    errors = []
    for checkpoint in (untrained, trained):
        policy = TformerPolicy(str(checkpoint), device="cpu", execute=16)
        pairs = [observation(demos, row) for row in range(6)]
        errors.append(np.mean([np.abs(policy.act([seen])[0] - wanted).mean() for seen, wanted in pairs]))
    assert errors[1] < 0.6 * errors[0]


def test_it_says_how_many_episodes_validate_and_refuses_a_push_that_cannot_be(
    demos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = replace(recipe(demos, tmp_path / "run"), steps_per_epoch=1, epochs=1)
    train_policy(short)
    assert "validation 1 of 4 episodes held out" in capsys.readouterr().out
    train_policy(replace(short, hold_out=20, resume=None, out=tmp_path / "other"))
    told = "validation none: --hold-out 20 keeps every 20th episode and there are 4; give --hold-out 4 to hold some out"
    assert told in capsys.readouterr().out
    with pytest.raises(UserError, match=r"^The hub did not take a b/c/d "):
        train_policy(replace(short, push="a b/c/d", out=tmp_path / "third"))
    assert not (tmp_path / "third").exists()


def test_curves_of_trainings_become_one_picture(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, picture = trained.parent, tmp_path / "curves.png"
    assert train_command(["curves", str(run), str(run / "curve.json"), "--out", str(picture)]) == 0
    assert "train_loss, action_l1, subject_cm, goal_cm of run" in capsys.readouterr().out
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert train_command(["curves", str(tmp_path), "--out", str(picture)]) == 2
    assert "name the folder of a training that has ended an epoch" in capsys.readouterr().err
    assert train_command(["curves", str(run), "--out", str(tmp_path / "curves.mp3")]) == 2


def test_acts_the_same_in_any_batch_and_by_the_noise_of_its_step(demos: Path, trained: Path) -> None:
    policy = TformerPolicy(str(trained), device="cpu")
    first, second = observation(demos, 0)[0], replace(observation(demos, 3)[0], episode="b")
    both = policy.act([first, second])
    assert both.shape == (2, 8, 7)  # it looks again after half a chunk
    assert both.dtype == np.float32
    np.testing.assert_array_equal(both, np.concatenate([policy.act([first]), policy.act([second])]))
    assert (policy.act([replace(first, step=8)]) != both[:1]).any()
    assert (TformerPolicy(str(trained), device="cpu", seed=1).act([first]) != both[:1]).any()
    assert policy.spec.image_size == (64, 64)
    assert len(policy.provenance["checkpoint_sha256"]) == 64


def test_acts_the_same_on_any_number_of_cores(demos: Path) -> None:
    policy, seen = TformerPolicy(device="cpu"), observation(demos)[0]
    images = {name: np.resize(image, (128, 128, 3)) for name, image in seen.images.items()}
    acted = []
    for threads in (2, 1):
        torch.set_num_threads(threads)
        acted.append(policy.act([replace(seen, images=images)]))
        assert torch.get_num_threads() == threads
    np.testing.assert_array_equal(acted[0], acted[1])


def test_the_ensemble_is_the_weighted_mean_of_the_chunks_for_this_moment(demos: Path, trained: Path) -> None:
    single = TformerPolicy(str(trained), device="cpu")
    policy = TformerPolicy(str(trained), device="cpu", ensemble=0.5)
    assert policy.spec.horizon == 1
    seen = observation(demos)[0]
    steps = [replace(seen, step=step) for step in range(3)]
    chunks = [single.act([s])[0] for s in steps]
    acted = [policy.act([s])[0, 0] for s in steps]
    np.testing.assert_allclose(acted[0], chunks[0][0], atol=1e-6)
    weights = np.exp([-1.0, -0.5, 0.0])
    wanted = (weights[:, None] * np.stack([chunks[0][2], chunks[1][1], chunks[2][0]])).sum(0) / weights.sum()
    np.testing.assert_allclose(acted[2], wanted, atol=1e-6)
    for _ in range(2):  # another episode of the same name, then a question that is asked again
        np.testing.assert_array_equal(policy.act([steps[0]])[0, 0], acted[0])
    policy.forget("a")
    np.testing.assert_allclose(policy.act([steps[2]])[0, 0], chunks[2][0], atol=1e-6)


@pytest.mark.parametrize("head", ["diffusion", "regression"])
def test_the_other_heads_and_no_language_train_and_act(demos: Path, tmp_path: Path, head: str) -> None:
    options = replace(recipe(demos, tmp_path / head), head=head, language=False, horizon=8, epochs=1, steps_per_epoch=4)  # type: ignore[arg-type]
    policy = TformerPolicy(str(train_policy(options)), device="cpu")
    seen = observation(demos)[0]
    told = policy.act([seen])
    assert told.shape == (1, 4, 7)
    np.testing.assert_array_equal(policy.act([replace(seen, instruction="something else")]), told)


def test_resumes_bit_for_bit(demos: Path, tmp_path: Path) -> None:
    short = replace(recipe(demos, tmp_path / "whole"), steps_per_epoch=3, epochs=2)
    whole = train_policy(short)
    first = short.out / "checkpoints" / "step_00000003.pt"
    resumed = train_policy(replace(short, out=tmp_path / "part", resume=str(first)))
    assert (resumed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_starts_from_a_checkpoint_and_keeps_its_scales_and_words(trained: Path, demos: Path, tmp_path: Path) -> None:
    options = replace(recipe(demos, tmp_path / "tuned"), start=str(trained), epochs=1, steps_per_epoch=1, ema=0.0)
    tuned = TformerPolicy(str(train_policy(replace(options, learning_rate=1e-9))), device="cpu")
    first = TformerPolicy(str(trained), device="cpu")
    assert tuned.card.action == first.card.action
    assert tuned.card.words == first.card.words
    seen = observation(demos)[0]
    np.testing.assert_allclose(tuned.act([seen]), first.act([seen]), atol=1e-3)
    other = train_policy(replace(options, out=tmp_path / "other", head="regression", horizon=8))
    assert TformerPolicy(str(other), device="cpu").card.network.head.kind == "regression"


def test_reads_datasets_that_others_recorded(tmp_path: Path) -> None:
    """No frame flags, no aims, other sizes: as LIBERO's demonstrations on the hub are."""
    features = {f"observation.images.{name}": Feature("image", (48, 48, 3)) for name in ("agentview", "wrist")}
    features |= {"observation.state": Feature("float32", (8,)), "action": Feature("float32", (7,))}
    draw = np.random.default_rng(0)
    with DatasetWriter(tmp_path / "toy", 20, features, "panda") as writer:
        for words in ("left", "right"):
            with writer.episode(words) as episode:
                for _ in range(12):
                    frame = {name: draw.integers(0, 255, (48, 48, 3), np.uint8) for name in list(features)[:2]}
                    numbers = {"observation.state": draw.normal(size=8), "action": draw.uniform(-1, 1, 7)}
                    episode.add(frame | numbers)
    options = replace(
        recipe(tmp_path / "toy", tmp_path / "run"), image_size=32, epochs=1, steps_per_epoch=2, hold_out=2
    )
    policy = TformerPolicy(str(train_policy(options)), device="cpu")
    assert policy.card.network.aim_dim == 0
    assert policy.spec.image_size == (32, 32)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"batch_size": 0}, "--batch-size is 0: give at least 1"),
        ({"image_size": 50}, "--image-size is 50: give a multiple of 32"),
        ({"width": 12}, "--width is 12: give a multiple of 8"),
        ({"d_model": 130}, "--d-model is 130: give a multiple of 4, at least 4"),
        ({"cameras": ("front",)}, "has no camera 'front'"),
    ],
)
def test_refuses_what_cannot_be_trained(demos: Path, tmp_path: Path, change: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=told):
        train_policy(replace(recipe(demos, tmp_path / "run"), **change))  # type: ignore[arg-type]


def test_the_command_says_what_is_wrong_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--dataset", str(tmp_path / "none"), "--out", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    (tmp_path / "run" / "export").mkdir(parents=True)
    assert main(["--dataset", str(tmp_path / "none"), "--out", str(tmp_path / "run")]) == 2
    assert "export exists already: add --resume latest, or choose another --out." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda folder: (folder / "model.safetensors").write_bytes(b"no"), "no complete safetensors file"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no file model.safetensors"),
        (lambda folder: (folder / "config.json").write_text("{}"), "is no checkpoint of the policy 'tformer'"),
    ],
)
def test_refuses_damaged_checkpoints(trained: Path, tmp_path: Path, spoil: Callable[[Path], object], told: str) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in ("model.safetensors", "config.json"):
        (folder / name).write_bytes((trained / name).read_bytes())
    spoil(folder)
    with pytest.raises(UserError, match=told):
        TformerPolicy(str(folder), device="cpu")


def test_refuses_options_that_do_not_go_together(trained: Path) -> None:
    with pytest.raises(UserError, match="execute is 17"):
        TformerPolicy(str(trained), device="cpu", execute=17)
    with pytest.raises(UserError, match="without execute"):
        TformerPolicy(str(trained), device="cpu", execute=2, ensemble=0.1)


def test_the_shipped_policy_says_what_it_learned_and_older_checkpoints_that_they_do_not(tmp_path: Path) -> None:
    policy = load_policy("tformer")

    def untrained(suite: str) -> list[int]:
        tasks = [SuiteTask(t.task_id, t.name, t.instruction, 1, INTERFACE) for t in suite_tasks(suite)]
        return untrained_tasks(policy.spec, Suite("libero", suite, "", tasks, unused), tasks)

    def unused() -> Site:
        raise AssertionError

    assert untrained("spatial") == untrained("object") == [] and untrained("goal") == list(range(10))
    shutil.copytree(SHIPPED, tmp_path / "old")
    content = json.loads((SHIPPED / "config.json").read_text())
    del content["training"]["instructions"]
    (tmp_path / "old/config.json").write_text(json.dumps(content))
    spec = load_policy("tformer", checkpoint=str(tmp_path / "old")).spec
    assert spec.trained_on is None
    told = untrained_text({"tasks": [0]}, {"policy_spec": {"trained_on": spec.trained_on}})
    assert told == "The checkpoint does not say which tasks the policy was trained on."
