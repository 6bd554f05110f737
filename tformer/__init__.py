"""The transformer and diffusion models written from scratch, with their generation and training commands."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bigram import Bigram
    from .diffusion import (
        ActionHead,
        ActionHeadConfig,
        ContextUnet,
        ContextUnetConfig,
        DiT,
        DiTConfig,
        ProcessConfig,
        SamplerConfig,
    )
    from .errors import TrainingFailed, UserError
    from .gpt import GPT, GPTConfig, load_gpt2
    from .transformer import Transformer, TransformerConfig, build_transformer
    from .translator import Translator

__all__ = [
    "GPT",
    "ActionHead",
    "ActionHeadConfig",
    "Bigram",
    "ContextUnet",
    "ContextUnetConfig",
    "DiT",
    "DiTConfig",
    "GPTConfig",
    "ProcessConfig",
    "SamplerConfig",
    "TrainingFailed",
    "Transformer",
    "TransformerConfig",
    "Translator",
    "UserError",
    "build_transformer",
    "load_gpt2",
]

_MODULES = ("errors", "gpt", "transformer", "translator", "bigram", "diffusion")


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562), so that ``tformer.command`` does not wait for torch."""
    if name in __all__:
        for module in _MODULES:
            found = getattr(import_module(f".{module}", __name__), name, None)
            if found is not None:
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
