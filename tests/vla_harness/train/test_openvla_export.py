"""The export of a fine-tune in the reference's loaders: transformers' Auto classes, as its deploy.py calls them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from transformers import AutoConfig, AutoImageProcessor, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from tests.vla_harness.openvla.tiny_checkpoint import write_tiny_checkpoint
from vla_harness import load_policy
from vla_harness.policies.openvla.loading import OpenVLAParts, open_openvla
from vla_harness.policies.openvla.weights import load_model
from vla_harness.train.openvla_export import export

AutoModel = getattr(transformers, "AutoModelForVision2Seq", None) or transformers.AutoModelForImageTextToText
CODE = """
from transformers import PreTrainedConfig, PreTrainedModel

class OpenVLAConfig(PreTrainedConfig):
    model_type = "openvla"
"""


class OpenVLAConfig(PreTrainedConfig):
    model_type = "openvla"


class OpenVLAForActionPrediction(PreTrainedModel):
    """The projector alone; the other tensors are unexpected, which transformers passes over."""

    config_class = OpenVLAConfig

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.projector = nn.ModuleDict({"fc2": nn.Linear(1088, config.text_config["hidden_size"])})
        self.norm_stats = config.norm_stats
        self.post_init()


class PrismaticImageProcessor(transformers.SiglipImageProcessor):
    """Keeps the keys of preprocessor_config.json as attributes."""


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> OpenVLAParts:
    folder = write_tiny_checkpoint(tmp_path_factory.mktemp("source"), shards=1)
    stored = open_openvla(str(folder), "fp32", "cpu", "libero_spatial", None, "sdpa")
    return replace(stored, statistics={"mine": stored.statistics["libero_spatial"]}, unnorm_key="mine")


@pytest.fixture
def registered() -> Iterator[None]:
    """Register the classes, as the reference's scripts do for checkpoints without code of their own."""
    AutoConfig.register("openvla", OpenVLAConfig)
    AutoModel.register(OpenVLAConfig, OpenVLAForActionPrediction)
    AutoImageProcessor.register(OpenVLAConfig, slow_image_processor_class=PrismaticImageProcessor)
    yield
    CONFIG_MAPPING._extra_content.pop("openvla")
    for mapping in (AutoModel._model_mapping, transformers.models.auto.image_processing_auto.IMAGE_PROCESSOR_MAPPING):
        mapping._extra_content.pop(OpenVLAConfig)


def exported(parts: OpenVLAParts, folder: Path) -> Path:
    export(parts, load_model(parts.checkpoint, parts.config, parts.precision, parts.device), folder)
    return folder


def test_where_the_classes_are_registered_an_export_without_code_opens(
    parts: OpenVLAParts, tmp_path: Path, registered: None
) -> None:
    folder = exported(parts, tmp_path / "export")
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    assert type(config) is OpenVLAConfig
    model: Any = AutoModel.from_pretrained(folder, dtype=torch.float32, trust_remote_code=True)
    stored = parts.checkpoint.tensors()
    name = "projector.fc2.weight"
    torch.testing.assert_close(
        model.projector["fc2"].weight.detach(), dict(stored.items(parts.device, {name}))[name].float(), rtol=0, atol=0
    )
    assert set(model.norm_stats) == {"mine"}  # the dataset's, not those that the checkpoint came with
    processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)
    assert processor.image_resize_strategy == "resize-naive"
    assert load_policy("openvla", checkpoint=str(folder), precision="fp32").provenance["unnorm_key"] == "mine"


def test_code_beside_the_checkpoint_goes_with_the_export(parts: OpenVLAParts, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(parts.checkpoint.path, source)
    for name in ("configuration_prismatic.py", "modeling_prismatic.py", "processing_prismatic.py"):
        (source / name).write_text(CODE)
    folder = exported(replace(parts, checkpoint=replace(parts.checkpoint, path=source)), tmp_path / "export")
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    assert type(config).__name__ == "OpenVLAConfig" and type(config) is not OpenVLAConfig


def test_code_of_the_hub_is_named_by_its_repository(parts: OpenVLAParts, tmp_path: Path) -> None:
    hub = replace(parts.checkpoint, name="openvla/openvla-7b", revision="0123abc")
    folder = exported(replace(parts, checkpoint=hub), tmp_path / "export")
    references = json.loads((folder / "config.json").read_text())["auto_map"]
    assert references["AutoConfig"] == "openvla/openvla-7b--configuration_prismatic.OpenVLAConfig"
