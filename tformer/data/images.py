"""Small labelled images for the diffusion models: digits, sprites, and files in MNIST's or numpy's format."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..errors import UserError
from .sprites import NAMES, draw_sprites

Source = Literal["sprites", "digits", "mnist", "npy"]
HELD_OUT = 0.1  # of the images, for the validation loss and for judging samples


@dataclass(frozen=True)
class ImageSet:
    """images: (N, C, S, S) float32 in -1 … 1. contexts: (N, K) float32 weights of the ``names``, one-hot as a rule."""

    images: Tensor
    contexts: Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def split(self, held_out: float, seed: int = 0) -> tuple[ImageSet, ImageSet]:
        """Return two sets that share no image: the larger to train on, and the share ``held_out``."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))  # (N,)
        cut = max(1, round(len(self) * held_out))
        return self.select(order[cut:]), self.select(order[:cut])

    def select(self, rows: Tensor) -> ImageSet:
        """Return the images at ``rows``, indices (M,)."""
        return ImageSet(self.images[rows], self.contexts[rows], self.names)


def load_images(source: Source, path: Path | None = None) -> ImageSet:
    """Return the images of ``source``. Raises UserError where they cannot be had.

    sprites: drawn here. digits: scikit-learn's 1,797 digits of 8×8. mnist: ``path`` is a folder with MNIST's idx files,
    packed or not. npy: ``path`` is an array (N, S, S), (N, S, S, C) of uint8 or floats in 0 … 1; the labels lie beside
    it in NAME_labels.npy, (N,) whole numbers or (N, K) weights, and their names in NAME_names.txt if they have any.
    """
    if source == "sprites":
        images, labels = draw_sprites()
        return ImageSet(_scaled(images, 255), _one_hot(labels, len(NAMES)), NAMES)
    if source == "digits":
        return _digits()
    if path is None:
        raise UserError(f"--data {source} is read from files; say where with --path.")
    return _mnist(path) if source == "mnist" else _npy(path)


def parse_context(text: str, names: tuple[str, ...]) -> Tensor:
    """Return the weights (K,) that ``text``, such as "hero=1,food=0.6" or "hero", gives to ``names``; "" gives none."""
    weights = torch.zeros(len(names))
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, weight = part.partition("=")
        if name not in names:
            raise UserError(f"the model knows no context {name!r}; it knows {', '.join(names)}.")
        try:
            weights[names.index(name)] = float(weight or 1)
        except ValueError:
            raise UserError(f"the weight of context {name} is {weight!r}; give a number, such as {name}=0.6.") from None
    return weights


def _digits() -> ImageSet:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError("the digits come with scikit-learn; pip install scikit-learn, or use --data sprites.") from None
    bunch = load_digits()
    return ImageSet(_scaled(bunch.images, 16), _one_hot(bunch.target, 10), tuple("0123456789"))


def _mnist(folder: Path) -> ImageSet:
    images, labels = _idx(folder, "train-images-idx3-ubyte"), _idx(folder, "train-labels-idx1-ubyte")
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels) or labels.max() > 9:
        raise UserError(f"the images and labels in {folder} do not belong together; fetch MNIST's files again.")
    return ImageSet(_scaled(images, 255), _one_hot(labels, 10), tuple("0123456789"))


def _idx(folder: Path, name: str) -> np.ndarray:
    """Read an array in the format of http://yann.lecun.com/exdb/mnist: type, dimensions, sizes, bytes."""
    for path in (folder / name, folder / f"{name}.gz", folder / name.replace("-idx", ".idx")):
        if path.is_file():
            break
    else:
        raise UserError(f"{folder} holds no {name} or {name}.gz; --path names the folder with MNIST's files.")
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        dimensions = content[3]
        shape = np.frombuffer(content, ">u4", dimensions, offset=4)
        if content[:3] != b"\0\0\x08":
            raise ValueError
        return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    except (OSError, EOFError, ValueError, IndexError):
        raise UserError(f"{path} is no idx file of bytes or is cut short; fetch it again.") from None


def _npy(path: Path) -> ImageSet:
    labels_path = path.with_name(f"{path.stem}_labels.npy")
    images, labels = _array(path), _array(labels_path)
    if images.ndim not in (3, 4) or images.shape[1] != images.shape[2] or not len(images):
        raise UserError(f"{path} has shape {images.shape}; square images are (N, S, S) or (N, S, S, C).")
    if len(labels) != len(images) or labels.ndim not in (1, 2):
        raise UserError(
            f"{labels_path} has shape {labels.shape}; {len(images)} images need ({len(images)},) or (…, K)."
        )
    if labels.ndim == 1 and (labels.min() < 0 or not np.array_equal(labels, labels.astype(np.int64))):
        raise UserError(f"the labels in {labels_path} are not whole numbers from 0 up.")
    contexts = _one_hot(labels, int(labels.max()) + 1) if labels.ndim == 1 else torch.from_numpy(labels).float()
    names_path = path.with_name(f"{path.stem}_names.txt")
    names = names_path.read_text().split() if names_path.is_file() else [str(i) for i in range(contexts.size(1))]
    if len(names) != contexts.size(1):
        raise UserError(f"{names_path} has {len(names)} names; the labels have {contexts.size(1)}.")
    return ImageSet(_scaled(images, 255 if images.dtype == np.uint8 else 1), contexts, tuple(names))


def _array(path: Path) -> np.ndarray:
    try:
        array = np.load(path)
    except FileNotFoundError:
        raise UserError(f"there is no {path}; --data npy reads NAME.npy and NAME_labels.npy.") from None
    except (OSError, ValueError, EOFError):
        raise UserError(f"{path} is no numpy array of numbers or is damaged; save it again with numpy.save.") from None
    return array


def _scaled(images: np.ndarray, largest: float) -> Tensor:
    """Return (N, S, S) or (N, S, S, C) numbers in 0 … largest as (N, C, S, S) in -1 … 1."""
    if images.ndim == 3:
        images = images[..., None]
    if images.min() < 0 or images.max() > largest:
        raise UserError(
            f"the images' values go from {images.min()} to {images.max()}; give uint8, or floats in 0 to 1."
        )
    return torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32)) / largest * 2 - 1


def _one_hot(labels: np.ndarray, count: int) -> Tensor:
    return functional.one_hot(torch.from_numpy(labels.astype(np.int64)), count).float()
