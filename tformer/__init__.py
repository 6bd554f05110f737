"""The transformer and diffusion models written from scratch, with their generation and training commands."""

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
