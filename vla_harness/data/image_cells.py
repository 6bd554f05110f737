"""Images that lie in a table's cells, encoded."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from ..errors import UserError

COLORS = ("RGB", "RGBA", "RGBX", "L", "LA", "P", "1")
"""Pillow's names of what 8-bit colors can be made of without a loss but alpha's."""


FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM", "GIF")
"""What is read; decoders of other formats run programs, or are seldom tried."""


def open_image(cell: Any, shape: tuple[int, ...], where: str) -> Image.Image:
    """Return the image of ``cell``, of which only the header is read yet.

    shape: (height, width, …) that the image must have. where: for messages. Raises UserError for a missing or damaged
    image and for another size.
    """
    data = cell.get("bytes") if isinstance(cell, dict) else None
    if not isinstance(data, bytes):
        raise UserError(f"{where} has no image: mend or drop the episode.")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception as error:  # whatever a damaged header makes Pillow raise
        raise UserError(f"{where} has an image that cannot be read ({_reason(error)}): copy the file again.") from None
    if (image.height, image.width) != shape[:2]:
        raise UserError(
            f"{where} has an image of {image.height} x {image.width} pixels, and meta/info.json says {shape[0]} x"
            f" {shape[1]}: mend the one or the other."
        )
    return image


def raw_image(cell: Any, shape: tuple[int, ...], where: str) -> np.ndarray:
    """Return the image of ``cell`` as it is stored, (height, width[, channels]). Raises UserError as ``open_image``."""
    return np.asarray(_loaded(cell, shape, where))


def color_image(cell: Any, shape: tuple[int, ...], where: str) -> np.ndarray:
    """Return the (height, width, 3) uint8 image of ``cell``; gray is repeated, and alpha has no part in it.

    Raises UserError as ``open_image``, and for depth and other numbers that are no colors.
    """
    image = _loaded(cell, shape, where)
    if image.mode not in COLORS:
        raise UserError(
            f"{where} has an image of the kind {image.mode}, such as depth, which is no color image: choose another"
            " camera."
        )
    return np.asarray(image.convert("RGB"))


def _loaded(cell: Any, shape: tuple[int, ...], where: str) -> Image.Image:
    image = open_image(cell, shape, where)
    try:
        image.load()
        return image
    except Exception as error:  # whatever damaged data make Pillow raise
        raise UserError(f"{where} has an image that cannot be read ({_reason(error)}): copy the file again.") from None


def _reason(error: Exception) -> str:
    return str(error).split(" <")[0].splitlines()[0] if str(error) else type(error).__name__
