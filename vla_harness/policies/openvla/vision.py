"""DINOv2 and SigLIP as timm builds them, side by side, and the projector into the language model's space.

Shapes: B images, N patches (256), D width of one transformer. Parameter names are the checkpoints'.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from .attention import Attend
from .configuration import OpenVLAConfig, ViTConfig

NORM_EPS = 1e-6


class Attention(nn.Module):
    """Every token sees every token."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.attend = Attend()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, T, D) of (B, T, D)."""
        B, T, D = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)  # each (B, H, T, D/H)
        return self.proj(self.attend(q, k, v))


class MLP(nn.Module):
    """Two layers with the exact (erf) GELU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, T, D) of (B, T, D)."""
        return self.fc2(functional.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block; with ``film_width`` the instruction scales and shifts it in the middle (FiLM).

    ``ls1`` and ``ls2`` are LayerScale, a learned factor per entry (DINOv2 has it, SigLIP not).
    """

    def __init__(self, config: ViTConfig, film_width: int | None) -> None:
        super().__init__()
        D = config.width
        self.norm1, self.norm2 = nn.LayerNorm(D, eps=NORM_EPS), nn.LayerNorm(D, eps=NORM_EPS)
        self.attn = Attention(D, config.heads)
        self.mlp = MLP(D, config.mlp_width)
        self.ls1 = nn.Parameter(torch.ones(D)) if config.layer_scale else None
        self.ls2 = nn.Parameter(torch.ones(D)) if config.layer_scale else None
        if film_width is not None:
            self.scale, self.shift = nn.Linear(film_width, D), nn.Linear(film_width, D)

    def forward(self, x: torch.Tensor, instruction: torch.Tensor | None = None) -> torch.Tensor:
        """Return (B, T, D) of (B, T, D); instruction: (B, film_width), the mean of its token embeddings, for FiLM."""
        y = self.attn(self.norm1(x))
        x = x + (y if self.ls1 is None else y * self.ls1)
        if instruction is not None:
            x = x * (1 + self.scale(instruction)[:, None]) + self.shift(instruction)[:, None]
        y = self.mlp(self.norm2(x))
        return x + (y if self.ls2 is None else y * self.ls2)


class PatchEmbed(nn.Module):
    """Cuts an image into patches and embeds each by one matrix, row by row."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, config.width, config.patch, config.patch)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return (B, N, D) of (B, 3, H, W)."""
        return self.proj(pixels).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """Patch features after the last block but one, without a final norm: that is what OpenVLA reads.

    The last block, the final norm and SigLIP's pooling are stored in checkpoints, never used, and not built here.
    """

    def __init__(self, config: ViTConfig, film_width: int | None = None) -> None:
        super().__init__()
        D = config.width
        self.prefix = config.prefix
        self.patch_embed = PatchEmbed(config)
        self.pos_embed = nn.Parameter(torch.zeros(1, config.patches, D))
        if config.prefix:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, D))
            self.reg_token = nn.Parameter(torch.zeros(1, config.prefix - 1, D))
        self.blocks = nn.ModuleList(Block(config, film_width) for _ in range(config.depth - 1))

    def forward(self, pixels: torch.Tensor, instruction: torch.Tensor | None = None) -> torch.Tensor:
        """Return (B, N, D) of (B, 3, H, W) normalised pixels."""
        x = self.patch_embed(pixels) + self.pos_embed  # (B, N, D); positions belong to patches only
        if self.prefix:
            tokens = torch.cat([self.cls_token, self.reg_token], dim=1)
            x = torch.cat([tokens.expand(len(x), -1, -1), x], dim=1)  # (B, 1 + 4 + N, D)
        for block in self.blocks:
            x = block(x, instruction)
        return x[:, self.prefix :]


class VisionBackbone(nn.Module):
    """Both transformers on each image; their features are joined patch by patch."""

    def __init__(self, config: OpenVLAConfig, film: bool = False) -> None:
        super().__init__()
        film_width = config.language.width if film else None
        self.featurizer = VisionTransformer(config.dino, film_width)
        self.fused_featurizer = VisionTransformer(config.siglip, film_width)

    def forward(self, pixels: torch.Tensor, instruction: torch.Tensor | None = None) -> torch.Tensor:
        """Return (B, images * N, dino + siglip) features.

        pixels: (B, images * 6, 224, 224), of each image three channels normalised for DINOv2, then three for SigLIP.
        instruction: (B, language width), for FiLM only.
        """
        features = []
        for image in pixels.split(6, dim=1):
            dino, siglip = image.split(3, dim=1)
            features.append(
                torch.cat([self.featurizer(dino, instruction), self.fused_featurizer(siglip, instruction)], dim=2)
            )
        return torch.cat(features, dim=1)


class Projector(nn.Module):
    """Three layers from vision features to the language model's embeddings."""

    def __init__(self, config: OpenVLAConfig) -> None:
        super().__init__()
        vision, language = config.dino.width + config.siglip.width, config.language.width
        self.fc1 = nn.Linear(vision, 4 * vision)
        self.fc2 = nn.Linear(4 * vision, language)
        self.fc3 = nn.Linear(language, language)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return (B, T, language width) of (B, T, vision width)."""
        return self.fc3(functional.gelu(self.fc2(functional.gelu(self.fc1(features)))))
