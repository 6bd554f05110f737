"""What a folder is said to hold, and what each policy answers to a checkpoint of another kind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.vla_harness.groot.goldens import CHECKPOINT, TOKENIZER
from tests.vla_harness.openvla.tiny_checkpoint import DATA
from vla_harness import load_policy
from vla_harness.checkpoints import describe_checkpoint, find_checkpoint
from vla_harness.errors import CheckpointError
from vla_harness.policies.tformer.policy import SHIPPED

OPENVLA = (DATA / "config.json").read_text()
RUN = json.dumps({"suite": "spatial", "policy": "noop", "protocol": {}})


def write(folder: Path, files: Mapping[str, str]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("files", "text", "advice"),
    [
        ({}, "an empty folder", "give a folder that holds"),
        (
            {"adapter_config.json": '{"base_model_name_or_path": "a/b"}', "adapter_model.safetensors": ""},
            "only a LoRA adapter of 'a/b'",
            "merge_and_unload",
        ),
        ({"config.json": OPENVLA, "lora_adapter/adapter_model.bin": ""}, "only a LoRA adapter", "merge"),
        ({"checkpoints/step-1-epoch-0-loss=1.pt": "", "config.json": '{"vla": {}}'}, "Prismatic", "convert_openvla"),
        ({"latest-checkpoint.pt": ""}, "a Prismatic or other .pt checkpoint", "convert_openvla"),
        ({"config.json": OPENVLA, "pytorch_model-00001-of-00002.bin": ""}, "weights are .bin", "safe_serialization"),
        ({"pytorch_model.bin": ""}, "weights without a config.json", "safe_serialization"),
        ({"params/manifest.ocdbt": "", "assets/x/norm_stats.json": "{}"}, "openpi", "--server"),
        ({"model.safetensors": "", "config.json": '{"paligemma_variant": "gemma_2b"}'}, "openpi", "--server"),
        ({"model.safetensors": "", "config.json": '{"type": "pi05"}'}, "lerobot's policy 'pi05'", "--server"),
        ({"model.safetensors": "", "config.json": '{"type": "act"}'}, "lerobot's policy 'act'", "--server"),
        ({"model.safetensors": "", "config.json": '{"model_type": "llama"}'}, "of the type 'llama'", "of a policy"),
        ({"checkpoints/step_00000001.pt": "", "export/config.json": "{}"}, "of a training", "'export'"),
        ({"checkpoint-500/config.json": "{}"}, "no checkpoint itself", "checkpoint-500"),
        ({"config.json": RUN, "episodes.sqlite": ""}, "the results of a run", "--policy replay"),
        ({"meta/info.json": "{}"}, "a dataset", "trained on it"),
        ({"notes.txt": ""}, r"without a config.json \(notes.txt\)", "give a folder"),
    ],
)
def test_a_folder_is_described_and_every_policy_says_so(
    tmp_path: Path, files: Mapping[str, str], text: str, advice: str
) -> None:
    folder = write(tmp_path / "given", files)
    for policy in ("openvla", "groot", "tformer"):
        with pytest.raises(CheckpointError, match=f"{text}.*: .*{advice}") as caught:
            load_policy(policy, checkpoint=str(folder))
        assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


@pytest.mark.parametrize("given", ["openvla", "groot", "tformer"])
def test_a_checkpoint_of_another_policy_is_named_with_its_own(tmp_path: Path, given: str) -> None:
    tiny = write(tmp_path / "tiny", {"config.json": OPENVLA, "model.safetensors": ""})
    folders = {"openvla": tiny, "groot": Path(CHECKPOINT), "tformer": SHIPPED}
    assert describe_checkpoint(folders[given]).policy == given
    for policy in folders.keys() - {given}:
        options = {"tokenizer": TOKENIZER} if policy == "groot" else {}
        with pytest.raises(CheckpointError, match=f"give --policy {given}"):
            load_policy(policy, checkpoint=str(folders[given]), **options)


def test_a_file_in_place_of_a_folder_is_named(tmp_path: Path) -> None:
    shutil.copyfile(SHIPPED / "config.json", tmp_path / "config.json")
    for name, advice in (("model.safetensors", "give the folder of the checkpoint"), ("x.pt", "give its folder")):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(CheckpointError, match=f"{name} is a file.* and no checkpoint folder: {advice}"):
            find_checkpoint(str(tmp_path / name))


def test_an_index_of_files_or_tensors_that_are_not_there_is_refused(tmp_path: Path) -> None:
    for places, sentence in (
        ('{"weight_map": {"a": "gone.safetensors"}}', "has no file gone.safetensors, which its index names"),
        ('{"weight_map": {"a": 3}}', "has weight_map.a 3, and a text is expected"),
        ('{"weight_map": []}', r"has weight_map \[\], and an object is expected"),
        ('{"weight_map": {}}', "names no tensors"),
        ("[" * 100_000, "is nested without end"),
    ):
        (tmp_path / "model.safetensors.index.json").write_text(places)
        with pytest.raises(CheckpointError, match=sentence):
            find_checkpoint(str(tmp_path)).tensors()
    shutil.copyfile(SHIPPED / "model.safetensors", tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"absent": "model.safetensors"}}')
    with pytest.raises(CheckpointError, match="names absent, which none of its files holds"):
        find_checkpoint(str(tmp_path)).tensors()
