"""Draws the stand-ins' textures and labels from their descriptions in ``materials.toml``."""

from __future__ import annotations

import zlib
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .meshes import LABEL_WIDTH


def texture(name: str, spec: dict[str, Any]) -> Image.Image:
    """Return a surface that repeats without a seam. The same name and description give the same picture."""
    size = spec["size"]
    random = np.random.default_rng(zlib.crc32(name.encode()))
    shade = np.zeros((size, size))
    if "noise" in spec:
        shade += spec["noise"] * _blotches(random, size)
    if "grain" in spec:
        strength, length = spec["grain"]
        shade += strength * _streaks(random, size, length)
    picture = np.broadcast_to(shade[:, :, None], (size, size, 3)) + np.array(_rgb(spec["colour"]), np.float64)
    if "boards" in spec:
        rows, per_row = spec["boards"]
        picture = _with_boards(random, picture, rows, per_row, _rgb(spec["joint"]))
    if "tiles" in spec:
        rows, columns = spec["tiles"]
        picture = picture.copy()
        picture[(np.arange(rows) * size) // rows] = _rgb(spec["joint"])
        picture[:, (np.arange(columns) * size) // columns] = _rgb(spec["joint"])
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))


def label(spec: dict[str, Any]) -> Image.Image:
    """Return a label, with the plain strip of a carton's narrow faces on its right if it has one."""
    width, height = spec["size"]
    picture = Image.new("RGB", (width, height), spec.get("side", spec["ground"]))
    inside = round(width * LABEL_WIDTH) if "side" in spec else width
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, inside - 1, height), fill=spec["ground"])

    def pixels(box: list[float]) -> list[float]:
        return [value * (inside - 1 if k % 2 == 0 else height) / 100 for k, value in enumerate(box)]

    for kind, box, *rest in spec["marks"]:
        if kind == "rectangle":
            draw.rectangle(pixels(box), fill=rest[0])
        elif kind == "disc":
            draw.ellipse(pixels(box), fill=rest[0])
        else:
            x, y = pixels(box[:2])
            font = ImageFont.load_default(size=box[2] * height / 100)
            draw.text((x, y), rest[0], fill=rest[1], font=font, anchor="mm", stroke_width=1, stroke_fill=rest[1])
    return picture


def _blotches(random: np.random.Generator, size: int) -> NDArray[np.float64]:
    """Return smooth noise, (size, size), standard deviation 1, as waves of one to eight periods."""
    rows, columns = np.mgrid[:size, :size] * (2 * np.pi / size)
    total = np.zeros((size, size))
    for _ in range(40):
        down, right = random.integers(-8, 9, 2)
        total += np.cos(down * rows + right * columns + random.uniform(0, 2 * np.pi)) / (1 + np.hypot(down, right))
    return total / total.std()


def _streaks(random: np.random.Generator, size: int, length: int) -> NDArray[np.float64]:
    """Return noise drawn out along x over ``length`` pixels, (size, size), standard deviation 1."""
    frequency = np.fft.fftfreq(size) * length
    noise = np.fft.fft2(random.standard_normal((size, size))) * np.exp(-(frequency**2))
    streaks = np.real(np.fft.ifft2(noise))
    return streaks / streaks.std()


def _with_boards(
    random: np.random.Generator, picture: NDArray[np.float64], rows: int, per_row: int, joint: tuple[int, int, int]
) -> NDArray[np.float64]:
    """Cut the picture into boards of slightly different brightness with joints between them."""
    size = len(picture)
    out = picture.copy()
    edges = [size * row // rows for row in range(rows + 1)]
    for top, bottom in pairwise(edges):
        ends = (random.integers(size) + np.arange(per_row) * size // per_row) % size
        board = np.searchsorted(np.sort(ends), np.arange(size)) % per_row
        out[top:bottom] += random.uniform(-7, 7, per_row)[board][None, :, None]
        out[top:bottom, ends] = joint
        out[top] = joint
    return out


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
