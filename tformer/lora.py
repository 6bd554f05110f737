"""LoRA: teach a trained model something new through a few weights beside its own (Hu et al. 2021).

Each chosen Linear, ``W x + b``, becomes ``W x + b + alpha / rank * B (A x)``: A (rank, in) starts random and B (out,
rank) at zero, so the model starts out unchanged; only A and B learn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from .errors import UserError
from .finite import check_finite


class LoRALinear(nn.Module):
    """A Linear that stays as it is, and a low-rank change beside it."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        if not 1 <= rank <= min(base.in_features, base.out_features):
            raise UserError(
                f"rank {rank} does not fit a map of {base.in_features} to {base.out_features}; take a lower one."
            )
        self.base = base
        self.scale = alpha / rank
        dtype = base.weight.dtype if base.weight.is_floating_point() else torch.float32  # of a quantised base
        self.a = nn.Parameter(torch.empty(rank, base.in_features, dtype=dtype, device=base.weight.device))
        self.b = nn.Parameter(torch.zeros(base.out_features, rank, dtype=dtype, device=base.weight.device))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in). Returns (..., out)."""
        change = functional.linear(functional.linear(x, self.a), self.b)  # (..., rank) and then (..., out)
        return self.base(x) + self.scale * change

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """Return one Linear that computes the same."""
        linear = nn.Linear(self.base.in_features, self.base.out_features, bias=self.base.bias is not None)
        linear = linear.to(self.base.weight)
        linear.weight.copy_(self.base.weight + self.scale * self.b @ self.a)
        if self.base.bias is not None:
            linear.bias.copy_(self.base.bias)
        return linear


def apply_lora(
    model: nn.Module, rank: int = 8, alpha: float = 16.0, choose: Callable[[str], bool] = lambda name: True
) -> int:
    """Put a ``LoRALinear`` in the place of each Linear whose name ``choose`` takes, and freeze everything else.

    A Linear whose weight another module shares, such as a tied projection, is left alone: a change to it would not be a
    change to the other. Returns how many weights learn. Raises UserError where no Linear is chosen.
    """
    uses: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            uses[id(parameter)] = uses.get(id(parameter), 0) + 1
    model.requires_grad_(False)
    chosen = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and choose(name) and uses[id(module.weight)] == 1
    ]
    if not chosen:
        raise UserError("no Linear of the model was chosen for LoRA; take names that it has.")
    for name, module in chosen:
        _replace(model, name, LoRALinear(module, rank, alpha))
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def merge_lora(model: nn.Module) -> None:
    """Put one Linear in the place of each ``LoRALinear``: the same results without the extra cost."""
    for name, module in list(lora_layers(model)):
        _replace(model, name, module.merged())
    model.requires_grad_(True)


def lora_layers(model: nn.Module) -> Iterator[tuple[str, LoRALinear]]:
    """Return the ``LoRALinear`` modules with their names."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoRALinear))


def save_lora(model: nn.Module, path: str | Path) -> None:
    """Write the A, B and scale of each ``LoRALinear``, without the model's own weights, as safetensors."""
    tensors: dict[str, Tensor] = {}
    for name, layer in lora_layers(model):
        tensors |= {f"{name}.a": layer.a.detach().contiguous(), f"{name}.b": layer.b.detach().contiguous()}
        tensors[f"{name}.scale"] = torch.tensor(layer.scale)
    save_file(tensors, path)


def load_lora(model: nn.Module, path: str | Path) -> None:
    """Apply what ``save_lora`` wrote to a model that has no LoRA yet. Raises UserError where it does not fit."""
    try:
        tensors = load_file(path)
    except (OSError, ValueError, RuntimeError):
        raise UserError(f"{path} is no readable LoRA file; name one that save_lora wrote.") from None
    check_finite(tensors, path)
    names = {name.removesuffix(".a") for name in tensors if name.endswith(".a")}
    if tensors.keys() != {f"{name}.{part}" for name in names for part in ("a", "b", "scale")}:
        raise UserError(f"{path} holds other tensors than a, b and scale of each layer; name one that save_lora wrote.")
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    for name in names:
        a, b = tensors[f"{name}.a"], tensors[f"{name}.b"]
        base = linears.get(name)
        fits = a.dim() == b.dim() == 2 and tensors[f"{name}.scale"].numel() == 1 and a.size(0) == b.size(1)
        if base is None or not fits or (base.in_features, base.out_features) != (a.size(1), b.size(0)):
            raise UserError(f"{path} was made for another model: its {name} does not fit; load it into its own model.")
    model.requires_grad_(False)
    for name in names:
        a, b = tensors[f"{name}.a"], tensors[f"{name}.b"]
        layer = LoRALinear(linears[name], len(a), float(tensors[f"{name}.scale"]) * len(a))
        layer.a.data.copy_(a)
        layer.b.data.copy_(b)
        _replace(model, name, layer)


def _replace(model: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, new)
