"""The real commands: train, resume, sample, quality; and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tformer.train.diffusion as training
from tformer.diffusion import quality
from tformer.diffusion.images import load_image_model
from tformer.diffusion.pictures import grid, save_animation
from tformer.diffusion.process import SamplerConfig
from tformer.sample import main as sample
from tformer.training import list_checkpoints, read_checkpoint

SMALL = ("--width", "8", "--batch-size", "16", "--data", "digits", "--process.steps", "20", "--warmup-steps", "2")


@pytest.fixture(autouse=True)
def short_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "STEPS_PER_EPOCH", 6)


def train(out: Path, *more: str) -> int:
    return training.main([*SMALL, "--out", str(out), *more])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "digits"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "STEPS_PER_EPOCH", 6)
        assert train(out, "--epochs", "2") == 0
    return out


def test_training_learns_and_leaves_what_it_promises(trained: Path) -> None:
    curve = json.loads((trained / "curve.json").read_text())
    assert [point["step"] for point in curve] == [6, 12]
    assert curve[1]["loss"] < curve[0]["loss"] < 1.2
    assert Image.open(trained / "samples" / "epoch_0002.png").size == (4 * (8 * 9 + 1), 4 * (10 * 9 + 1))
    assert list((trained / "tensorboard").iterdir())


def test_a_resumed_training_goes_on_bit_for_bit(trained: Path, tmp_path: Path) -> None:
    for point in list_checkpoints(trained)[:1]:  # as if it had been stopped after the first epoch
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints" / point.name).write_bytes(point.read_bytes())
    assert train(tmp_path, "--epochs", "2", "--resume", "latest") == 0
    whole, resumed = (read_checkpoint(list_checkpoints(out)[-1]) for out in (trained, tmp_path))
    for name, weight in whole["model"].items():
        assert torch.equal(weight, resumed["model"][name]), name


def test_two_processes_see_what_one_does() -> None:
    """Each image's time and noise belong to its position, so that the halves of a batch make up the whole."""
    options = training.DiffusionOptions(data="digits", width=8, batch_size=8)
    task = training.DiffusionTask(options, training.load_images("digits"))
    indices = list(task.batches(3)[2])
    whole, halves = task.collate(indices), [task.collate(indices[rank::2]) for rank in (0, 1)]
    for rank, half in enumerate(halves):
        assert torch.equal(whole.noisy[rank::2], half.noisy) and torch.equal(whole.context[rank::2], half.context)
    total = sum(float(task.loss(task.model, half)[0].detach()) for half in halves)
    assert total == pytest.approx(float(task.loss(task.model, whole)[0].detach()), rel=1e-5)


def test_every_image_is_seen_once_in_each_pass() -> None:
    count = 50
    first, second = training.shuffled(count, 0, 0), training.shuffled(count, 0, 1)
    assert sorted(first) == sorted(second) == list(range(count)) and first != second


@pytest.mark.parametrize("extra", [("--model", "dit", "--width", "32"), ("--process.kind", "flow")])
def test_other_models_train_and_sample(tmp_path: Path, extra: tuple[str, ...]) -> None:
    assert train(tmp_path, "--epochs", "1", *extra) == 0
    assert (
        sample(["--checkpoint", str(tmp_path), "--count", "1", "--steps", "2", "--out", str(tmp_path / "x.png")]) == 0
    )
    assert (tmp_path / "x.png").is_file()


