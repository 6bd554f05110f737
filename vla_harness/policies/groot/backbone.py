"""Eagle 2.5 as GR00T N1.5 uses it: SigLIP2, one linear connector, and the first layers of Qwen3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen3Config, Qwen3Model, SiglipVisionConfig, SiglipVisionModel

from ...checkpoints import Fields
from .dit import MAX_LAYERS

EAGLE: Mapping[str, Any] = {
    "image_token_index": 151669,
    "vision_config": {
        "hidden_size": 1152,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "intermediate_size": 4304,
        "image_size": 224,
        "patch_size": 14,
        "layer_norm_eps": 1e-6,
        "hidden_act": "gelu_pytorch_tanh",
    },
    "text_config": {
        "hidden_size": 2048,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 6144,
        "rope_theta": 1000000,
        "rms_norm_eps": 1e-6,
        "vocab_size": 151680,
    },
}
"""Sizes of the 3B model, which its checkpoint does not state; config.json beside the tokenizer may state others."""


def check_sizes(eagle: Fields) -> None:
    """Raise CheckpointError for a backbone whose sizes are missing, of another type, or not implemented."""
    eagle.integer("image_token_index")
    vision, words = eagle.section("vision_config"), eagle.section("text_config")
    for part, known in ((vision, EAGLE["vision_config"]), (words, EAGLE["text_config"])):
        for name, value in known.items():
            if name == "num_hidden_layers":
                part.integer(name, most=MAX_LAYERS)
            elif isinstance(value, int) and name != "rope_theta":
                part.integer(name)
            elif isinstance(value, float | int):
                part.number(name, above=0)
    vision.supported("image_size", 224)  # what frames are made to
    vision.supported("patch_size", 14)  # 256 tokens a camera, which the prompt has places for
    vision.supported("hidden_act", "gelu_pytorch_tanh")
    vision.supported("num_channels", 3)
    words.supported("hidden_act", "silu")
    words.supported("rope_scaling", None)
    words.supported("attention_bias", False)
    words.supported("use_sliding_window", False)
    if vision.integer("hidden_size") % vision.integer("num_attention_heads"):
        vision.refuse("num_attention_heads", "a divisor of hidden_size")
    if words.integer("num_attention_heads") % words.integer("num_key_value_heads"):
        words.refuse("num_key_value_heads", "a divisor of num_attention_heads")


class EagleBackbone(nn.Module):
    """Images and tokens to features: each camera's 16 x 16 patches take the places of its image tokens."""

    def __init__(self, eagle: Mapping[str, Any], layers: int) -> None:
        """eagle: the sizes, as in ``EAGLE``; layers: of the language model that are kept."""
        super().__init__()
        sizes = {part: {name: eagle[part][name] for name in EAGLE[part]} for part in ("vision_config", "text_config")}
        vision = SiglipVisionConfig(**sizes["vision_config"], vision_use_head=False)
        language = Qwen3Config(**sizes["text_config"], num_hidden_layers=layers, use_cache=False)
        self.image_token = int(eagle["image_token_index"])
        self.patches = (int(eagle["vision_config"]["image_size"]) // int(eagle["vision_config"]["patch_size"])) ** 2
        self.vision = SiglipVisionModel._from_config(vision, attn_implementation="sdpa")
        self.connector = nn.Linear(vision.hidden_size, language.hidden_size)
        self.language = Qwen3Model._from_config(language, attn_implementation="sdpa")

    def see(self, pixels: Tensor) -> Tensor:
        """pixels: (cameras, 3, 224, 224) in [-1, 1]. Returns (cameras, 256, C), what stands for them in the text."""
        return self.connector(self.vision(pixels).last_hidden_state)

    def embed(self, tokens: Tensor, seen: Tensor) -> Tensor:
        """tokens: (B, N) integers; seen: (cameras of all rows, 256, C). Returns the inputs of the layers, (B, N, C)."""
        embedded = self.language.embed_tokens(tokens)
        places = (tokens == self.image_token)[..., None].expand_as(embedded)
        return embedded.masked_scatter(places, seen.to(embedded.dtype))

    def forward(self, pixels: Tensor, tokens: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return (B, N, C) features: the last kept layer's output behind the final norm.

        pixels: (cameras of all rows, 3, 224, 224) in [-1, 1], row by row; tokens: (B, N) integers with 256 image tokens
        per camera; attention_mask: (B, N), 0 for padding on the left; None when there is none.
        """
        embedded = self.embed(tokens, self.see(pixels))
        mask = None if attention_mask is None else _causal_mask(attention_mask, embedded.dtype)
        # A dictionary is taken as it is; made from None, a mask would need a look at the data, which waits for the GPU.
        masks = {"full_attention": mask}
        return self.language(inputs_embeds=embedded, attention_mask=masks).last_hidden_state


def _causal_mask(attention_mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return (B, 1, N, N) to be added to the attention's scores.

    The rows of padding see nothing, and a sum with the smallest number makes their attention uniform over all tokens.
    That is what the reference computes without flash-attn; the adapter behind it reads these rows, so it matters.
    """
    count = attention_mask.shape[1]
    seen = torch.ones(count, count, dtype=torch.bool, device=attention_mask.device).tril()
    seen = seen & attention_mask.bool()[:, None, None]  # (B, 1, N, N)
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)
