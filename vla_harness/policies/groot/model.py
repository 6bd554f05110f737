"""The whole network, its loading from both published layouts, and its export in the original one."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ...checkpoints import Checkpoint, Fields, Precision, load_weights, parameters_on_meta, quantise_linears
from ...errors import CheckpointError
from .action_head import ActionHead, HeadConfig
from .backbone import EAGLE, EagleBackbone, check_sizes
from .dit import MAX_LAYERS

CONFIG, METADATA = "config.json", "experiment_cfg/metadata.json"
EAGLE_CONFIG = "eagle_config.json"
"""Sizes of a backbone other than the 3B model's, in our exports alone: NVIDIA keeps them outside of checkpoints."""
TOKENIZER_FILES = (
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
_LEROBOT = "_groot_model."
_PREFIXES = {  # a checkpoint's names -> ours
    "backbone.eagle_model.vision_model.vision_model.": "backbone.vision.",
    "backbone.eagle_model.mlp1.0.": "backbone.connector.",
    "backbone.eagle_model.language_model.model.": "backbone.language.",
    "action_head.": "head.",
}
_LM_HEAD = "backbone.eagle_model.language_model.lm_head.weight"
_EMBEDDING = "backbone.language.embed_tokens.weight"
_POOLING = "backbone.vision.head."
_QUANTISED = re.compile(r"backbone\.language\.layers\.|head\.model\.transformer_blocks\.\d+\.(attn1|ff)\.")


@dataclass(frozen=True)
class GrootConfig:
    """What fixes the network's weights.

    stored: the checkpoint's config.json, which an export writes again; where: its name, for messages. eagle: sizes of
    the backbone (see ``EAGLE``).
    """

    stored: Mapping[str, Any]
    eagle: Mapping[str, Any] = field(default_factory=lambda: EAGLE)
    where: str = field(default=CONFIG, compare=False)

    @property
    def head(self) -> HeadConfig:
        """Sizes of the action head."""
        return HeadConfig.read(Fields(self.stored, self.where).section("action_head_cfg").content, self.where)

    @property
    def layers(self) -> int:
        """Layers of the language model that are kept."""
        backbone = Fields(self.stored, self.where).section("backbone_cfg")
        backbone.supported("project_to_dim", None)
        backbone.supported("reproject_vision", False)
        return backbone.integer("select_layer", most=MAX_LAYERS)


class Groot(nn.Module):
    """GR00T N1.5: ``backbone`` reads images and words, ``head`` writes actions."""

    def __init__(self, config: GrootConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = EagleBackbone(config.eagle, config.layers)
        self.head = ActionHead(config.head)

    def loss(self, batch: Mapping[str, Tensor], noise: Tensor, time: Tensor) -> Tensor:
        """Return the training loss, a scalar.

        batch: ``pixels`` (cameras of all rows, 3, 224, 224), ``tokens`` (B, N), ``attention_mask`` (B, N), ``state``
        (B, 1, 64), ``action`` and ``action_mask`` (B, 16, 32), ``embodiment`` (B,), as ``Transforms.training_batch``
        makes it. noise: (B, 16, 32) normal; time: (B,), as ``head.sample_time`` draws it.
        """
        features = self.backbone(batch["pixels"], batch["tokens"], batch["attention_mask"])
        return self.head.loss(
            features, batch["state"], batch["action"], batch["action_mask"], batch["embodiment"], noise, time
        )

    def set_trainable(self, *, visual: bool, llm: bool, projector: bool, diffusion: bool) -> int:
        """Let the chosen parts learn and freeze the rest; returns how many weights learn.

        visual: vision tower and connector; llm: the language model; projector: encoders, decoder and positions of the
        actions; diffusion: the DiT. Adapter and future tokens always learn, as in the reference.
        """
        self.requires_grad_(False)
        head = self.head
        parts: list[nn.Module] = [head.vlln, head.vl_self_attention, head.future_tokens]
        parts += [self.backbone.vision, self.backbone.connector] if visual else []
        parts += [self.backbone.language] if llm else []
        parts += [head.state_encoder, head.action_encoder, head.action_decoder] if projector else []
        parts += [head.position_embedding] if projector else []
        parts += [head.model] if diffusion else []
        for part in parts:
            part.requires_grad_(True)
        return sum(p.numel() for p in self.parameters() if p.requires_grad)


def read_config(checkpoint: Checkpoint, base: Checkpoint, tokenizer: Checkpoint) -> GrootConfig:
    """Return the configuration of ``checkpoint``; of ``base`` where its own config.json states no sizes (lerobot's).

    tokenizer: its folder, whose config.json may state the sizes of the Eagle backbone.
    Raises CheckpointError when neither states an action head of GR00T N1.5.
    """
    for source in (checkpoint, base):
        stored = source.json(CONFIG) if source.has(CONFIG) else {}
        if "action_head_cfg" in stored and "backbone_cfg" in stored:
            break
    else:
        raise CheckpointError(
            f"{CONFIG} of {checkpoint.name} states no action_head_cfg: give a checkpoint of GR00T N1.5, or one as base."
        )
    where = f"{CONFIG} of {source.name}"
    if checkpoint.has(EAGLE_CONFIG):
        eagle = checkpoint.fields(EAGLE_CONFIG)
    else:
        eagle = tokenizer.fields(CONFIG) if tokenizer.has(CONFIG) else Fields({}, where)
        if "vision_config" not in eagle.content:
            eagle = Fields(EAGLE, where)
    check_sizes(eagle)
    config = GrootConfig(stored, eagle.content, where)
    assert config.head and config.layers  # read now, so that what is wrong with them is said before the weights load
    return config


def load_groot(checkpoint: Checkpoint, config: GrootConfig, precision: Precision, device: torch.device) -> Groot:
    """Return the network of ``checkpoint`` in eval mode; 4-bit and 8-bit hold for the linears of LLM and DiT blocks.

    Raises CheckpointError that names the tensors which are missing, unknown or of another shape.
    """
    tensors = checkpoint.tensors()
    with parameters_on_meta():
        model = Groot(config)
    quantise_linears(model, precision, device, only=lambda path: _QUANTISED.match(path) is not None)
    tied = any(our_name(name) == _EMBEDDING for name in tensors.shapes)

    def rename(name: str) -> str | None:
        ours = our_name(name)
        if ours is None:
            return name
        if ours == _LM_HEAD:
            return None if tied else _EMBEDDING
        layer = re.match(r"backbone\.language\.layers\.(\d+)\.", ours)
        unused = ours.startswith(_POOLING) or (layer is not None and int(layer[1]) >= config.layers)
        return None if unused else ours

    load_weights(model, tensors, rename=rename, dtype=precision.dtype, device=device)
    return model


def our_name(name: str) -> str | None:
    """Return the parameter that a checkpoint's tensor is, in either layout; None for a name of neither."""
    name = name.removeprefix(_LEROBOT)
    if name == _LM_HEAD:
        return name
    for theirs, ours in _PREFIXES.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return None


def original_name(name: str) -> str:
    """Return the name that our parameter ``name`` has in the original layout."""
    for theirs, ours in _PREFIXES.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise ValueError(f"{name} is no parameter of GR00T")


def save_checkpoint(
    folder: Path,
    model: Groot,
    metadata: Mapping[str, Any],
    source: Checkpoint | None = None,
    tokenizer: Checkpoint | None = None,
    shard_bytes: int = 5 * 10**9,
) -> None:
    """Write ``model`` in the original layout: config.json, sharded safetensors with an index, the metadata.

    metadata: embodiment tag -> statistics and modalities. source: the checkpoint it came from; tensors of it that the
    network does not use (the vision tower's pooling head) are copied, so that the reference finds all it looks for.
    tokenizer: its folder, whose files are copied, so that the export opens without the hub.
    Raises ValueError for a quantised model or one with LoRA layers: merge them first.
    """
    tensors: dict[str, Tensor] = {}
    if source is not None:
        stored = source.tensors()
        unused = {name for name in stored.shapes if (our_name(name) or "").startswith(_POOLING)}
        tensors |= {name.removeprefix(_LEROBOT): t for name, t in stored.items(torch.device("cpu"), unused)}
    expected = set(dict(_meta_model(model.config).named_parameters()))
    for name, tensor in model.named_parameters():
        if name not in expected or not tensor.is_floating_point():
            raise ValueError(f"{name} is no plain parameter of GR00T N1.5; merge LoRA and export no quantised model")
        tensors[original_name(name)] = tensor.detach().cpu().contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / METADATA).parent.mkdir(exist_ok=True)
    _write_json(folder / METADATA, metadata)
    _write_json(folder / CONFIG, model.config.stored)
    if model.config.eagle != EAGLE:
        _write_json(folder / EAGLE_CONFIG, model.config.eagle)
    for name in TOKENIZER_FILES:
        if tokenizer is not None and tokenizer.has(name):
            shutil.copyfile(tokenizer.path / name, folder / name)
    shards = list(_shards(tensors, shard_bytes))
    places: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_file({name: tensors[name] for name in names}, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(names, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    _write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": places})


def _meta_model(config: GrootConfig) -> Groot:
    with parameters_on_meta():
        return Groot(config)


def _shards(tensors: Mapping[str, Tensor], limit: int) -> Iterable[list[str]]:
    shard: list[str] = []
    size = 0
    for name in sorted(tensors):
        if shard and size + tensors[name].nbytes > limit:
            yield shard
            shard, size = [], 0
        shard.append(name)
        size += tensors[name].nbytes
    yield shard


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
