"""Image tensors as picture files: grids and animations, enlarged without smoothing so that every pixel shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor


def grid(images: Tensor, columns: int, scale: int = 4, gap: int = 1) -> np.ndarray:
    """Return images (N, C, H, W) in -1 … 1 laid out row by row, each pixel ``scale`` wide: (height, width, 3) uint8."""
    pixels = ((images.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte()
    pixels = pixels.permute(0, 2, 3, 1).expand(-1, -1, -1, 3)  # (N, H, W, 3)
    count, height, width, _ = pixels.shape
    rows = -(-count // columns)
    canvas = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 128, np.uint8)
    for i, image in enumerate(pixels.numpy()):
        top, left = gap + i // columns * (height + gap), gap + i % columns * (width + gap)
        canvas[top : top + height, left : left + width] = image
    return canvas.repeat(scale, axis=0).repeat(scale, axis=1)


def save_picture(picture: np.ndarray, path: Path) -> None:
    """Write a picture (height, width, 3) uint8; the name's ending says in which format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


def save_animation(pictures: Sequence[np.ndarray], path: Path, milliseconds: int = 80, hold: int = 1500) -> None:
    """Write pictures (height, width, 3) uint8 as a GIF that repeats; the last stays ``hold`` milliseconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = [Image.fromarray(picture).convert("P", palette=Image.Palette.ADAPTIVE) for picture in pictures]
    durations = [milliseconds] * (len(frames) - 1) + [hold]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=0)