def test_sample_draws_rows_of_contexts_and_an_animation(trained: Path, tmp_path: Path) -> None:
    out, animation = tmp_path / "new" / "a.png", tmp_path / "a.gif"
    arguments = ["--checkpoint", str(trained), "--context", "3=1,8=0.6", "7", "", "--count", "4", "--steps", "10"]
    arguments += ["--guidance", "2", "--out", str(out)]
    assert sample([*arguments, "--animation", str(animation)]) == 0
    assert Image.open(out).size == (4 * (4 * 9 + 1), 4 * (3 * 9 + 1))
    assert Image.open(animation).n_frames == 10  # type: ignore[attr-defined]
    first = np.asarray(Image.open(out))
    assert sample(arguments) == 0 and np.array_equal(np.asarray(Image.open(out)), first)
    assert sample([*arguments, "--seed", "1"]) == 0 and not np.array_equal(np.asarray(Image.open(out)), first)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--context", "hero=1"), "knows no context 'hero'; it knows 0, 1, 2"),
        (("--steps", "21"), "21 sampling steps; the model was trained on 1 to 20"),
        (("--sampler", "euler"), "euler samples flow matching"),
        (("--wrong",), "give it together with --sampler ddpm"),
        (("--count", "0"), "--count is 0: give at least 1"),
        (("--checkpoint", "/nowhere/x.pt"), "no checkpoint /nowhere/x.pt"),
        (("--out", "/dev/null/x.png"), "cannot be written"),
    ],
)
def test_sample_refuses_in_one_sentence(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], complaint: str
) -> None:
    given = ["--checkpoint", str(trained), "--count", "1", "--steps", "2", "--out", str(tmp_path / "x.png")]
    assert sample([*given, *arguments]) == 2
    error = capsys.readouterr().err
    assert complaint in error and error.count("\n") == 1
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--width", "12"), "--width 12 is no multiple of 8; 16 would be"),
        (("--process.steps", "0"), "--process.steps is 0: give at least 1"),
        (("--data", "npy"), "say where with --path"),
        (("--resume", "latest", "--width", "16"), "another configuration"),
        ((), "already holds a training"),
    ],
)
def test_training_refuses_in_one_sentence_and_overwrites_nothing(
    trained: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], complaint: str
) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    assert train(trained, *arguments) == 2
    error = capsys.readouterr().err
    assert complaint in error and error.count("\n") == 1
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


def test_quality_measures_and_says_how(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "CLASSIFIER_STEPS", 100)
    arguments = ["--checkpoint", str(trained), "--count", "2", "--few", "2", "--out", str(tmp_path)]
    assert quality.main(arguments) == 0
    content = json.loads((tmp_path / "quality.json").read_text())
    assert content["held_out_accuracy"] > 0.85, "the judge knows the real digits"
    assert [row["pictures"] for row in content["results"]] == [20, 20, 20]
    assert all(0 <= row["accuracy"] <= 1 and row["nearness"] > 0 for row in content["results"])
    text = (tmp_path / "quality.md").read_text()
    assert "--few 2" in text and content["date"] in text and "| DDIM | 2 |" in text


def test_the_wrong_sampler_is_another_and_draws_no_noise(trained: Path) -> None:
    model = load_image_model(trained)
    contexts = torch.eye(10)
    wrong = SamplerConfig("ddpm", add_noise=False)
    images = model.sample(contexts, wrong, torch.Generator().manual_seed(0))
    right = model.sample(contexts, SamplerConfig("ddpm"), torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    model.sample(contexts, wrong, generator)
    started = torch.Generator().manual_seed(0)
    torch.randn(10, 1, 8, 8, generator=started)
    assert torch.equal(generator.get_state(), started.get_state()), "nothing after the first noise"
    assert not torch.equal(images, right)


def test_pictures(tmp_path: Path) -> None:
    images = torch.linspace(-1, 1, 3)[:, None, None, None].expand(3, 1, 2, 2)
    picture = grid(images, columns=2, scale=1, gap=1)
    assert picture.shape == (7, 7, 3)
    assert picture[1, 1].tolist() == [0] * 3 and picture[1, 4].tolist() == [128] * 3
    assert picture[4, 1].tolist() == [255] * 3 and picture[4, 4].tolist() == [128] * 3, "an empty place"
    save_animation([picture, 255 - picture], tmp_path / "a.gif")
    assert Image.open(tmp_path / "a.gif").n_frames == 2  # type: ignore[attr-defined]


def test_a_loss_that_is_no_number_stops_the_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path, "--epochs", "1", "--learning-rate", "1e30") == 1
    assert "the loss is nan" in capsys.readouterr().err
    assert not list_checkpoints(tmp_path)
