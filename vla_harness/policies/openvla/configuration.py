"""What an OpenVLA checkpoint's ``config.json`` says, as far as the numbers depend on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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


def read_config(content: Mapping[str, Any], name: str) -> OpenVLAConfig:
    """Return the sizes that ``config.json`` gives; raises CheckpointError if it is no OpenVLA of the published kind."""
    backbone = content.get("vision_backbone_id")
    if backbone != VISION_BACKBONE:
        raise CheckpointError(
            f"config.json of {name} has the vision backbone {backbone!r}, and this policy runs {VISION_BACKBONE!r}:"
            " give an openvla-7b, a fine-tune of it, or an OpenVLA-OFT checkpoint."
        )
    dino, siglip = content.get("timm_model_kwargs") or ({}, {})
    dino, siglip = _DINO | dict(dino), _SIGLIP | dict(siglip)
    text = content.get("text_config", {})
    language = LanguageConfig()
    language = LanguageConfig(
        vocabulary=text.get("vocab_size", language.vocabulary),
        width=text.get("hidden_size", language.width),
        depth=text.get("num_hidden_layers", language.depth),
        heads=text.get("num_attention_heads", language.heads),
        mlp_width=text.get("intermediate_size", language.mlp_width),
        norm_eps=text.get("rms_norm_eps", language.norm_eps),
        rope_base=text.get("rope_theta", language.rope_base),
        max_positions=text.get("max_position_embeddings", language.max_positions),
    )
    if text.get("num_key_value_heads", language.heads) != language.heads:
        raise CheckpointError(f"config.json of {name} has fewer key-value heads than heads, which no OpenVLA has.")
    return OpenVLAConfig(
        dino=ViTConfig(
            width=dino["embed_dim"],
            depth=dino["depth"],
            heads=dino["num_heads"],
            mlp_width=4 * dino["embed_dim"],
            prefix=5,
            layer_scale=True,
        ),
        siglip=ViTConfig(
            width=siglip["embed_dim"],
            depth=siglip["depth"],
            heads=siglip["num_heads"],
            mlp_width=int(siglip["embed_dim"] * 3.7362),
            prefix=0,
            layer_scale=False,
        ),
        language=language,
        bins=content.get("n_action_bins", 256),
        first_padding=language.vocabulary - content.get("pad_to_multiple_of", 64),
    )
