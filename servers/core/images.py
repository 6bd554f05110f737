"""Frames of another size than the policy wants."""

from __future__ import annotations

import numpy as np
from PIL import Image


def fit(frame: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """Return (H, W, 3) uint8 ``frame`` at ``size`` (height, width): scaled as a whole and padded with black.

    As openpi-client's ``resize_with_pad``: bilinear, proportions kept, the frame in the middle. Frames of that size,
    and all frames when ``size`` is None, come back as they are.
    """
    if size is None or frame.shape[:2] == size:
        return frame
    height, width = size
    ratio = max(frame.shape[1] / width, frame.shape[0] / height)
    inner_height, inner_width = max(1, int(frame.shape[0] / ratio)), max(1, int(frame.shape[1] / ratio))
    inner = np.asarray(Image.fromarray(frame).resize((inner_width, inner_height), Image.Resampling.BILINEAR))
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    padded = np.zeros((height, width, 3), np.uint8)
    padded[top : top + inner_height, left : left + inner_width] = inner
    return padded
