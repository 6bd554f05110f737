"""Recognizes what a checkpoint folder holds, whichever policy it is for, and says what to do with it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LEROBOT_PI = ("pi0", "pi0fast", "pi0_fast", "pi05")
WEIGHT_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".gguf", ".msgpack", ".h5", ".onnx", ".npz")
SHOWN = 4
"""File names that a description lists."""

_MERGE = (
    "merge it into its base model (peft: PeftModel.from_pretrained(base, folder).merge_and_unload(), then"
    " save_pretrained) and give the merged folder"
)
_PRISMATIC = (
    "convert it with openvla's vla-scripts/extern/convert_openvla_weights_to_hf.py and give the converted folder"
)
_SAFETENSORS = "convert it: load the model with transformers and write it by save_pretrained(safe_serialization=True)"
_NO_POLICY = "no policy here plays it in this process; serve it with its own software and give --server"


@dataclass(frozen=True)
class CheckpointKind:
    """What a folder holds.

    policy: name of the policy that plays it; "" for none, None when it was not recognized. text: noun phrase, such as
    "a LoRA adapter of 'openvla/openvla-7b'". advice: what a user can do with it, an imperative clause.
    """

    policy: str | None
    text: str
    advice: str


def describe_checkpoint(path: Path) -> CheckpointKind:
    """Return what the folder or file ``path`` holds, by the names of its files and its config.json alone."""
    if path.is_file():
        return _describe_file(path)
    files = sorted(path.iterdir())
    names = [file.name for file in files]
    if not files:
        return CheckpointKind("", "an empty folder", "give a folder that holds a checkpoint")
    config = _object(path / "config.json")
    if (config is None or not _has_weights(names)) and (adapter := _adapter(path)) is not None:
        base = adapter.get("base_model_name_or_path")
        return CheckpointKind("", f"only a LoRA adapter{f' of {base!r}' if base else ''}", _MERGE)
    if config is not None:
        return _describe_config(config, path, names)
    if (path / "params").is_dir() or "_CHECKPOINT_METADATA" in names or _is_openpi_torch(names):
        return CheckpointKind("", "a checkpoint of openpi (pi0 or pi0.5)", _NO_POLICY)
    if (path / "checkpoints").is_dir() and list((path / "checkpoints").glob("step_*.pt")):
        return CheckpointKind("", "the folder of a training", "give its folder 'export'")
    if any(file.suffix == ".pt" for file in files) or list(path.glob("checkpoints/*.pt")):
        return CheckpointKind("", "a Prismatic or other .pt checkpoint", _PRISMATIC)
    if "episodes.sqlite" in names:
        return CheckpointKind("", "the results of a run", "give the checkpoint that the run names, or --policy replay")
    if (path / "meta" / "info.json").is_file():
        return CheckpointKind("", "a dataset", "give a checkpoint that was trained on it")
    inner = [file.name for file in files if file.is_dir() and (file / "config.json").is_file()]
    if inner:
        return CheckpointKind("", "no checkpoint itself", f"give one of its folders: {_listed(inner)}")
    if "config.json" in names:
        return CheckpointKind(None, "a checkpoint whose config.json cannot be read", "fetch it again")
    if any(name.endswith(WEIGHT_SUFFIXES) for name in names):
        return CheckpointKind("", f"weights without a config.json ({_listed(names)})", _SAFETENSORS)
    return CheckpointKind(
        "", f"a folder without a config.json ({_listed(names)})", "give a folder that holds a checkpoint"
    )


def _describe_file(path: Path) -> CheckpointKind:
    if path.suffix in (".pt", ".pth", ".ckpt"):
        folder = describe_checkpoint(path.parent)
        known = folder.policy not in ("", None)
        advice = f"give its folder {path.parent}" if known else _PRISMATIC
        return CheckpointKind("", f"a file ({path.suffix})", advice)
    return CheckpointKind("", "a file", f"give the folder of the checkpoint, perhaps {path.parent}")


def _describe_config(config: Mapping[str, Any], path: Path, names: list[str]) -> CheckpointKind:
    kind = str(config.get("model_type") or "")
    layout = str(config.get("type") or "")
    if str(config.get("format") or "").startswith("vla-harness-tformer"):
        found = CheckpointKind("tformer", "a checkpoint of the policy 'tformer'", "give --policy tformer")
    elif kind == "openvla" or (not kind and "vision_backbone_id" in config):
        found = CheckpointKind("openvla", "an OpenVLA checkpoint", "give --policy openvla")
    elif kind.startswith("gr00t") or "action_head_cfg" in config or layout == "groot":
        found = CheckpointKind("groot", "a GR00T checkpoint", "give --policy groot")
    elif layout in LEROBOT_PI:
        return CheckpointKind("", f"lerobot's policy {layout!r}", _NO_POLICY)
    elif "paligemma_variant" in config or (path / "params").is_dir():
        return CheckpointKind("", "a checkpoint of openpi (pi0 or pi0.5)", _NO_POLICY)
    elif layout:
        return CheckpointKind("", f"lerobot's policy {layout!r}", _NO_POLICY)
    elif _is_prismatic(config, path):
        return CheckpointKind("", "a Prismatic checkpoint (.pt)", _PRISMATIC)
    elif "policy" in config and "protocol" in config:
        return CheckpointKind(
            "", "the results of a run", "give the checkpoint that its config.json names, or --policy replay"
        )
    elif kind:
        return CheckpointKind("", f"a model of the type {kind!r}", "give a checkpoint of a policy")
    else:
        return CheckpointKind(None, "a checkpoint whose config.json names no known model", "give another")
    if not _has_weights(names) and any(re.fullmatch(r"pytorch_model.*\.bin", name) for name in names):
        return CheckpointKind("", f"{found.text} whose weights are .bin pickles", _SAFETENSORS)
    return found


def _is_openpi_torch(names: list[str]) -> bool:
    return "model.safetensors" in names and ("assets" in names or "metadata.pt" in names)


def _is_prismatic(config: Mapping[str, Any], path: Path) -> bool:
    named = any(isinstance(config.get(key), Mapping | str) for key in ("vla", "model"))
    return named and any([*path.glob("*.pt"), *path.glob("checkpoints/*.pt")])


def _adapter(path: Path) -> Mapping[str, Any] | None:
    """Return the adapter_config.json of the folder or its subfolder, {} for an adapter without one, None for none."""
    for folder in (path, path / "lora_adapter", path / "adapter"):
        if (folder / "adapter_config.json").is_file():
            return _object(folder / "adapter_config.json") or {}
        if any(folder.glob("adapter_model.*")):
            return {}
    return None


def _has_weights(names: list[str]) -> bool:
    return any(
        name.endswith((".safetensors", ".safetensors.index.json")) and not name.startswith("adapter_") for name in names
    )


def _object(file: Path) -> Mapping[str, Any] | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _listed(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
