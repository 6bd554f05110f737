"""ContextUnet: a small convolutional denoiser for images, two levels down and two up.

(B, C, H, W) -> stem -> W wide, H×W ──────────── skip ───────────► up1 -> out -> (B, C, H, W)
                          └─ down1 -> H/2 ────── skip ─────► up2 ─┘
                                       └─ down2 -> H/4 -> mid ─┘
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from .conditioning import TimeAndContext


@dataclass(frozen=True)
class ContextUnetConfig:
    """Everything that fixes the network's weights; stored with every checkpoint."""

    channels: int = 3
    """Colour channels of the images."""
    contexts: int = 5
    """Length of the context vector."""
    width: int = 64
    """Feature channels at full size, a multiple of 8; the lower levels have twice as many."""


class ResidualBlock(nn.Module):
    """norm, conv, norm, conv, plus the input; the second norm is scaled and shifted by time and context."""

    def __init__(self, inputs: int, outputs: int, condition: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(8, inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(8, outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.modulation = nn.Linear(condition, 2 * outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        nn.init.zeros_(self.conv2.weight)  # each block begins as its skip, as in adaLN-zero

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x: (B, inputs, H, W); condition: (B, condition). Returns (B, outputs, H, W)."""
        scale_shift = self.modulation(functional.silu(condition))  # (B, 2·outputs)
        scale, shift = scale_shift[:, :, None, None].chunk(2, dim=1)  # (B, outputs, 1, 1) each
        h = self.conv1(functional.silu(self.norm1(x)))  # (B, outputs, H, W)
        h = self.norm2(h) * (1 + scale) + shift  # (B, outputs, H, W)
        return self.skip(x) + self.conv2(functional.silu(h))  # (B, outputs, H, W)


class ContextUnet(nn.Module):
    """Denoises images of any size, told the time and a vector of context weights."""

    def __init__(self, config: ContextUnetConfig) -> None:
        super().__init__()
        width, wide = config.width, 2 * config.width
        self.config = config
        self.condition = TimeAndContext(wide, config.contexts)
        self.stem = nn.Conv2d(config.channels, width, 3, padding=1)
        self.block1 = ResidualBlock(width, width, wide)
        self.down1 = nn.Conv2d(width, wide, 3, stride=2, padding=1)
        self.block2 = ResidualBlock(wide, wide, wide)
        self.down2 = nn.Conv2d(wide, wide, 3, stride=2, padding=1)
        self.middle1, self.middle2 = ResidualBlock(wide, wide, wide), ResidualBlock(wide, wide, wide)
        self.up2 = ResidualBlock(wide + wide, wide, wide)
        self.up1 = ResidualBlock(wide + width, width, wide)
        self.norm, self.out = nn.GroupNorm(8, width), nn.Conv2d(width, config.channels, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]  # it has one

    def forward(self, x: Tensor, time: Tensor, context: Tensor) -> Tensor:
        """x: (B, C, H, W) noisy images; time: (B,) in 0 … 1; context: (B, contexts). Returns (B, C, H, W)."""
        condition = self.condition(time, context)  # (B, 2·width)
        full = self.block1(self.stem(x), condition)  # (B, width, H, W)
        half = self.block2(self.down1(full), condition)  # (B, 2·width, H/2, W/2)
        x = self.middle1(self.down2(half), condition)  # (B, 2·width, H/4, W/4)
        x = self.middle2(x, condition)  # (B, 2·width, H/4, W/4)
        x = self.up2(torch.cat([enlarge(x, half), half], dim=1), condition)  # (B, 2·width, H/2, W/2)
        x = self.up1(torch.cat([enlarge(x, full), full], dim=1), condition)  # (B, width, H, W)
        return self.out(functional.silu(self.norm(x)))  # (B, C, H, W)


def enlarge(x: Tensor, like: Tensor) -> Tensor:
    """Return x (B, C, h, w) repeated to the height and width of ``like`` (B, …, H, W)."""
    return functional.interpolate(x, size=like.shape[-2:], mode="nearest")
