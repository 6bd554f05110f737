"""The transformer and diffusion models written from scratch, with their generation and training commands."""

from .bigram import Bigram
from .errors import TrainingFailed, UserError
from .gpt import GPT, GPTConfig, load_gpt2
from .transformer import Transformer, TransformerConfig, build_transformer

__all__ = [
    "GPT",
    "Bigram",
    "GPTConfig",
    "TrainingFailed",
    "Transformer",
    "TransformerConfig",
    "UserError",
    "build_transformer",
    "load_gpt2",
]
