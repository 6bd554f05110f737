"""PNG and JPEG pictures from bytes that strangers sent. Pillow is imported when the first one comes."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from .arrays import WireError

MAX_PIXELS = 4096 * 4096


class PixelBudget:
    """Most pixels of all pictures of a message together: a few kilobytes of PNG can hold gigabytes of black."""

    def __init__(self, pixels: int = MAX_PIXELS) -> None:
        self._left = pixels

    def spend(self, width: int, height: int) -> None:
        """Take a picture's pixels off; raises WireError when they are more than what is left."""
        if width * height > self._left:
            raise WireError(f"A picture has {width} x {height} pixels, and at most {self._left} are taken.")
        self._left -= width * height


def read_picture(data: Any, budget: PixelBudget) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB of a PNG's or JPEG's bytes; grey is repeated, transparency dropped. WireError."""
    from PIL import Image

    if not isinstance(data, bytes):
        raise WireError(f"A picture is {type(data).__name__}: send the bytes of a PNG or JPEG file.")
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as picture:
            budget.spend(*picture.size)  # before anything is unpacked
            return np.array(picture.convert("RGB"))
    except WireError:
        raise
    except Exception:  # Pillow's decoders raise OSError, SyntaxError, struct.error, zlib.error and more on bad bytes
        raise WireError("A picture's bytes are no PNG or JPEG file, or a damaged one.") from None
