"""The files that OpenVLA-OFT keeps beside the merged weights: heads, projectors, and the vision backbone with FiLM."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from ...checkpoints import (
    Checkpoint,
    Fields,
    PickledTensors,
    Precision,
    TensorFiles,
    Tensors,
    load_weights,
    parameters_on_meta,
)
from ...errors import CheckpointError, UserError
from .configuration import OpenVLAConfig
from .oft import OFT, STATE, ActionHead, Embedder
from .weights import load_model, parameter_name

LORA_ALPHA = 16
VARIANTS = ("auto", "openvla", "oft")
_Module = TypeVar("_Module", bound=nn.Module)


def is_oft(checkpoint: Checkpoint, statistics: Fields, variant: str = "auto") -> bool:
    """Return whether the checkpoint is OpenVLA-OFT: as ``variant`` says, or because it holds one of OFT's own files.

    statistics: the chosen entry. Raises CheckpointError where they hold a robot's state, as only OFT's do, and none of
    OFT's files is there: only the user knows whether they got lost, or it writes its actions as tokens.
    """
    if variant not in VARIANTS:
        raise UserError(f"There is no variant {variant!r}: choose one of {', '.join(VARIANTS)}.")
    if variant != "auto":
        return variant == "oft"
    if any(_part(checkpoint, part) for part in ("action_head", "proprio_projector", "vision_backbone")):
        return True
    if _holds_state(statistics):
        raise CheckpointError(
            f"{checkpoint.name} has statistics of the robot's state, as OpenVLA-OFT's have, and none of OFT's files"
            " (action_head--…, proprio_projector--…): fetch them, or state variant=oft for one that writes its actions"
            " as tokens, variant=openvla for plain OpenVLA."
        )
    return False


def reads_state(checkpoint: Checkpoint) -> bool:
    """Return whether an OFT checkpoint holds a state projector."""
    return _part(checkpoint, "proprio_projector") is not None


def _holds_state(statistics: Fields) -> bool:
    """Return whether the state's statistics hold any number but 0, which plain OpenVLA's training writes for it."""
    proprio = statistics.content.get("proprio")
    lists = [value for key, value in proprio.items() if key != "mask"] if isinstance(proprio, Mapping) else []
    return any(bool(number) for numbers in lists if isinstance(numbers, list) for number in numbers)


def load_oft(checkpoint: Checkpoint, config: OpenVLAConfig, precision: Precision, device: torch.device) -> OFT:
    """Return the network with the parts that the folder holds; raises CheckpointError for tensors that do not fit.

    The parts are small and never quantised.
    """
    width = config.language.width

    def load(part: str, build: Callable[[], _Module], prefix: str = "") -> _Module | None:
        file = _part(checkpoint, part)
        if file is None:
            return None
        with parameters_on_meta():
            module = build()
        tensors = _open(file)
        load_weights(
            module, tensors, rename=lambda name: name.removeprefix(prefix), dtype=precision.dtype, device=device
        )
        return module

    film = _part(checkpoint, "vision_backbone")
    model = load_model(checkpoint, config, precision, device, film=film is not None)
    if film is not None:
        load_weights(
            model.vision_backbone,
            MergedFilm(_open(film)),
            rename=lambda name: _without_backbone(parameter_name(config, name)),
            dtype=precision.dtype,
            device=device,
        )
    noisy_action = load("noisy_action_projector", lambda: Embedder(1, width))
    head_prefix = "model." if noisy_action is None else "noise_predictor.mlp_resnet."
    head = load("action_head", lambda: ActionHead(width), head_prefix)
    if noisy_action is not None and head is None:
        raise CheckpointError(f"{checkpoint.name} has a noisy_action_projector and no action_head: fetch it again.")
    return OFT(model, head, load("proprio_projector", lambda: Embedder(STATE, width)), noisy_action).eval()


class MergedFilm:
    """The tensors of a FiLM backbone under the plain names, with the LoRA that the reference left unmerged added in."""

    def __init__(self, stored: Tensors) -> None:
        self.name = stored.name
        self._stored = stored
        self._sources: dict[str, str] = {}
        for source in stored.shapes:
            if ".lora_" not in source:
                self._sources[source.replace(".base_layer.", ".").replace(".block.", ".")] = source
        self.shapes: Mapping[str, tuple[int, ...]] = {
            name: stored.shapes[source] for name, source in self._sources.items()
        }

    def items(self, device: torch.device, names: set[str]) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield (name, tensor on ``device``) of ``names``: W + alpha / rank * B A where W was adapted."""
        wanted = {self._sources[name] for name in names}
        adapted = {source for source in wanted if source.endswith(".base_layer.weight")}
        adapters = {_adapter(source, side) for source in adapted for side in "AB"}
        parts = dict(self._stored.items(device, wanted | adapters))
        for name in names:
            source = self._sources[name]
            tensor = parts[source]
            if source in adapted:
                down, up = parts[_adapter(source, "A")].float(), parts[_adapter(source, "B")].float()
                rank = len(down)
                tensor = tensor.float() + min(rank, LORA_ALPHA) / rank * up @ down
            yield name, tensor


def _adapter(source: str, side: str) -> str:
    return source.replace(".base_layer.weight", f".lora_{side}.default.weight")


def _without_backbone(name: str | None) -> str | None:
    return None if name is None else name.removeprefix("vision_backbone.")


def _part(checkpoint: Checkpoint, part: str) -> Path | None:
    """Return the file of ``part``, as "action_head--150000_checkpoint.pt" or "action_head.safetensors"."""
    pattern = re.compile(rf"{part}(--\w+)?\.(pt|safetensors)")
    files = sorted(file for file in checkpoint.path.iterdir() if pattern.fullmatch(file.name))
    if len(files) > 1:
        raise CheckpointError(
            f"{checkpoint.name} has several files of its {part} ({', '.join(file.name for file in files)}): keep one."
        )
    return files[0] if files else None


def _open(file: Path) -> Tensors:
    return PickledTensors(file) if file.suffix == ".pt" else TensorFiles([file], file.name)
