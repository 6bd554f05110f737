"""The trainer: resuming bit for bit, several processes, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.tformer.toy_task import ToyTask
from tformer.errors import TrainingFailed, UserError
from tformer.training import TrainOptions, average_weights, list_checkpoints, read_checkpoint, train
from tformer.training.schedule import learning_rate


def options(out: Path, **changes: object) -> TrainOptions:
    base = TrainOptions(out=out, epochs=3, warmup_steps=2, log_every=1, device="cpu")
    return replace(base, **changes)  # type: ignore[arg-type]


def test_it_learns_and_writes_what_it_promises(tmp_path: Path) -> None:
    state = train(ToyTask(), options(tmp_path, epochs=12, learning_rate=0.03, keep=2))
    losses = [point["train_loss"] for point in state.curve]
    assert losses[-1] < losses[0] / 2
    assert json.loads((tmp_path / "curve.json").read_text()) == state.curve
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step_00000066.pt", "step_00000072.pt"]
    assert list((tmp_path / "tensorboard").glob("events*"))


@pytest.mark.parametrize("log_every", [1, 4, 100])
@pytest.mark.parametrize(
    ("stop", "stop_at", "saved"),
    [
        ("crash", 9, 6),  # falls back to the last epoch, while a signal loses nothing
        ("signal", 1, 1),
        ("signal", 9, 9),
        ("signal", 12, 12),  # the last step of an epoch
        ("validation", 2, 12),
        ("validation", 3, 18),
    ],
)
def test_resume_continues_bit_for_bit(
    tmp_path: Path, stop: str, stop_at: int, saved: int, log_every: int, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = ToyTask(dropout=0.3)
    expected = train(whole, options(tmp_path / "whole", log_every=log_every))
    broken = ToyTask(dropout=0.3, stop=stop, stop_at=stop_at)
    with pytest.raises(KeyboardInterrupt):
        train(broken, options(tmp_path / "parts", log_every=log_every))
    assert read_checkpoint(list_checkpoints(tmp_path / "parts")[-1])["state"]["step"] == saved
    assert ("stopping: the training is saved after this step" in capfd.readouterr().err) == (stop == "signal")
    resumed = ToyTask(dropout=0.3, seed=99)
    state = train(resumed, options(tmp_path / "parts", resume="latest", log_every=log_every))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name])
    drop_time = [{k: v for k, v in point.items() if k != "seconds"} for point in state.curve]
    assert drop_time == [{k: v for k, v in point.items() if k != "seconds"} for point in expected.curve]


def test_two_processes_follow_the_curve_of_one(tmp_path: Path) -> None:
    task = ToyTask(items=13, batch_size=4)  # the last batch has one item: one process has no share of it
    alone = train(task, options(tmp_path / "alone"))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0", "--standalone"]
    command += [str(Path(__file__).with_name("toy_task.py")), str(tmp_path / "both")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=environment, timeout=300, capture_output=True)
    together = json.loads((tmp_path / "both" / "curve.json").read_text())
    assert len(together) == 3
    for a, b in zip(alone.curve, together, strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], abs=1e-4)
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-4)


def test_a_loss_that_is_no_number_ends_it_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed, match=r"loss is nan.*up to step 8.*lower --learning-rate"):
        train(ToyTask(nan_at=8), options(tmp_path))
    checkpoints = list_checkpoints(tmp_path)
    assert [path.name for path in checkpoints] == ["step_00000006.pt"]
    assert all(value.isfinite().all() for value in read_checkpoint(checkpoints[0])["model"].values())


@pytest.mark.parametrize("file", ["checkpoints/step_00000012.unfinished", "curve.json.unfinished"])
def test_a_full_disk_is_one_sentence_and_keeps_the_checkpoint(tmp_path: Path, file: str) -> None:
    train(ToyTask(), options(tmp_path, epochs=1))
    (tmp_path / file).symlink_to("/dev/full")
    with pytest.raises(TrainingFailed, match=r"^no space is left on the disk of .*; free some and go on with --resume"):
        train(ToyTask(), options(tmp_path, epochs=2, resume="latest"))
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step_00000006.pt"]
    assert len(json.loads((tmp_path / "curve.json").read_text())) == (2 if "step" in file else 1)


def test_it_refuses_before_it_writes(tmp_path: Path) -> None:
    train(ToyTask(), options(tmp_path / "a", epochs=1))
    before = (tmp_path / "a" / "curve.json").read_bytes()
    with pytest.raises(UserError, match="already holds a training"):
        train(ToyTask(), options(tmp_path / "a"))
    with pytest.raises(UserError, match=r"another configuration .width 8 there and 4 here"):
        train(ToyTask(width=4), options(tmp_path / "a", resume="latest"))
    with pytest.raises(UserError, match="holds no checkpoint"):
        train(ToyTask(), options(tmp_path / "b", resume="latest"))
    with pytest.raises(UserError, match="there is no checkpoint"):
        train(ToyTask(), options(tmp_path / "b", resume=str(tmp_path / "none.pt")))
    (tmp_path / "text.pt").write_text("no checkpoint")
    with pytest.raises(UserError, match="no checkpoint of this program or is damaged"):
        train(ToyTask(), options(tmp_path / "b", resume=str(tmp_path / "text.pt")))
    with pytest.raises(UserError, match="--device tpux is unknown"):
        train(ToyTask(), options(tmp_path / "b", device="tpux"))
    assert not (tmp_path / "b").exists()
    assert (tmp_path / "a" / "curve.json").read_bytes() == before


def test_learning_rate_warms_up_and_follows_half_a_cosine() -> None:
    o = TrainOptions(out=Path(), learning_rate=1.0, min_learning_rate=0.1, warmup_steps=9)
    assert learning_rate(0, 109, o) == pytest.approx(0.1)
    assert learning_rate(9, 109, o) == pytest.approx(1.0)
    assert learning_rate(59, 109, o) == pytest.approx(0.55)
    assert learning_rate(109, 109, o) == pytest.approx(0.1)


def test_average_of_checkpoints(tmp_path: Path) -> None:
    train(ToyTask(), options(tmp_path, keep=3))
    paths = list_checkpoints(tmp_path)
    models = [read_checkpoint(path)["model"] for path in paths]
    mean = average_weights(paths)
    for name, value in mean.items():
        torch.testing.assert_close(value, sum(model[name] for model in models) / 3)


def test_bf16_trains_about_as_fp32(tmp_path: Path) -> None:
    exact = train(ToyTask(), options(tmp_path / "a", epochs=1))
    rough = train(ToyTask(), options(tmp_path / "b", epochs=1, precision="bf16"))
    assert rough.curve[0]["train_loss"] != exact.curve[0]["train_loss"]
    assert rough.curve[0]["train_loss"] == pytest.approx(exact.curve[0]["train_loss"], rel=0.05)


def test_a_checkpoint_with_a_weight_that_is_no_number_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "step.pt"
    torch.save({"configuration": {}, "model": {"a": torch.ones(2), "b": torch.tensor([1.0, float("inf")])}}, path)
    with pytest.raises(UserError, match="holds NaN or infinite numbers in b"):
        read_checkpoint(path)
