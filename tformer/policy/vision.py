"""CameraEncoder: one camera's image to a few tokens, by a small convolutional network that the instruction steers.

Tokens are of two kinds. Keypoints say where things are, to a fraction of a cell: the expected position under a softmax
over the image, one for each channel ("spatial softmax", Levine et al. 2016, arXiv:1504.00702). Patches say what is
roughly where. The instruction scales and shifts the channels of each block (FiLM, Perez et al. 2018,
arXiv:1709.07871), so that "the bowl on the stove" and "the bowl on the plate" find different bowls.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FilmBlock(nn.Module):
    """Two 3×3 convolutions with a skip around them, modulated by a condition; begins as the identity."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(8, channels), nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(8, channels), nn.Conv2d(channels, channels, 3, padding=1)
        self.modulation = nn.Linear(condition, 2 * channels)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x: (B, C, H, W); condition: (B, K). Returns (B, C, H, W)."""
        scale, shift = self.modulation(condition)[:, :, None, None].chunk(2, dim=1)  # (B, C, 1, 1) each
        h = self.conv1(nn.functional.relu(self.norm1(x)))  # (B, C, H, W)
        h = self.norm2(h) * (1 + scale) + shift  # (B, C, H, W)
        return x + self.conv2(nn.functional.relu(h))  # (B, C, H, W)


class SpatialSoftmax(nn.Module):
    """The expected position of each of ``keypoints`` heat maps, in -1 … 1 across and down the image."""

    def __init__(self, channels: int, keypoints: int) -> None:
        super().__init__()
        self.heat = nn.Conv2d(channels, keypoints, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W). Returns (B, 2 K): all positions across, then all down."""
        heat = self.heat(x)  # (B, K, H, W)
        height, width = heat.shape[-2:]
        weights = heat.flatten(2).softmax(dim=-1).unflatten(2, (height, width))  # (B, K, H, W)
        across = torch.linspace(-1, 1, width, device=x.device)
        down = torch.linspace(-1, 1, height, device=x.device)
        return torch.cat([weights.sum(2) @ across, weights.sum(3) @ down], dim=1)  # (B, 2 K)


class CameraEncoder(nn.Module):
    """Image to 1 + 4 tokens: keypoints at a quarter of the resolution, and 2×2 patches.

    width: channels at a quarter of the resolution, a multiple of 8; twice as many at an eighth. reduce: the image is
    first averaged over cells of this many pixels a side.
    """

    PATCHES = 2

    def __init__(self, width: int, keypoints: int, d_model: int, reduce: int = 1) -> None:
        super().__init__()
        self.reduce = nn.AvgPool2d(reduce) if reduce > 1 else nn.Identity()
        self.stem = nn.Conv2d(3, width, 5, stride=4, padding=2)
        self.fine = FilmBlock(width, d_model)
        self.down = nn.Sequential(nn.GroupNorm(8, width), nn.ReLU(), nn.Conv2d(width, 2 * width, 3, 2, padding=1))
        self.coarse = FilmBlock(2 * width, d_model)
        self.up = nn.Conv2d(2 * width, width, 1)
        self.norm = nn.GroupNorm(8, width)
        self.keypoints = SpatialSoftmax(width, keypoints)
        self.point_token = nn.Linear(2 * keypoints, d_model)
        self.patch_token = nn.Linear(2 * width, d_model)
        self.positions = nn.Parameter(torch.randn(self.PATCHES**2, d_model) * 0.02)

    def forward(self, image: Tensor, condition: Tensor) -> Tensor:
        """image: (B, 3, H, W) about -1 … 1, H and W multiples of 16 * reduce; condition: (B, C). Returns (B, 5, C)."""
        fine = self.fine(self.stem(self.reduce(image)), condition)  # (B, w, H/4, W/4)
        coarse = self.coarse(self.down(fine), condition)  # (B, 2 w, H/8, W/8)
        # What a thing is shows from afar, where it is from near: the coarse features choose among the fine ones.
        chosen = fine + nn.functional.interpolate(self.up(coarse), scale_factor=2.0)  # (B, w, H/4, W/4)
        points = self.keypoints(nn.functional.relu(self.norm(chosen)))  # (B, 2 K)
        patches = nn.functional.adaptive_avg_pool2d(coarse, self.PATCHES).flatten(2).mT  # (B, 4, 2 w)
        patches = self.patch_token(patches) + self.positions  # (B, 4, C)
        return torch.cat([self.point_token(points)[:, None], patches], dim=1)  # (B, 5, C)
