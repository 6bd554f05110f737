"""Writes the tiny OpenVLA checkpoint that the reference's numbers were recorded with: real layout, random weights.

Every tensor is drawn from one generator in the reference's order of parameters, so that 22 MB need not be stored.
"""

from __future__ import annotations

import gzip
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

DATA = Path(__file__).parents[2] / "data" / "openvla"
SEED = 1016
D, MLP, LAYERS, VOCABULARY = 128, 352, 3, 32064  # the language model
COPIED, FIRST_COPY, SPACE = 1600, 1697, 29871  # rows from FIRST_COPY to SPACE repeat those from COPIED


def _shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield all tensors, the ones OpenVLA never uses included, in the order in which they are drawn."""
    for name, width, hidden, depth, dino in (("", 128, 512, 4, True), ("fused_", 144, 538, 3, False)):
        vit = f"vision_backbone.{name}featurizer"
        if dino:
            yield f"{vit}.cls_token", (1, 1, width)
            yield f"{vit}.reg_token", (1, 4, width)
        yield f"{vit}.pos_embed", (1, 256, width)
        yield f"{vit}.patch_embed.proj.weight", (width, 3, 14, 14)
        yield f"{vit}.patch_embed.proj.bias", (width,)
        for number in range(depth):
            block = f"{vit}.blocks.{number}"
            yield from _affine(f"{block}.norm1", width)
            yield from _affine(f"{block}.attn.qkv", 3 * width, width)
            yield from _affine(f"{block}.attn.proj", width, width)
            if dino:
                yield f"{block}.ls1.scale_factor", (width,)
            yield from _affine(f"{block}.norm2", width)
            yield from _affine(f"{block}.mlp.fc1", hidden, width)
            yield from _affine(f"{block}.mlp.fc2", width, hidden)
            if dino:
                yield f"{block}.ls2.scale_factor", (width,)
        yield from _affine(f"{vit}.norm", width)
    pool = f"{vit}.attn_pool"
    yield f"{pool}.latent", (1, 1, width)
    yield from _affine(f"{pool}.q", width, width)
    yield from _affine(f"{pool}.kv", 2 * width, width)
    yield from _affine(f"{pool}.proj", width, width)
    yield from _affine(f"{pool}.norm", width)
    yield from _affine(f"{pool}.mlp.fc1", hidden, width)
    yield from _affine(f"{pool}.mlp.fc2", width, hidden)
    yield from _affine("projector.fc1", 1088, 272)
    yield from _affine("projector.fc2", D, 1088)
    yield from _affine("projector.fc3", D, D)
    yield "language_model.model.embed_tokens.weight", (VOCABULARY, D)
    for number in range(LAYERS):
        layer = f"language_model.model.layers.{number}"
        for part in "qkvo":
            yield f"{layer}.self_attn.{part}_proj.weight", (D, D)
        yield f"{layer}.mlp.gate_proj.weight", (MLP, D)
        yield f"{layer}.mlp.up_proj.weight", (MLP, D)
        yield f"{layer}.mlp.down_proj.weight", (D, MLP)
        yield f"{layer}.input_layernorm.weight", (D,)
        yield f"{layer}.post_attention_layernorm.weight", (D,)
    yield "language_model.model.norm.weight", (D,)
    yield "language_model.lm_head.weight", (VOCABULARY, D)


def _affine(name: str, *shape: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def _mean_and_deviation(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    if name.endswith("scale_factor"):
        return 0.4, 0.15
    if name.endswith("norm.weight") or "norm1.weight" in name or "norm2.weight" in name or "layernorm" in name:
        return 1.0, 0.15
    if name.endswith("bias"):
        return 0.0, 0.1
    if name.endswith(("cls_token", "reg_token", "pos_embed", "latent")):
        return 0.0, 0.5
    if "embed_tokens" in name:
        return 0.0, 1.0
    if "lm_head" in name:
        return 0.0, 0.08
    gain = 1.8 if "projector" in name else 1.2 if "patch_embed" in name else 1.1
    if name.endswith(("q_proj.weight", "k_proj.weight")):
        gain = 1.6
    return 0.0, gain / math.sqrt(math.prod(shape[1:]))


def tiny_tensors() -> dict[str, torch.Tensor]:
    """Return the checkpoint's 153 tensors, bf16."""
    generator = torch.Generator().manual_seed(SEED)
    tensors = {}
    for name, shape in _shapes():
        mean, deviation = _mean_and_deviation(name, shape)
        tensor = torch.randn(shape, generator=generator) * deviation + mean
        if shape[0] == VOCABULARY:  # most words are never used; action tokens are made likely
            rows = torch.arange(FIRST_COPY, SPACE)
            tensor[rows] = tensor[COPIED + (rows - COPIED) % (FIRST_COPY - COPIED)]
            if "lm_head" in name:
                tensor[VOCABULARY - 64 - 256 : VOCABULARY - 64] *= 4
        tensors[name] = tensor.to(torch.bfloat16)
    return tensors


def write_tiny_checkpoint(folder: Path, shards: int = 4) -> Path:
    """Write the checkpoint into ``folder`` as the hub has it, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in ("config.json", "preprocessor_config.json"):
        shutil.copyfile(DATA / file, folder / file)
    (folder / "tokenizer.json").write_bytes(gzip.decompress((DATA / "tokenizer.json.gz").read_bytes()))
    tensors = tiny_tensors()
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    places: dict[str, str] = {}
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in list(tensors)[number::shards]}
        save_file(part, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return folder


def write_tiny_oft(tiny: str | Path, folder: Path) -> Path:
    """Write the checkpoint ``tiny`` with an L1 head and a state projector into ``folder``, as OFT's are published."""
    shutil.copytree(tiny, folder)
    for part in ("action_head", "proprio_projector"):
        file = f"{part}--150000_checkpoint.pt"
        shutil.copyfile(DATA / "oft" / file, folder / file)
    statistics = json.loads((folder / "config.json").read_text())["norm_stats"]
    for key in statistics:  # bounds that leave the state as it is, so that the reference's normalised one can be given
        statistics[key]["proprio"] = {"q01": [-1.0] * 8, "q99": [1.0] * 8}
    (folder / "dataset_statistics.json").write_text(json.dumps(statistics))
    return folder
