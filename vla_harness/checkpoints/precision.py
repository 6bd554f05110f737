"""Where a network runs and in which number format, 4-bit and 8-bit linear layers by bitsandbytes included."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from ..errors import UserError

PrecisionName = Literal["fp32", "bf16", "8bit", "4bit"]


@dataclass(frozen=True)
class Precision:
    """A number format. dtype: of what is not quantised, and of the activations. bits: of quantised weights, or None."""

    name: PrecisionName
    dtype: torch.dtype
    bits: Literal[4, 8] | None = None


PRECISIONS: dict[str, Precision] = {
    card.name: card
    for card in (
        Precision("fp32", torch.float32),
        Precision("bf16", torch.bfloat16),
        Precision("8bit", torch.bfloat16, bits=8),  # LLM.int8: rows of weights and activations, outliers apart
        Precision("4bit", torch.bfloat16, bits=4),  # NF4 in blocks of 64
    )
}

BLOCK = 64
"""Entries of a row that share a scale in 4-bit."""
PACKED_ROWS = 32
"""Rows that bitsandbytes packs together on CPUs with AVX512-BF16."""


def choose_device(name: str = "auto") -> torch.device:
    """Return the device ``name``: "auto" (CUDA where there is one, else the CPU), or any of torch's names.

    Raises UserError for a device that this machine does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise UserError(f"--device {name} cannot be used here ({reason}): give auto, cpu or cuda.") from None
    return device


def choose_precision(name: str | None, device: torch.device) -> Precision:
    """Return the precision ``name``; None means bf16 on an accelerator and fp32 on the CPU.

    Raises UserError for an unknown name, or a quantised format without bitsandbytes.
    """
    if name is None:
        return PRECISIONS["fp32" if device.type == "cpu" else "bf16"]
    if name not in PRECISIONS:
        raise UserError(f"There is no precision {name!r}: choose one of {', '.join(PRECISIONS)}.")
    precision = PRECISIONS[name]
    if precision.bits is not None:
        try:
            import bitsandbytes  # noqa: F401
        except ImportError:
            raise UserError(
                f"--precision {name} needs bitsandbytes: pip install bitsandbytes, or use bf16 or fp32."
            ) from None
    return precision


def quantise_linears(
    module: nn.Module, precision: Precision, device: torch.device, only: Callable[[str], bool] = lambda path: True
) -> None:
    """Replace the ``nn.Linear`` layers in ``module`` whose path ``only`` accepts by layers with quantised weights.

    Does nothing when ``precision`` is not quantised. Call it on a module whose parameters are on meta, before
    ``load_weights``, which quantises each weight as it arrives: the unquantised model never exists in memory.
    In 4-bit on the CPU, layers whose rows are no whole blocks of 64 stay as they are: with AVX512, bitsandbytes 0.50.2
    takes the wrong scales for them, an error of a quarter of the weights.
    """
    if precision.bits is None:
        return
    import bitsandbytes as bnb

    # It warns at every call that int8 layers compute in fp16, which is meant.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    for path, linear in list(module.named_modules()):
        if type(linear) is not nn.Linear or not only(path):
            continue
        sizes = linear.in_features, linear.out_features, linear.bias is not None
        layer: nn.Module
        if precision.bits == 4:
            if device.type == "cpu" and linear.in_features % BLOCK:
                continue
            layer = bnb.nn.Linear4bit(*sizes, compute_dtype=precision.dtype, quant_type="nf4", device="meta")
            layer.support_avx512bf16_for_cpu &= linear.out_features % PACKED_ROWS == 0
        else:
            layer = bnb.nn.Linear8bitLt(*sizes, has_fp16_weights=False, threshold=6.0, device="meta")
        module.set_submodule(path, layer)


def is_quantised(module: nn.Module) -> bool:
    """Return whether ``module`` is a layer that ``quantise_linears`` made."""
    return type(module).__name__ in ("Linear4bit", "Linear8bitLt")


def quantised_bytes(layer: nn.Module) -> float:
    """Return the bytes that a weight of ``layer``, one that ``is_quantised``, takes without its scales."""
    return 0.5 if type(layer).__name__ == "Linear4bit" else 1.0


def quantised_parameter(layer: nn.Module, weight: torch.Tensor, device: torch.device) -> nn.Parameter:
    """Return ``weight``, (out, in) on the CPU, quantised for ``layer``, one that ``is_quantised``, on ``device``."""
    import bitsandbytes as bnb

    # bitsandbytes quantises a parameter when it leaves the CPU or is sent there again, and at no other time.
    fresh: Any
    if isinstance(layer, bnb.nn.Linear4bit):
        fresh = bnb.nn.Params4bit(weight, requires_grad=False, quant_type="nf4", module=layer)
    else:
        fresh = bnb.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    return fresh.to(device)
