"""Frames to pixels: the processor's plain path, and the path of the LIBERO evaluation before it.

The reference uses tensorflow for the second; here it is Pillow, simplejpeg and numpy, and equal to the last bit
(tests/vla_harness/openvla/test_images.py): JPEG by libjpeg-turbo with tensorflow's settings, lanczos3 as in its
``ScaleAndTranslate`` and the crop as in its ``CropAndResize``, both in fp32 in the same order of operations.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...checkpoints import Fields
from ...conventions import orient
from ...errors import UserError
from ...types import ImageOrientation, Observation, PolicySpec
from .configuration import IMAGE_SIZE

CROP_AREA = 0.9
F32 = np.float32


class PixelNormalisation:
    """uint8 images to the six channels the network reads: three normalised for DINOv2, three for SigLIP."""

    def __init__(self, preprocessor: Mapping[str, Any] | Fields, device: torch.device) -> None:
        """Take mean and deviation from ``preprocessor_config.json``: stored rounded to bf16, as in training.

        Raises CheckpointError where they are missing, or the file asks for another way to make images small.
        """
        stored = preprocessor if isinstance(preprocessor, Fields) else Fields(preprocessor, "preprocessor_config.json")
        stored.supported("image_resize_strategy", "resize-naive")
        stored.supported("tvf_do_letterbox", False)
        stored.supported("interpolations", ["bicubic"] * 2)
        stored.supported("input_sizes", [[3, IMAGE_SIZE, IMAGE_SIZE]] * 2)
        both = stored.sections("tvf_normalize_params", 2)
        shape = 1, 6, 1, 1
        for part in both:
            if min(part.numbers("std", 3)) <= 0:
                part.refuse("std", "numbers above 0")
        self._mean = torch.tensor([part.numbers("mean", 3) for part in both], device=device).reshape(shape)
        self._std = torch.tensor([part.numbers("std", 3) for part in both], device=device).reshape(shape)

    def __call__(self, images: np.ndarray) -> torch.Tensor:
        """Return (B, 6, H, W) fp32 on the device of (B, H, W, 3) uint8 images; bytes travel, floats do not."""
        pixels = torch.from_numpy(images).to(self._mean.device).permute(0, 3, 1, 2).float() / 255  # (B, 3, H, W)
        return (pixels.repeat(1, 2, 1, 1) - self._mean) / self._std


def plain_image(image: np.ndarray | Image.Image) -> np.ndarray:
    """Return (224, 224, 3) uint8: ``image`` stretched by Pillow's bicubic filter ("resize-naive").

    image: (H, W, 3) or (H, W, 4) RGB(A) or (H, W) grey, uint8, or a Pillow image; UserError for anything else.
    """
    if not isinstance(image, Image.Image):
        array = np.asarray(image)
        if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
            raise UserError(
                f"The image is a {array.dtype} array of shape {array.shape}: give (H, W, 3) uint8 with values 0 to 255."
            )
        image = Image.fromarray(array)
    return np.array(image.convert("RGB").resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC))


def libero_images(observations: Sequence[Observation], spec: PolicySpec, center_crop: bool) -> np.ndarray:
    """Return (B, cameras, 224, 224, 3) uint8: the frames that ``spec`` names, turned, by ``libero_image``."""
    return np.stack(
        [
            [libero_image(orient(o.images[c], "upright", spec.image_orientation), center_crop) for c in spec.cameras]
            for o in observations
        ]
    )


def libero_image(frame: np.ndarray, center_crop: bool = True) -> np.ndarray:
    """Return (224, 224, 3) uint8 of a (H, W, 3) uint8 frame that lies as in the training data.

    The round trip through JPEG is what training images went through; the crop is the middle of the random crops of
    the training's augmentation, and leaving it out costs about three points of success.
    """
    image = lanczos3(jpeg_round_trip(frame), IMAGE_SIZE)
    return crop_center(image) if center_crop else image


def image_path(orientation: ImageOrientation, center_crop: bool) -> str:
    """Return what ``libero_images`` does to a rendered frame, in words."""
    crop = f", center crop of area {CROP_AREA}" if center_crop else ""
    return f"{orientation.replace('_', ' ')}, JPEG 95, lanczos3 to {IMAGE_SIZE}{crop}"


def jpeg_round_trip(image: np.ndarray) -> np.ndarray:
    """Return (H, W, 3) uint8 after JPEG at quality 95, colour halved both ways, decoded with the fast integer DCT."""
    try:
        from simplejpeg import decode_jpeg
    except ImportError:
        raise UserError("OpenVLA's image path on LIBERO needs simplejpeg: pip install simplejpeg.") from None
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, "JPEG", quality=95, subsampling="4:2:0")
    return decode_jpeg(encoded.getvalue(), colorspace="RGB", fastdct=True, fastupsample=False)


def lanczos3(image: np.ndarray, size: int) -> np.ndarray:
    """Return (size, size, 3) uint8 of (H, W, 3) uint8: lanczos3 with antialiasing, rows first, no rounding between."""
    return np.rint(np.clip(lanczos3_float(image, size), 0, 255)).astype(np.uint8)


def lanczos3_float(image: np.ndarray, size: int) -> np.ndarray:
    """Return (size, size, 3) float32 before clipping and rounding."""
    rows = _weighted_rows(image.astype(F32), *_lanczos3_spans(image.shape[0], size))  # (size, W, 3)
    columns = _weighted_rows(rows.transpose(1, 0, 2), *_lanczos3_spans(image.shape[1], size))  # (size, size, 3)
    return columns.transpose(1, 0, 2)


def _weighted_rows(image: np.ndarray, starts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return (n, W, 3): row i is the sum over k of weights[i, k] * image[starts[i] + k], added up in that order."""
    total = np.zeros((len(starts), *image.shape[1:]), F32)
    for k in range(weights.shape[1]):
        # a row beyond the image has the weight 0
        total += weights[:, k, None, None] * image[np.minimum(starts + k, len(image) - 1)]
    return total


