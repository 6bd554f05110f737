"""The policy from scratch learns the same from the same demonstrations in every public layout."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.envs.hub_server import REVISION, HubServer
from tests.vla_harness.data import public
from tests.vla_harness.data.test_hub import files_of
from tformer.policy import VisuomotorPolicy
from vla_harness.policies.tformer.checkpoint import images_to_network
from vla_harness.policies.tformer.policy import TformerPolicy
from vla_harness.train.tformer import main

RECIPE = shlex.split(
    "--image-size 32 --width 16 --d-model 64 --layers 1 --batch-size 8 --steps-per-epoch 2 --epochs 1 --warmup-steps 1"
    " --draws 1 --shift 0 --colour 0 --hold-out 0 --ema 0 --device cpu"
)
LAYOUTS = {"openpi": "v2.1", "lerobot": "v3.0", "openx": "v2.1", "hdf5": "hdf5"}


def written(folder: Path, layout: str) -> tuple[Path, list[str]]:
    """Return a dataset in the layout, and what says so on the command line."""
    if layout == "hdf5":
        return public.write(folder / layout, "own", "hdf5"), []
    return public.write(folder / layout, layout, LAYOUTS[layout]), ["--convention", layout]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights that are learned from the demonstrations in our own terms."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("own")
    path = public.write(folder / "own", "own")
    assert main(["--dataset", str(path), "--out", str(folder / "run"), *RECIPE]) == 0
    return (folder / "run/export/model.safetensors").read_bytes()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_public_layout_trains_on_upright_frames_to_the_same_weights(
    layout: str,
    reference: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen: list[Tensor] = []
    losses = VisuomotorPolicy.losses

    def watched(self: VisuomotorPolicy, images: Tensor, *rest: object) -> object:
        seen.append(images)
        return losses(self, images, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(VisuomotorPolicy, "losses", watched)
    path, convention = written(tmp_path, layout)
    assert main(["--dataset", str(path), "--out", str(tmp_path / "run"), *convention, *RECIPE]) == 0
    told = capsys.readouterr().out
    assert ("frames stored mirrored" in told) is bool(convention)
    upright = images_to_network(np.concatenate([public.frames(number) for number in range(public.EPISODES)]))
    looked_at = torch.cat(seen)
    assert looked_at.shape == (16, 2, 3, public.SIZE, public.SIZE)
    assert all((upright == sample).flatten(1).all(dim=1).any() for sample in looked_at)
    assert (tmp_path / "run/export/model.safetensors").read_bytes() == reference
    policy = TformerPolicy(str(tmp_path / "run/export"), device="cpu")
    assert policy.spec.cameras == ("agentview", "wrist")
    assert policy.spec.image_orientation == "upright"


def test_several_layouts_are_learned_from_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [public.write(tmp_path / name, name) for name in ("own", "openx")]
    words = ["--dataset", *map(str, paths), "--out", str(tmp_path / "run"), *RECIPE]
    assert main([*words, "--convention", "own", "openx"]) == 0
    entries = json.loads((tmp_path / "run/export/config.json").read_text())["training"]["datasets"]
    assert [entry["name"] for entry in entries] == ["own", "openx"]
    assert "translation" not in entries[0]
    assert "gripper 1 open and 0 closed" in entries[1]["translation"]
    assert main([*words, "--convention", "own", "own", "openx"]) == 2
    assert main(words) == 2
    told = capsys.readouterr().err.splitlines()
    assert "error: --convention names 3 for 2 datasets: give one, or one for each dataset." in told
    assert "has no camera 'agentview'" in told[-1]
    assert "give --convention openx, or name others with --cameras." in told[-1]


def test_the_command_trains_on_a_dataset_of_the_hub(tmp_path: Path) -> None:
    path = public.write(tmp_path / "libero", "lerobot", "v3.0")
    words = ["--dataset", "someone/libero", "--convention", "lerobot", "--out", str(tmp_path / "run"), *RECIPE]
    with HubServer("someone/libero", files_of(path)) as hub:
        settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "127.0.0.1"}
        inherited = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
        done = subprocess.run(
            [sys.executable, "-m", "vla_harness.train", "tformer", *words],
            env=inherited | settings, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads((tmp_path / "run/export/config.json").read_text())["training"]["datasets"]
    assert (entry["name"], entry["source"], entry["revision"]) == ("libero", "someone/libero", REVISION)
