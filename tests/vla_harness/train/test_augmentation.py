"""The colour jitter against the definitions of its four changes, and its draws."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch

from vla_harness.train.augmentation import ColourJitter, brighten, saturate, stretch, turn_hue
from vla_harness.train.groot_task import random_corner


@pytest.fixture
def images() -> torch.Tensor:
    pictures = torch.rand((2, 3, 6, 5), generator=torch.Generator().manual_seed(0))
    pictures[0, :, 0, 0] = 0.5  # grey, black, white and pure colours are the edges of HSV
    pictures[0, :, 0, 1] = 0.0
    pictures[0, :, 0, 2] = 1.0
    for channel in range(3):
        pictures[1, :, 0, channel] = torch.eye(3)[channel]
    return pictures


@pytest.mark.parametrize("turns", [-0.08, 0.0, 0.03, 0.5])
def test_hue_turns_as_in_colorsys(images: torch.Tensor, turns: float) -> None:
    expected = np.empty(images.shape)
    for i, row, column in np.ndindex(2, 6, 5):
        hue, saturation, value = colorsys.rgb_to_hsv(*images[i, :, row, column].double().tolist())
        expected[i, :, row, column] = colorsys.hsv_to_rgb((hue + turns) % 1.0, saturation, value)
    np.testing.assert_allclose(turn_hue(images, turns).numpy(), expected, atol=2e-6)


def test_brightness_contrast_and_saturation_by_their_definitions(images: torch.Tensor) -> None:
    pictures = images.double().numpy()
    grey = np.tensordot([0.2989, 0.587, 0.114], pictures, axes=(0, 1))[:, None]
    mean = grey.mean(axis=(1, 2, 3), keepdims=True)
    for ours, theirs in (
        (brighten(images, 1.3), 1.3 * pictures),
        (stretch(images, 0.6), 0.6 * pictures + 0.4 * mean),
        (stretch(images, 1.4), 1.4 * pictures - 0.4 * mean),
        (saturate(images, 0.5), 0.5 * pictures + 0.5 * grey),
        (saturate(images, 0.0), np.broadcast_to(grey, pictures.shape)),
    ):
        np.testing.assert_allclose(ours.numpy(), np.clip(theirs, 0, 1), atol=1e-6)


def test_jitter_is_a_function_of_its_generator_and_stays_in_range(images: torch.Tensor) -> None:
    def draw(seed: int) -> torch.Tensor:
        return ColourJitter()(images, torch.Generator().manual_seed(seed))

    assert torch.equal(draw(1), draw(1)) and not torch.equal(draw(1), draw(2))
    assert all(float(draw(seed).min()) >= 0 and float(draw(seed).max()) <= 1 for seed in range(20))
    still = ColourJitter(0, 0, 0, 0)(images, torch.Generator().manual_seed(1))
    torch.testing.assert_close(still, images, rtol=0, atol=2e-6)


def test_crops_reach_every_corner() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = {random_corner(256, 20, generator) for _ in range(400)}
    assert {top for top, _ in corners} == set(range(14)) and {left for _, left in corners} == {0, 1}
