"""Both image paths against the reference's: torchvision's for the processor, tensorflow's for LIBERO."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.vla_harness.openvla.tiny_checkpoint import DATA
from vla_harness import UserError
from vla_harness.policies.openvla.images import (
    PixelNormalisation,
    crop_center,
    jpeg_round_trip,
    lanczos3,
    libero_image,
    plain_image,
)

Arrays = Mapping[str, np.ndarray]


def sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


@pytest.fixture
def normalise() -> PixelNormalisation:
    return PixelNormalisation(json.loads((DATA / "preprocessor_config.json").read_text()), torch.device("cpu"))


def test_pixels_are_the_reference_s_to_the_last_bit(
    goldens: Arrays, facts: Mapping[str, Any], normalise: PixelNormalisation
) -> None:
    resized = np.stack([plain_image(image) for image in goldens["images"]])
    assert sha256(resized) == facts["sha256"]["resized_u8"]
    assert sha256(normalise(resized).numpy()) == facts["sha256"]["pixel_values"]
    oblong = plain_image(goldens["image_rect"])
    assert sha256(oblong) == facts["sha256"]["rect_resized_u8"]
    assert sha256(normalise(oblong[None]).numpy()) == facts["sha256"]["rect_pixel_values"]


def test_the_libero_path_is_tensorflow_s_to_the_last_bit(goldens: Arrays, facts: Mapping[str, Any]) -> None:
    frames = goldens["images"]

    def hash_of(images: list[np.ndarray]) -> str:
        return sha256(np.stack(images))

    compressed = [jpeg_round_trip(frame) for frame in frames]
    assert hash_of(compressed) == facts["sha256"]["libero_jpeg_roundtrip"]
    assert hash_of([lanczos3(frame, 224) for frame in frames]) == facts["sha256"]["libero_resize_only_lanczos3"]
    resized = [lanczos3(image, 224) for image in compressed]
    assert hash_of(resized) == facts["sha256"]["libero_resize_image"]
    assert hash_of([crop_center(frame) for frame in frames]) == facts["sha256"]["libero_center_crop_from_256"]
    turned = [frame[::-1, ::-1] for frame in frames]
    uncropped = [libero_image(frame, center_crop=False) for frame in turned]
    assert hash_of(uncropped) == facts["sha256"]["libero_get_libero_image"]


def test_the_crop_follows_the_resize(goldens: Arrays, facts: Mapping[str, Any], normalise: PixelNormalisation) -> None:
    cropped = np.stack([libero_image(frame[::-1, ::-1]) for frame in goldens["images"]])  # raw frames, rotated
    np.testing.assert_array_equal(cropped[0], goldens["libero_center_crop_0"])
    assert sha256(cropped) == facts["sha256"]["libero_center_crop"]
    assert sha256(normalise(cropped[:1]).numpy()) == facts["sha256"]["libero_pixel_values_0"]


def test_grey_transparent_and_pillow_images_are_read_as_pillow_reads_them() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    rgba = np.dstack([rgb, np.full((60, 80), 7, np.uint8)])
    for same in (rgba, Image.fromarray(rgb), Image.fromarray(rgba)):
        np.testing.assert_array_equal(plain_image(same), plain_image(rgb))
    np.testing.assert_array_equal(plain_image(rgb[..., 0]), plain_image(np.repeat(rgb[..., :1], 3, axis=2)))


@pytest.mark.parametrize(("shape", "dtype"), [((4, 4, 3), "float32"), ((4, 4, 2), "uint8"), ((4,), "uint8")])
def test_other_arrays_are_refused(shape: tuple[int, ...], dtype: str) -> None:
    with pytest.raises(UserError, match=r"give \(H, W, 3\) uint8"):
        plain_image(np.zeros(shape, dtype))
