"""The transformer and diffusion models written from scratch, with their generation and training commands."""

from typing import TYPE_CHECKING

from .lazy import lazy_names

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
__getattr__ = lazy_names(
    __name__,
    {
        "bigram": ["Bigram"],
        "diffusion": [
            "ActionHead",
            "ActionHeadConfig",
            "ContextUnet",
            "ContextUnetConfig",
            "DiT",
            "DiTConfig",
            "ProcessConfig",
            "SamplerConfig",
        ],
        "errors": ["TrainingFailed", "UserError"],
        "gpt": ["GPT", "GPTConfig", "load_gpt2"],
        "transformer": ["Transformer", "TransformerConfig", "build_transformer"],
        "translator": ["Translator"],
    },
)
