"""What an OpenVLA checkpoint's ``config.json`` says, as far as the numbers depend on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...checkpoints import Fields
from ...errors import CheckpointError

VISION_BACKBONE = "dinosiglip-vit-so-224px"
IMAGE_SIZE = 224


@dataclass(frozen=True)
class ViTConfig:
    """A vision transformer as timm builds it. prefix: learned tokens before the patches (class and registers)."""

    width: int
    depth: int
    heads: int
    mlp_width: int
    prefix: int
    layer_scale: bool
    patch: int = 14
    image: int = IMAGE_SIZE

    @property
    def patches(self) -> int:
        """Patches of one image."""
        return (self.image // self.patch) ** 2


@dataclass(frozen=True)
class LanguageConfig:
    """LLaMA. The defaults are ``transformers.LlamaConfig``'s, because published checkpoints leave the sizes out."""

    vocabulary: int = 32000
    width: int = 4096
    depth: int = 32
    heads: int = 32
    mlp_width: int = 11008
    norm_eps: float = 1e-6  # Llama 2 itself has 1e-5; OpenVLA was trained with the default
    rope_base: float = 10000.0
    max_positions: int = 2048


@dataclass(frozen=True)
class OpenVLAConfig:
    """The sizes of an OpenVLA. bins: values an action entry can take, one token each, below ``first_padding``.

    first_padding: length of the tokenizer's vocabulary; what the embedding holds beyond it is padding.
    """

    dino: ViTConfig
    siglip: ViTConfig
    language: LanguageConfig
    bins: int = 256
    first_padding: int = 32000


# timm's vit_large_patch14_reg4_dinov2 and vit_so400m_patch14_siglip_224; the latter's MLP ratio is 4304 / 1152.
_DINO = {"embed_dim": 1024, "depth": 24, "num_heads": 16}
_SIGLIP = {"embed_dim": 1152, "depth": 27, "num_heads": 16}
_MOST_LAYERS = 1024
_MOST_POSITIONS = 2**16


def read_config(content: Mapping[str, Any], name: str) -> OpenVLAConfig:
    """Return the sizes that ``config.json`` gives; raises CheckpointError if it is no OpenVLA of the published kind."""
    stored = Fields(content, f"config.json of {name}")
    if stored.text("vision_backbone_id") != VISION_BACKBONE:
        raise CheckpointError(
            f"config.json of {name} has the vision backbone {content['vision_backbone_id']!r}, and this policy runs"
            f" {VISION_BACKBONE!r}: give an openvla-7b, a fine-tune of it, or an OpenVLA-OFT checkpoint."
        )
    stored.supported("arch_specifier", "no-align+fused-gelu-mlp")
    stored.supported("use_fused_vision_backbone", True, None)
    stored.supported("image_resize_strategy", "resize-naive")
    stored.supported("image_sizes", [IMAGE_SIZE] * 2)
    stored.supported("timm_override_act_layers", [None, None], None)
    stored.supported("output_projector_states", False)
    language = _read_language(stored.section("text_config", optional=True))
    if stored.has("timm_model_kwargs"):
        dino, siglip = stored.sections("timm_model_kwargs", 2)
    else:
        dino = siglip = Fields({}, stored.where, "timm_model_kwargs")
    bins = stored.integer("n_action_bins", 256, least=2)
    padding = stored.integer("pad_to_multiple_of", 64, least=0)
    if language.vocabulary - padding <= bins:
        stored.refuse("n_action_bins", f"fewer than the vocabulary's {language.vocabulary} tokens without padding")
    return OpenVLAConfig(
        dino=_read_vit(dino, _DINO, mlp_ratio=4, prefix=5, layer_scale=True),
        siglip=_read_vit(siglip, _SIGLIP, mlp_ratio=3.7362, prefix=0, layer_scale=False),
        language=language,
        bins=bins,
        first_padding=language.vocabulary - padding,
    )


def _read_language(text: Fields) -> LanguageConfig:
    text.supported("model_type", "llama")
    text.supported("hidden_act", "silu")
    text.supported("attention_bias", False)
    text.supported("mlp_bias", False)
    text.supported("tie_word_embeddings", False)
    text.supported("rope_scaling", None)
    rope = text.section("rope_parameters", optional=True)  # where transformers 5 writes it
    rope.supported("rope_type", "default")
    usual = LanguageConfig()
    heads = text.integer("num_attention_heads", usual.heads)
    width = text.integer("hidden_size", usual.width)
    if width % (2 * heads):
        text.refuse("hidden_size", f"a multiple of 2 x {heads} heads")
    text.supported("num_key_value_heads", heads)
    text.supported("head_dim", width // heads, None)
    return LanguageConfig(
        vocabulary=text.integer("vocab_size", usual.vocabulary),
        width=width,
        depth=text.integer("num_hidden_layers", usual.depth, most=_MOST_LAYERS),
        heads=heads,
        mlp_width=text.integer("intermediate_size", usual.mlp_width),
        norm_eps=text.number("rms_norm_eps", usual.norm_eps, above=0),
        rope_base=text.number("rope_theta", rope.number("rope_theta", usual.rope_base, above=0), above=0),
        max_positions=text.integer("max_position_embeddings", usual.max_positions, most=_MOST_POSITIONS),
    )


def _read_vit(stored: Fields, usual: Mapping[str, int], mlp_ratio: float, prefix: int, layer_scale: bool) -> ViTConfig:
    width = stored.integer("embed_dim", usual["embed_dim"])
    heads = stored.integer("num_heads", usual["num_heads"])
    if width % heads:
        stored.refuse("embed_dim", f"a multiple of {heads} heads")
    return ViTConfig(
        width=width,
        depth=stored.integer("depth", usual["depth"], least=2, most=_MOST_LAYERS),
        heads=heads,
        mlp_width=int(width * mlp_ratio),
        prefix=prefix,
        layer_scale=layer_scale,
    )
