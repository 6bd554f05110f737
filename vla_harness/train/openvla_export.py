"""Writes a fine-tuned OpenVLA in the published layout, as our own policy and the reference's loaders open it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from tformer.lora import lora_layers

from ..checkpoints import Checkpoint
from ..policies.openvla.actions import STATISTICS
from ..policies.openvla.loading import OpenVLAParts
from ..policies.openvla.model import OpenVLA
from ..policies.openvla.weights import parameter_name

CODE = "auto_map"
"""Key under which transformers' files name the Python classes that open them."""


def export(parts: OpenVLAParts, model: OpenVLA, folder: Path) -> None:
    """Write the checkpoint's weights with the low-rank changes added, in its layout, with the dataset's statistics."""
    folder.mkdir(parents=True, exist_ok=True)
    _describe(parts, folder)
    (folder / STATISTICS).write_text(json.dumps(parts.statistics, indent=2), encoding="utf-8")
    stored = parts.checkpoint.tensors()
    changes = {f"{name}.weight": layer for name, layer in lora_layers(model)}
    places: dict[str, str] = {}
    shards = list(_shards(stored.shapes, model.dtype.itemsize))
    for number, names in enumerate(shards, start=1):
        file_name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        tensors = {}
        for name, tensor in stored.items(torch.device("cpu"), set(names)):
            layer = changes.get(parameter_name(parts.config, name) or "")
            if layer is not None:
                change = layer.scale * (layer.b.detach().float() @ layer.a.detach().float())
                tensor = tensor.float() + change.cpu()
            tensors[name] = tensor.to(model.dtype).contiguous()
        save_file(tensors, folder / file_name, metadata={"format": "pt"})
        places |= dict.fromkeys(tensors, file_name)
    total = sum(int(np.prod(shape)) for shape in stored.shapes.values()) * model.dtype.itemsize
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")


def _describe(parts: OpenVLAParts, folder: Path) -> None:
    """Write all files but weights and statistics: the checkpoint's own, with code references that can be followed."""
    source = parts.checkpoint
    for file in source.path.iterdir():
        if not file.is_file() or file.name.endswith(".index.json") or file.name.startswith("adapter_"):
            continue
        if file.suffix in (".model", ".txt", ".py"):
            shutil.copyfile(file, folder / file.name)
        elif file.suffix == ".json":
            content = _with_references(source.json(file.name), source)
            if file.name == "config.json":
                content["norm_stats"] = parts.statistics
            (folder / file.name).write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")


def _with_references(content: dict[str, Any], source: Checkpoint) -> dict[str, Any]:
    """Return ``content`` with an ``auto_map`` that can be followed, or without one: then its class is registered."""
    if isinstance(content.get(CODE), dict):
        references = {key: _reference(value, source) for key, value in content.pop(CODE).items()}
        if None not in references.values():
            content[CODE] = references
    return content


def _reference(value: Any, source: Checkpoint) -> Any:
    """Return where the code of one ``auto_map`` entry is found from the export on; None for nowhere.

    Code beside the checkpoint is copied with it. That of a hub's repository is not downloaded, so the entry names the
    repository, in transformers' own form ORG/NAME--MODULE.CLASS.
    """
    if not isinstance(value, str) or "--" in value or source.has(f"{value.partition('.')[0]}.py"):
        return value
    return f"{source.name}--{value}" if source.revision is not None else None


def _shards(shapes: Mapping[str, Sequence[int]], itemsize: int, limit: int = 5 * 10**9) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    size = 0
    for name in sorted(shapes):
        size += int(np.prod(shapes[name])) * itemsize
        if shards[-1] and size > limit:
            shards.append([])
            size = 0
        shards[-1].append(name)
    return shards
