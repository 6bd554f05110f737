"""Random changes to training images: the reference's crop and colour jitter, in torch.

As torchvision's ``ColorJitter`` does it on float tensors: the four changes in random order, each by a random factor,
the same for every image of the call. Source: pytorch/vision ``transforms/_functional_tensor.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

LUMA = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in torchvision's grey."""


@dataclass(frozen=True)
class ColourJitter:
    """Half-widths of the uniform factors around 1, and of the hue's shift around 0 in turns."""

    brightness: float = 0.3
    contrast: float = 0.4
    saturation: float = 0.5
    hue: float = 0.08

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return (n, 3, H, W) ``images`` in [0, 1], changed."""
        order = torch.randperm(4, generator=generator).tolist()
        draws = (2 * torch.rand(4, generator=generator) - 1).tolist()  # in [-1, 1)
        changes = (
            lambda x: brighten(x, 1 + self.brightness * draws[0]),
            lambda x: stretch(x, 1 + self.contrast * draws[1]),
            lambda x: saturate(x, 1 + self.saturation * draws[2]),
            lambda x: turn_hue(x, self.hue * draws[3]),
        )
        for number in order:
            images = changes[number](images)
        return images


def brighten(images: Tensor, factor: float) -> Tensor:
    """Return (..., 3, H, W) images times ``factor``, within [0, 1]."""
    return (images * factor).clamp(0, 1)


def stretch(images: Tensor, factor: float) -> Tensor:
    """Return the images with their distance from their mean grey times ``factor``: the contrast."""
    mean = _grey(images).mean(dim=(-3, -2, -1), keepdim=True)
    return (factor * images + (1 - factor) * mean).clamp(0, 1)


def saturate(images: Tensor, factor: float) -> Tensor:
    """Return the images with each pixel's distance from its grey times ``factor``."""
    return (factor * images + (1 - factor) * _grey(images)).clamp(0, 1)


def turn_hue(images: Tensor, turns: float) -> Tensor:
    """Return the images with their hue (of HSV) turned by ``turns``."""
    hue, saturation, value = _hsv(images)
    return _rgb((hue + turns) % 1.0, saturation, value)


def _grey(images: Tensor) -> Tensor:
    """Return (..., 1, H, W)."""
    weights = images.new_tensor(LUMA)[:, None, None]
    return (images * weights).sum(dim=-3, keepdim=True)


def _hsv(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return hue in turns, saturation and value, each (..., H, W)."""
    red, green, blue = images.unbind(dim=-3)
    high, low = images.amax(dim=-3), images.amin(dim=-3)
    span = high - low
    flat = span == 0
    saturation = span / torch.where(flat, torch.ones_like(high), high)
    divisor = torch.where(flat, torch.ones_like(span), span)
    from_red, from_green, from_blue = ((high - one) / divisor for one in (red, green, blue))
    hue = torch.where(high == red, from_blue - from_green, 4.0 + from_green - from_red)
    hue = torch.where((high == green) & (high != red), 2.0 + from_red - from_blue, hue)
    return (hue / 6.0 + 1.0) % 1.0, saturation, high


def _rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Return (..., 3, H, W)."""
    sector = torch.floor(hue * 6.0)
    part = hue * 6.0 - sector
    sector = sector.long() % 6
    p = (value * (1 - saturation)).clamp(0, 1)
    q = (value * (1 - saturation * part)).clamp(0, 1)
    t = (value * (1 - saturation * (1 - part))).clamp(0, 1)
    options = torch.stack([value, q, p, p, t, value, t, value, value, q, p, p, p, p, t, value, value, q], dim=0)
    rows = options.reshape(3, 6, *value.shape)  # channel, sector
    index = sector[None, None].expand(3, 1, *value.shape)
    return rows.gather(1, index).squeeze(1).movedim(0, -3)


@dataclass(frozen=True)
class TensorflowJitter:
    """OpenVLA's changes, as tensorflow defines them: a crop of a share of the area, then four changes in this order.

    Source: openvla ``prismatic/vla/datasets/datasets.py`` (image_aug) and dlimp's augmentations: brightness and hue are
    added, contrast is around each channel's mean, saturation multiplies HSV's.
    """

    area: float = 0.9
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.05

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return (n, 3, S, S) ``images`` in [0, 1], cropped to a random place, resized, and changed."""
        top, left = torch.rand(2, generator=generator).tolist()
        draws = (2 * torch.rand(4, generator=generator) - 1).tolist()  # in [-1, 1)
        images = crop_and_stretch(images, self.area**0.5, top, left) + self.brightness * draws[0]
        mean = images.mean(dim=(-2, -1), keepdim=True)
        images = mean + (1 + self.contrast * draws[1]) * (images - mean)
        hue, saturation, value = _hsv(images.clamp(0, 1))
        saturation = (saturation * (1 + self.saturation * draws[2])).clamp(0, 1)
        return _rgb((hue + self.hue * draws[3]) % 1.0, saturation, value)


def crop_and_stretch(images: Tensor, side: float, top: float, left: float) -> Tensor:
    """Return (n, 3, S, S): the crop of ``side`` of each side, stretched bilinearly as ``tf.image.crop_and_resize``.

    top, left: place of the crop's corner in the room there is, 0 to 1.
    """
    size = images.shape[-1]
    line = torch.linspace(0, side, size)
    rows, columns = (2 * (line + place * (1 - side)) - 1 for place in (top, left))  # -1 and 1 are the outermost centres
    grid = torch.stack([columns.expand(size, size), rows[:, None].expand(size, size)], dim=-1)  # (S, S, 2): x, y
    return functional.grid_sample(images, grid.expand(len(images), -1, -1, -1), align_corners=True)
