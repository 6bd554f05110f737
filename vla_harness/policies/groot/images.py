"""Camera frames to the vision tower's pixels, in torch, equal to the reference's torchvision pipeline.

The reference crops the middle, resizes with antialiasing in floating point, and truncates to bytes; the Eagle processor
then scales the bytes to [-1, 1]. lerobot's port lets the Eagle processor resize the whole frame instead, in bytes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

SIZE = 224
"""Height and width of the vision tower's images in pixels."""
CROP = 0.95
"""Share of height and width that the crop keeps."""


def crop_corner(height: int, width: int) -> tuple[int, int]:
    """Return (top, left) of the crop in the middle, rounded as the reference does (half to even)."""
    return round((height - int(height * CROP)) / 2), round((width - int(width * CROP)) / 2)


def crop_and_resize(frames: Tensor, corner: tuple[int, int] | None = None) -> Tensor:
    """Return (n, 3, 224, 224) float32 in [0, 1], cropped to 0.95 of each side and resized.

    frames: (n, H, W, 3) uint8. corner: (top, left) of the crop in pixels; None for the middle.
    """
    height, width = frames.shape[1:3]
    top, left = crop_corner(height, width) if corner is None else corner
    cut = frames[:, top : top + int(height * CROP), left : left + int(width * CROP)]
    images = cut.permute(0, 3, 1, 2).float() / 255
    return functional.interpolate(images, size=(SIZE, SIZE), mode="bilinear", antialias=True)


def as_pixels(images: Tensor) -> Tensor:
    """Return (n, 3, 224, 224) float32 in [-1, 1] of ``images`` in [0, 1], through bytes as the reference goes."""
    return _scaled((images * 255).to(torch.uint8))


def middle_crop(frames: np.ndarray | Tensor) -> Tensor:
    """Return the (n, 3, 224, 224) float32 pixels of (n, H, W, 3) uint8 frames, as NVIDIA's inference makes them."""
    return as_pixels(crop_and_resize(torch.as_tensor(frames)))


def whole_frame(frames: np.ndarray | Tensor) -> Tensor:
    """Return the (n, 3, 224, 224) float32 pixels of (n, H, W, 3) uint8 frames, as lerobot's port makes them."""
    images = torch.as_tensor(frames).permute(0, 3, 1, 2)
    return _scaled(functional.interpolate(images, size=(SIZE, SIZE), mode="bicubic", antialias=True))


IMAGE_PATHS = {
    "nvidia": f"middle crop of {CROP} of each side, bilinear to {SIZE}",
    "lerobot": f"whole frame, bicubic to {SIZE}",
}
"""Ways to make frames small, in words."""


def _scaled(images: Tensor) -> Tensor:
    return (images.float() - 127.5) / 127.5
