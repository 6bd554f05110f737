"""The tensors of a checkpoint's files by name: safetensors, read one at a time and never all at once, and pickles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open

from ..errors import CheckpointError


class Tensors(Protocol):
    """Named tensors somewhere. name: where, for messages. shapes: tensor name -> shape."""

    name: str
    shapes: Mapping[str, tuple[int, ...]]

    def items(self, device: torch.device, names: set[str]) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield (name, tensor on ``device`` as stored) of ``names``."""
        ...


class TensorFiles:
    """Names and shapes of the tensors in one or many safetensors files, and the tensors, file after file.

    shapes: tensor name -> shape. name: the checkpoint's, for messages.
    """

    def __init__(self, files: Sequence[Path], name: str) -> None:
        """Read the files' headers; raises CheckpointError for a broken file or a tensor that two files hold."""
        self.name = name
        self.files = tuple(files)
        shapes_of_all: dict[str, tuple[int, ...]] = {}
        for file in self.files:
            try:
                with safe_open(file, framework="pt") as tensors:
                    shapes = {key: tuple(tensors.get_slice(key).get_shape()) for key in tensors.offset_keys()}
            except (SafetensorError, OSError) as error:
                raise CheckpointError(
                    f"{file.name} of {name} is no complete safetensors file ({error}): fetch it again."
                ) from None
            if twice := shapes_of_all.keys() & shapes.keys():
                raise CheckpointError(f"{name} holds {min(twice)} in two files: remove the older file.")
            shapes_of_all |= shapes
        self.shapes: Mapping[str, tuple[int, ...]] = shapes_of_all

    def items(self, device: torch.device, names: set[str]) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield (name, tensor on ``device`` as stored) of ``names``; one file is open at a time."""
        for file in self.files:
            with safe_open(file, framework="pt", device=str(device)) as tensors:
                for key in tensors.offset_keys():
                    if key in names:
                        yield key, tensors.get_tensor(key)


class PickledTensors:
    """The tensors of a small ``.pt`` state dict, such as an action head, without running what a pickle may hold."""

    def __init__(self, file: Path) -> None:
        """Read the whole file; raises CheckpointError if it holds anything but named tensors."""
        self.name = file.name
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # a reader of arbitrary bytes: what it raises depends on them
            reason = str(error).partition("\n")[0]
            raise CheckpointError(
                f"{file} is no state dict that can be read safely ({reason}): fetch it again."
            ) from None
        if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
            raise CheckpointError(f"{file} holds something else than named tensors: give a state dict.")
        # DistributedDataParallel, which the reference trains with, puts "module." before every name.
        self._tensors = {name.removeprefix("module."): tensor for name, tensor in content.items()}
        self.shapes: Mapping[str, tuple[int, ...]] = {
            name: tuple(tensor.shape) for name, tensor in self._tensors.items()
        }

    def items(self, device: torch.device, names: set[str]) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield (name, tensor on ``device``) of ``names``."""
        for name in self._tensors.keys() & names:
            yield name, self._tensors[name].to(device)
