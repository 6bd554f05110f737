"""PNG and JPEG pictures from bytes that strangers sent. Pillow is imported when the first one comes."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from .arrays import WireError

MAX_PIXELS = 4096 * 4096


class EncodedPicture(Exception):
    """A picture has to be decoded, which is not to be done here."""


class PixelBudget:
    """Most pixels of all images of a message together: a few kilobytes of PNG can hold gigabytes of black.

    decode: False raises EncodedPicture for what would have to be decoded.
    """

    def __init__(self, pixels: int = MAX_PIXELS, decode: bool = True) -> None:
        self._left, self.decode = pixels, decode

    def spend(self, width: int, height: int) -> None:
        """Take an image's pixels off; raises WireError when they are more than what is left."""
        if width * height > self._left:
            raise WireError(
                f"A picture has {width} x {height} pixels, and at most {self._left} are taken"
                f"{'' if self._left == MAX_PIXELS else ' beside the others of its message'}."
            )
        self._left -= width * height


def read_picture(data: Any, budget: PixelBudget) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB of a PNG's or JPEG's bytes; grey is repeated, transparency dropped. WireError."""
    if not isinstance(data, bytes):
        raise WireError(f"A picture is {type(data).__name__}: send the bytes of a PNG or JPEG file.")
    if not budget.decode:
        raise EncodedPicture
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as picture:
            budget.spend(*picture.size)  # before anything is unpacked
            return np.array(picture.convert("RGB"))
    except WireError:
        raise
    except Exception:  # Pillow's decoders raise OSError, SyntaxError, struct.error, zlib.error and more on bad bytes
        raise WireError("A picture's bytes are no PNG or JPEG file, or a damaged one.") from None
