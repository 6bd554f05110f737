"""Finding, reading, quantising and refusing checkpoints, on a module of two layers."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import save_file
from torch import nn

from vla_harness.checkpoints import (
    PRECISIONS,
    Checkpoint,
    PickledTensors,
    choose_device,
    choose_precision,
    find_checkpoint,
    load_weights,
    module_bytes,
    parameters_on_meta,
    quantise_linears,
)
from vla_harness.checkpoints.precision import is_quantised, quantised_parameter
from vla_harness.errors import CheckpointError, UserError

CPU = torch.device("cpu")


class Two(nn.Module):
    waves: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 128)
        self.second = nn.Linear(128, 64, bias=False)
        self.register_buffer("count", torch.zeros(1))
        self.register_buffer("waves", torch.arange(4.0), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        **{f"net.{k}": v.detach().to(torch.bfloat16) for k, v in Two().state_dict().items()},
        "unused": torch.ones(3),
    }


def rename(name: str) -> str | None:
    return name.removeprefix("net.") if name.startswith("net.") else None


def write(folder: Path, tensors: dict[str, torch.Tensor], shards: int = 1) -> Checkpoint:
    """Store ``tensors`` as hub checkpoints are: one file, or shards with an index."""
    names = sorted(tensors)
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return find_checkpoint(str(folder))
    index: dict[str, str] = {}
    for shard in range(shards):
        file = f"model-{shard}.safetensors"
        part = {name: tensors[name] for name in names[shard::shards]}
        save_file(part, folder / file)
        index |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return find_checkpoint(str(folder))


def loaded(checkpoint: Checkpoint, precision: str = "fp32") -> Two:
    with parameters_on_meta():
        module = Two()
    quantise_linears(module, PRECISIONS[precision], CPU, only=lambda path: path == "second")
    load_weights(module, checkpoint.tensors(), rename=rename, dtype=PRECISIONS[precision].dtype, device=CPU)
    return module


@pytest.mark.parametrize("shards", [1, 3])
def test_a_module_gets_the_stored_values_in_the_wanted_format(tmp_path: Path, shards: int) -> None:
    stored = weights()
    module = loaded(write(tmp_path, stored, shards))
    for name, value in module.state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, stored[f"net.{name}"].float()), name
    assert torch.equal(module.waves, torch.arange(4.0))  # a buffer that no checkpoint holds is not left on meta
    assert not module.training and not any(p.requires_grad for p in module.parameters())


@pytest.mark.parametrize(("precision", "error", "share"), [("8bit", 0.02, 0.6), ("4bit", 0.15, 0.4)])
def test_quantised_layers_take_less_and_compute_nearly_the_same(
    tmp_path: Path, precision: str, error: float, share: float
) -> None:
    checkpoint = write(tmp_path, weights())
    exact, small = loaded(checkpoint, "bf16"), loaded(checkpoint, precision)
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(1)).bfloat16()
    assert (small(x) - exact(x)).abs().mean() < error * exact(x).abs().mean()
    assert module_bytes(small.second) < share * module_bytes(exact.second)
    assert type(small.first) is nn.Linear  # only what was asked for


@pytest.mark.parametrize("inputs", [48, 64, 352, 1152])
def test_four_bits_cost_no_more_than_their_rounding_at_any_width(inputs: int) -> None:
    exact = nn.Linear(inputs, 40, bias=False).bfloat16()
    module = nn.Sequential(nn.Linear(inputs, 40, bias=False, device="meta"))
    quantise_linears(module, PRECISIONS["4bit"], CPU)
    layer = module[0]
    weight = exact.weight.detach()
    layer.weight = quantised_parameter(layer, weight, CPU) if is_quantised(layer) else nn.Parameter(weight)
    assert is_quantised(layer) == (inputs % 64 == 0)
    with torch.no_grad():
        rounded = module.eval()(torch.eye(inputs, dtype=torch.bfloat16))
    assert (rounded.mT - weight).norm() < 0.12 * weight.norm()


def test_only_parameters_built_within_the_context_are_on_meta() -> None:
    with parameters_on_meta():
        module = Two()
    assert all(p.is_meta for p in module.parameters()) and not any(b.is_meta for b in module.buffers())
    assert not nn.Linear(2, 2).weight.is_meta


def without(name: str) -> dict[str, torch.Tensor]:
    return {key: value for key, value in weights().items() if key != name}


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        (without("net.first.bias"), "lacks first.bias"),
        (weights() | {"net.third.weight": torch.ones(2)}, "net.third.weight, which this model has no place for"),
        (weights() | {"net.first.bias": torch.ones(7)}, r"first.bias of .* has the shape \(7,\), and .* \(128,\)"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_by_the_tensor_s_name(
    tmp_path: Path, tensors: dict[str, torch.Tensor], sentence: str
) -> None:
    with pytest.raises(CheckpointError, match=sentence):
        loaded(write(tmp_path, tensors))


def test_an_absent_shard_and_a_cut_file_are_refused_by_name(tmp_path: Path) -> None:
    checkpoint = write(tmp_path, weights(), shards=3)
    whole = (tmp_path / "model-1.safetensors").read_bytes()
    (tmp_path / "model-1.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"model-1\.safetensors .* no complete safetensors file"):
        checkpoint.tensors()
    (tmp_path / "model-1.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no file model-1\.safetensors"):
        checkpoint.tensors()


def test_the_hash_follows_the_content(tmp_path: Path) -> None:
    before = write(tmp_path, weights()).sha256
    assert find_checkpoint(str(tmp_path)).sha256 == before
    assert write(tmp_path, weights() | {"unused": torch.zeros(3)}).sha256 != before


@pytest.mark.parametrize("name", ["no/such/folder", "/nowhere", "word"])
def test_a_name_that_is_neither_folder_nor_hub_id_is_refused(name: str) -> None:
    with pytest.raises(CheckpointError, match="There is no checkpoint folder"):
        find_checkpoint(name)


def test_a_hub_id_is_fetched_and_its_commit_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    def snapshot(name: str, **options: object) -> str:
        asked.update(options, name=name)
        return str(tmp_path / "0123abc")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    found = find_checkpoint("org/model", revision="main", files=("*.json",))
    assert (found.path, found.revision) == (tmp_path / "0123abc", "0123abc")
    assert asked == {
        "name": "org/model",
        "repo_type": "model",
        "revision": "main",
        "allow_patterns": ["*.json"],
        "ignore_patterns": None,
    }

    def offline(name: str, **options: object) -> str:
        raise LocalEntryNotFoundError("cannot reach the hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(CheckpointError, match=r"the hub did not give it \(cannot reach the hub"):
        find_checkpoint("org/model")


def test_a_state_dict_is_read_without_running_pickles(tmp_path: Path) -> None:
    torch.save({"module.fc.weight": torch.ones(2, 3)}, tmp_path / "head.pt")
    head = PickledTensors(tmp_path / "head.pt")
    assert head.shapes == {"fc.weight": (2, 3)}
    torch.save({"fc.weight": Path("/")}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match="no state dict that can be read safely"):
        PickledTensors(tmp_path / "evil.pt")


def test_formats_and_devices_that_do_not_exist_are_refused() -> None:
    assert choose_precision(None, CPU).name == "fp32" and choose_device("cpu") == CPU
    with pytest.raises(UserError, match="no precision '3bit'"):
        choose_precision("3bit", CPU)
    with pytest.raises(UserError, match="--device warp cannot be used here"):
        choose_device("warp")
