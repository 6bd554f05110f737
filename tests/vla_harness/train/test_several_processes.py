"""``torchrun -m vla_harness.train groot``: processes that share a batch learn what one learns from all of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.vla_harness.groot.goldens import DATA, TOKENIZER
from tests.vla_harness.train.test_groot import DEMO
from vla_harness.train.groot import main


def without_dropout(folder: Path) -> Path:
    """The tiny checkpoint; dropout would draw other zeros in each process."""
    shutil.copytree(DATA / "checkpoint", folder)
    config = json.loads((folder / "config.json").read_text())
    for name in ("diffusion_model_cfg", "vl_self_attention_cfg"):
        config["action_head_cfg"][name]["dropout"] = 0.0
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def with_instructions_of_one_length(folder: Path) -> Path:
    """The demo; padding is not masked in the action head, so the longest row of a share would change the others."""
    shutil.copytree(DEMO, folder)
    tasks = folder / "meta/tasks.jsonl"
    tasks.write_text(tasks.read_text().replace("sweet potato", "bean"))
    return folder


def test_two_processes_follow_one_that_takes_the_whole_batch(tmp_path: Path) -> None:
    data, checkpoint = with_instructions_of_one_length(tmp_path / "data"), without_dropout(tmp_path / "start")
    words = ["--dataset", str(data), "--checkpoint", str(checkpoint), "--tokenizer", TOKENIZER, "--device", "cpu"]
    words += ["--embodiment", "gr1", "--data-config", "fourier_gr1_arms_waist", "--precision", "fp32"]
    words += ["--batch-size", "4", "--steps-per-epoch", "3", "--epochs", "1", "--learning-rate", "1e-3"]
    words += ["--evaluate-steps", "16", "--data-threads", "1"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "vla_harness.train", "groot"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, *torchrun, *words, "--out", str(tmp_path / "two")],
        env=environment, timeout=900, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert run.stdout.count("steps      3 of 4 examples") == 1  # one process speaks
    assert main([*words, "--out", str(tmp_path / "one")]) == 0
    (one,), (two,) = (json.loads((tmp_path / name / "curve.json").read_text()) for name in ("one", "two"))
    assert two["step"] == 3
    for number in ("train_loss", "offline_mse"):
        assert abs(one[number] - two[number]) < 1e-5 * one[number]
    start, alone, shared = (
        weights(folder) for folder in (checkpoint, tmp_path / "one/export", tmp_path / "two/export")
    )
    for name, tensor in alone.items():
        if not name.endswith("to_k.bias"):  # a softmax does not see it: its gradient is rounding, which AdamW enlarges
            assert (shared[name] - tensor).norm() <= 1e-3 * (tensor - start[name]).norm(), name


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: t.float() for file in folder.glob("*.safetensors") for name, t in load_file(file).items()}
