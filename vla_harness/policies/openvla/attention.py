"""The kernel that attention runs on: flash-attn where it is installed and can serve, else torch's own.

torch's scaled_dot_product_attention has a flash kernel too; the package is at times ahead of it on new GPUs.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import torch
from torch import nn
from torch.nn import functional

from ...errors import UserError

ATTENTIONS = ("auto", "sdpa", "flash")


class Attend(nn.Module):
    """Softmax attention. flash: flash-attn's function, which serves full and causal attention; None: torch's alone."""

    def __init__(self) -> None:
        super().__init__()
        self.flash: Callable[..., torch.Tensor] | None = None

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None, causal: bool = False
    ) -> torch.Tensor:
        """Return (B, T, H * d) of queries (B, H, T, d), keys and values (B, H, S, d).

        mask: (B, 1, 1 or T, S) bool, True where a query may look. causal: query i looks at keys 0 to i, no mask.
        """
        if self.flash is not None and mask is None:
            y = self.flash(*(x.transpose(1, 2) for x in (q, k, v)), causal=causal)  # (B, T, H, d)
        else:
            y = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal).transpose(1, 2)
        return y.reshape(*y.shape[:2], -1)


def use_attention(model: nn.Module, name: str, device: torch.device, dtype: torch.dtype) -> str:
    """Let every ``Attend`` in ``model`` run on ``name``, one of ``ATTENTIONS``, and return what was chosen.

    Raises UserError for an unknown name, or for "flash" where flash-attn is not installed or cannot serve.
    """
    if name not in ATTENTIONS:
        raise UserError(f"There is no attention {name!r}: choose one of {', '.join(ATTENTIONS)}.")
    serves = device.type == "cuda" and dtype in (torch.bfloat16, torch.float16)
    flash: Callable[..., torch.Tensor] | None = None
    if name == "flash" or (name == "auto" and serves):
        try:
            flash = import_module("flash_attn").flash_attn_func
        except ImportError:
            if name == "flash":
                raise UserError("attn='flash' needs flash-attn: pip install flash-attn, or use 'auto'.") from None
    if name == "flash" and not serves:
        raise UserError("attn='flash' serves bf16 on CUDA only: use 'auto', or another device or precision.")
    for module in model.modules():
        if isinstance(module, Attend):
            module.flash = flash
    return "sdpa" if flash is None else "flash"
