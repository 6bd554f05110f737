"""Puts a checkpoint's tensors into a module whose parameters do not exist yet, each once, in its final form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from tformer.finite import is_finite

from ..errors import CheckpointError
from ..system_memory import GIB
from .memory import check_memory
from .precision import is_quantised, quantised_bytes, quantised_parameter
from .tensors import Tensors

SHOWN = 3
"""Names that an error lists before it says how many more there are."""


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Build modules whose parameters have shapes and no memory; buffers (such as rotary frequencies) are real.

    Raises CheckpointError when the module cannot be built, which only the sizes in a checkpoint's configuration cause.
    """
    register = nn.Module.register_parameter

    def register_on_meta(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if param is not None:
            param = nn.Parameter(param.detach().to("meta"), requires_grad=param.requires_grad)
        register(self, name, param)

    nn.Module.register_parameter = register_on_meta  # type: ignore[method-assign]
    try:
        yield
    except (RuntimeError, ValueError, MemoryError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(
            f"The sizes in the checkpoint's config.json make no network that fits here ({reason}): give a checkpoint"
            " whose configuration fits its weights."
        ) from None
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def load_weights(
    module: nn.Module,
    tensors: Tensors,
    *,
    rename: Callable[[str], str | None],
    dtype: torch.dtype,
    device: torch.device,
    optional: Callable[[str], bool] = lambda name: False,
) -> None:
    """Fill ``module``, built under ``parameters_on_meta``, from ``tensors``, and move its buffers to ``device``.

    rename: a checkpoint's tensor name -> the parameter's or persistent buffer's name in ``module``; None for tensors
        that are stored and not used.
    dtype: of the loaded floating-point parameters; quantised layers keep their own. Non-persistent buffers keep theirs.
    optional: parameter names the checkpoint may lack; they stay on meta for the caller to fill.
    Afterwards the module is in eval mode and no parameter wants a gradient.
    Raises CheckpointError that names the tensors which are missing, unknown, of another shape, there twice, or not
    finite, and, before any is read, when they do not fit into the device's memory.
    """
    wanted = dict(module.named_parameters(remove_duplicate=False)) | _persistent_buffers(module)
    targets = _targets(tensors, rename)
    _check(tensors, targets, wanted, optional)
    check_memory(_gibibytes(module, targets.values(), wanted, dtype), device, tensors.name)
    # A quantised weight is made from a copy in host memory, so it is read there.
    read_from = torch.device("cpu") if any(map(is_quantised, module.modules())) else device
    for name, tensor in tensors.items(read_from, set(targets)):
        if not is_finite(tensor):
            raise CheckpointError(
                f"{name} of {tensors.name} holds NaN or infinite numbers: fetch the checkpoint again."
            )
        owner, _, leaf = targets[name].rpartition(".")
        _assign(module.get_submodule(owner), leaf, tensor, dtype, device)
    for owner_module in module.modules():
        for leaf, buffer in owner_module._buffers.items():
            if buffer is not None and buffer.device != device:
                owner_module._buffers[leaf] = buffer.to(device)
    module.eval()


def module_bytes(module: nn.Module) -> int:
    """Return the bytes that parameters and buffers take, quantised weights with their scales included."""
    total = 0
    for tensor in [*module.parameters(), *module.buffers()]:
        extra: list[Any] = [getattr(tensor, "SCB", None)]  # scales of int8 rows
        if (state := getattr(tensor, "quant_state", None)) is not None:
            extra += [state.absmax, state.code]
        total += sum(part.nbytes for part in [tensor, *extra] if isinstance(part, torch.Tensor))
    return total


def _persistent_buffers(module: nn.Module) -> dict[str, torch.Tensor]:
    found = {}
    for path, owner in module.named_modules():
        for leaf, buffer in owner._buffers.items():
            if buffer is not None and leaf not in owner._non_persistent_buffers_set:
                found[f"{path}.{leaf}".lstrip(".")] = buffer
    return found


def _targets(tensors: Tensors, rename: Callable[[str], str | None]) -> dict[str, str]:
    """Return checkpoint name -> module name of the tensors that are used."""
    targets: dict[str, str] = {}
    sources: dict[str, str] = {}
    for name in tensors.shapes:
        target = rename(name)
        if target is None:
            continue
        if target in sources:
            raise CheckpointError(f"{tensors.name} holds {target} twice, as {sources[target]} and as {name}.")
        sources[target] = name
        targets[name] = target
    return targets


def _check(
    tensors: Tensors,
    targets: dict[str, str],
    wanted: dict[str, torch.Tensor],
    optional: Callable[[str], bool],
) -> None:
    unknown = [name for name, target in targets.items() if target not in wanted]
    if unknown:
        raise CheckpointError(
            f"{tensors.name} holds {_some(unknown)}, which this model has no place for: give one of its own."
        )
    filled = set(targets.values())
    missing = [name for name in wanted if name not in filled and not optional(name)]
    if missing:
        raise CheckpointError(f"{tensors.name} lacks {_some(missing)}: give a complete checkpoint of this model.")
    for name, target in targets.items():
        stored, needed = tensors.shapes[name], tuple(wanted[target].shape)
        if stored != needed:
            raise CheckpointError(
                f"{name} of {tensors.name} has the shape {stored}, and its configuration asks for {needed}:"
                " give a checkpoint whose config.json fits its weights."
            )


def _gibibytes(
    module: nn.Module, names: Iterable[str], wanted: Mapping[str, torch.Tensor], dtype: torch.dtype
) -> float:
    """Return what the parameters ``names`` will take: in ``dtype``, or packed where their layer is quantised."""
    packed = {f"{path}.weight": layer for path, layer in module.named_modules() if is_quantised(layer)}
    total = 0.0
    for name in names:
        total += wanted[name].numel() * (quantised_bytes(packed[name]) if name in packed else dtype.itemsize)
    return total / GIB


def _some(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _assign(owner: nn.Module, leaf: str, tensor: torch.Tensor, dtype: torch.dtype, device: torch.device) -> None:
    converted = tensor.to(dtype) if tensor.is_floating_point() else tensor
    if leaf in owner._buffers:
        owner._buffers[leaf] = converted.to(device)
    elif leaf == "weight" and is_quantised(owner):
        owner._parameters[leaf] = quantised_parameter(owner, converted, device)
    else:
        owner._parameters[leaf] = nn.Parameter(converted.to(device), requires_grad=False)
