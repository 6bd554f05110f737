"""Damaged, odd and hostile checkpoints: each is one sentence, and nothing outside the folder is read."""

from __future__ import annotations

import copy
import json
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.vla_harness.checkpoints.test_checkpoints import loaded, weights, write
from tests.vla_harness.openvla.tiny_checkpoint import DATA
from vla_harness.checkpoints import Fields, PickledTensors, find_checkpoint
from vla_harness.checkpoints import memory as memory_module
from vla_harness.errors import CheckpointError
from vla_harness.policies.openvla.actions import Bounds
from vla_harness.policies.openvla.configuration import read_config
from vla_harness.policies.openvla.images import PixelNormalisation
from vla_harness.policies.tformer.checkpoint import PolicyCard, read_policy
from vla_harness.policies.tformer.policy import SHIPPED

ODD: tuple[Any, ...] = (None, True, "x", "", -1, 0, 1.5, float("nan"), float("inf"), 2**70, [], {}, [None], {"a": []})
Content = dict[str, Any]


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every value, but of long lists to the first entry alone."""
    entries: Any = content.items() if isinstance(content, dict) else enumerate(content[:1])
    for key, value in entries:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def mutated(content: Content) -> Iterator[Content]:
    """Yield ``content`` with each of its values replaced by each odd one, and left out."""
    for *way, last in places(content):
        for odd in (*ODD, Ellipsis):
            changed = copy.deepcopy(content)
            inner: Any = changed
            for key in way:
                inner = inner[key]
            if odd is Ellipsis:
                del inner[last]
            else:
                inner[last] = odd
            yield changed


def openvla_config() -> Content:
    return {**json.loads((DATA / "config.json").read_text()), "norm_stats": {}}


def openvla_statistics() -> Content:
    return json.loads((DATA / "config.json").read_text())["norm_stats"]["libero_spatial"]["action"]


READERS: Mapping[str, tuple[Callable[[], Content], Callable[[Content], object]]] = {
    "config": (openvla_config, lambda content: read_config(content, "tiny")),
    "statistics": (openvla_statistics, lambda content: Bounds.of(Fields(content, "statistics of tiny"), 7)),
    "preprocessor": (
        lambda: json.loads((DATA / "preprocessor_config.json").read_text()),
        lambda content: PixelNormalisation(content, torch.device("cpu")),
    ),
    "tformer": (
        lambda: json.loads((SHIPPED / "config.json").read_text()),
        lambda content: PolicyCard.from_json(content, "tiny"),
    ),
}


@pytest.mark.parametrize("name", READERS)
def test_any_odd_value_is_read_or_refused_in_a_sentence(name: str) -> None:
    content, read = READERS[name]
    read(content())
    refused = 0
    for changed in mutated(content()):
        try:
            read(changed)
        except CheckpointError as error:
            refused += 1
            assert "\n" not in str(error) and str(error).endswith(".") and len(str(error)) < 400
    assert refused > 50


@pytest.mark.parametrize("shard", ["../outside.safetensors", "/etc/hostname", "a\x00b", "..", "x" * 300])
def test_an_index_that_leaves_its_folder_is_refused(tmp_path: Path, shard: str) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    save_file({"first": torch.ones(2)}, tmp_path / "outside.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"first": shard}}))
    for ask in (lambda c: c.tensors(), lambda c: c.sha256):
        with pytest.raises(CheckpointError, match=r"index\.json of .* \(weight_map\) says"):
            ask(find_checkpoint(str(folder)))


def test_a_link_in_the_folder_is_its_owner_s(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    save_file({"first": torch.ones(2)}, tmp_path / "kept.safetensors")
    (tmp_path / "inside/1.safetensors").symlink_to(tmp_path / "kept.safetensors")
    (tmp_path / "inside/model.safetensors.index.json").write_text('{"weight_map": {"first": "1.safetensors"}}')
    checkpoint = find_checkpoint(str(tmp_path / "inside"))
    assert checkpoint.tensors().shapes == {"first": (2,)} and len(checkpoint.sha256) == 64


def test_shards_in_a_folder_of_their_own_count_in_the_hash(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "parts/1.safetensors"}}')
    hashes = []
    for value in (1.0, 2.0):
        save_file({"a": torch.full((2,), value)}, tmp_path / "parts/1.safetensors")
        hashes.append(find_checkpoint(str(tmp_path)).sha256)
    assert hashes[0] != hashes[1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_refused_by_name(tmp_path: Path, value: float, dtype: torch.dtype) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in weights().items()}
    tensors["unused"][0] = value  # what is not loaded does no harm
    loaded(write(tmp_path, tensors))
    tensors["net.second.weight"][3, 5] = value
    with pytest.raises(CheckpointError, match=r"net\.second\.weight of .* holds NaN or infinite numbers"):
        loaded(write(tmp_path, tensors))


def test_weights_beyond_the_memory_are_refused_before_any_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = write(tmp_path, weights())
    monkeypatch.setattr(memory_module, "available", lambda device: 4 * (64 * 128 * 2 + 129) / 2**30)
    loaded(checkpoint)
    monkeypatch.setattr(memory_module, "available", lambda device: 3 * (64 * 128 * 2) / 2**30)
    with pytest.raises(CheckpointError, match=r"take 0\.0 GiB, and 0\.0 GiB are free on cpu: use a"):
        loaded(checkpoint)
    loaded(checkpoint, "bf16")


@pytest.mark.parametrize(
    "header",
    [b"\xff" * 8, struct.pack("<Q", 2**40), struct.pack("<Q", 2) + b"{}", struct.pack("<Q", 9) + b'{"a": [[[', b""],
)
def test_absurd_headers_are_no_safetensors(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(header)
    with pytest.raises(CheckpointError, match=r"no complete safetensors file|lacks"):
        loaded(find_checkpoint(str(tmp_path)))


def test_sizes_that_no_machine_holds_are_refused(tmp_path: Path) -> None:
    content = json.loads((SHIPPED / "config.json").read_text())
    shutil.copyfile(SHIPPED / "model.safetensors", tmp_path / "model.safetensors")
    content["network"] |= {"d_model": 2**14, "keypoints": 2**14, "layers": 2}
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"has the shape|make no network that fits here"):
        read_policy(find_checkpoint(str(tmp_path)))


def test_a_policy_with_a_weight_that_is_no_number_is_refused(tmp_path: Path) -> None:
    tensors = load_file(SHIPPED / "model.safetensors")
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
    tensors[name].view(-1)[-1] = float("nan")
    save_file(tensors, tmp_path / "model.safetensors")
    shutil.copyfile(SHIPPED / "config.json", tmp_path / "config.json")
    with pytest.raises(CheckpointError, match="holds NaN or infinite numbers"):
        read_policy(find_checkpoint(str(tmp_path)))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no pickle at all"])
def test_a_head_that_is_no_state_dict_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "head.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"no state dict that can be read safely"):
        PickledTensors(tmp_path / "head.pt")