@cache
def _lanczos3_spans(source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first source place (n,) that each of ``target`` places reads, and the weights (n, span) from there."""
    scale = F32(source) / F32(target)
    widening = max(scale, F32(1))
    narrowing, radius = F32(1) / widening, F32(3) * widening
    span = min(2 * int(np.ceil(radius)) + 1, source)
    starts, weights = np.zeros(target, np.int64), np.zeros((target, span), F32)
    for place in range(target):
        sample = (F32(place) + F32(0.5)) * scale
        first = max(int(np.ceil(sample - radius - F32(0.5))), 0)
        last = min(int(np.floor(sample + radius - F32(0.5))), source - 1)
        total = F32(0)
        for k in range(last - first + 1):
            position = F32(first + k) + F32(0.5) - sample
            weights[place, k] = _lanczos3(position * narrowing)
            total += weights[place, k]
        starts[place] = first
        weights[place] *= F32(1) / total
    return starts, weights


def _lanczos3(x: np.float32) -> np.float32:
    x, pi = abs(x), F32(np.pi)
    if x > 3:
        return F32(0)
    if x <= F32(1e-3):
        return F32(1)
    return F32(3) * _sin(pi * x) * _sin(pi * x / F32(3)) / (pi * pi * x * x)


def _sin(x: np.float32) -> np.float32:
    """Return the fp32 number nearest to the sine, as the C library's sinf does; numpy's own is one bit off at times."""
    return F32(math.sin(x))


def crop_center(image: np.ndarray) -> np.ndarray:
    """Return (224, 224, 3) uint8: the middle ``CROP_AREA`` of (H, W, 3) uint8, stretched to 224 x 224 bilinearly."""
    return np.clip(crop_center_float(image) * F32(255.5), 0, 255).astype(np.uint8)


def crop_center_float(image: np.ndarray) -> np.ndarray:
    """Return (224, 224, 3) float32 in [0, 1]."""
    side = np.clip(np.sqrt(F32(CROP_AREA)), F32(0), F32(1))
    begin = (F32(1) - side) / F32(2)
    values = image.astype(F32) * F32(1 / 255)
    (top, bottom, y), (left, right, x) = (_between(begin, begin + side, length) for length in image.shape[:2])
    x, y = x[None, :, None], y[:, None, None]
    upper = values[top][:, left] + (values[top][:, right] - values[top][:, left]) * x
    lower = values[bottom][:, left] + (values[bottom][:, right] - values[bottom][:, left]) * x
    return np.clip(upper + (lower - upper) * y, F32(0), F32(1))


def _between(begin: np.float32, end: np.float32, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the neighbours (n,) below and above of 224 places from ``begin`` to ``end``, and the way between, fp32."""
    step = (end - begin) * F32(length - 1) / F32(IMAGE_SIZE - 1)
    places = begin * F32(length - 1) + np.arange(IMAGE_SIZE).astype(F32) * step
    below = np.floor(places)
    return below.astype(np.int64), np.ceil(places).astype(np.int64), places - below
