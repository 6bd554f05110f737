"""Reading and drawing labelled images."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from tformer.data.images import Source, load_images, parse_context
from tformer.data.sprites import NAMES, draw_sprites
from tformer.errors import UserError


def test_sprites_are_drawn_alike_from_a_seed() -> None:
    images, labels = draw_sprites(100, seed=3)
    again, _ = draw_sprites(100, seed=3)
    other, _ = draw_sprites(100, seed=4)
    assert images.shape == (100, 16, 16, 3) and images.dtype == np.uint8
    assert np.bincount(labels).tolist() == [20] * 5
    assert np.array_equal(images, again) and not np.array_equal(images, other)
    assert len(np.unique(images.reshape(100, -1), axis=0)) > 90


def test_a_linear_map_tells_the_sprites_classes_apart() -> None:
    """They are no noise: a ridge regression on 800 names most of 200 others."""
    images, labels = draw_sprites(1000, seed=0)
    x = torch.from_numpy(images.reshape(1000, -1) / 255)  # (1000, 768)
    wanted = torch.eye(5, dtype=x.dtype)[torch.from_numpy(labels)]  # (1000, 5)
    square = x[:800].T @ x[:800] + 10 * torch.eye(768)  # (768, 768)
    answers = x[800:] @ torch.linalg.solve(square, x[:800].T @ wanted[:800])  # (200, 5)
    assert (answers.argmax(1).numpy() == labels[800:]).mean() > 0.9


@pytest.mark.parametrize(("source", "shape", "names"), [("sprites", (3, 16, 16), NAMES), ("digits", (1, 8, 8), None)])
def test_offline_sets(source: Source, shape: tuple[int, ...], names: tuple[str, ...] | None) -> None:
    data = load_images(source)
    assert data.images.shape[1:] == shape and data.images.dtype == torch.float32
    assert -1 <= data.images.min() < -0.9 and data.images.max() == 1
    assert torch.equal(data.contexts.sum(1), torch.ones(len(data)))
    assert data.names == (names or tuple("0123456789"))

    training, held_out = data.split(0.1)
    assert len(training) + len(held_out) == len(data) and len(held_out) == round(len(data) / 10)
    again, _ = data.split(0.1)
    assert torch.equal(training.images, again.images)


def write_mnist(folder: Path, packed: bool) -> np.ndarray:
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28)).astype(np.uint8)
    parts = {
        "train-images-idx3-ubyte": bytes([0, 0, 8, 3]) + np.array(images.shape, ">u4").tobytes() + images.tobytes(),
        "train-labels-idx1-ubyte": bytes([0, 0, 8, 1]) + np.array([5], ">u4").tobytes() + bytes([3, 1, 4, 1, 5]),
    }
    for name, content in parts.items():
        path = folder / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(content) if packed else content)
    return images


@pytest.mark.parametrize("packed", [True, False])
def test_mnist_files(tmp_path: Path, packed: bool) -> None:
    images = write_mnist(tmp_path, packed)
    data = load_images("mnist", tmp_path)
    assert data.images.shape == (5, 1, 28, 28)
    np.testing.assert_allclose((data.images[:, 0].numpy() + 1) * 127.5, images, atol=1e-4)
    assert data.contexts.argmax(1).tolist() == [3, 1, 4, 1, 5]


def test_npy_files_with_weights_and_names(tmp_path: Path) -> None:
    images, labels = draw_sprites(10)
    np.save(tmp_path / "mine.npy", images)
    np.save(tmp_path / "mine_labels.npy", np.eye(5)[labels])
    (tmp_path / "mine_names.txt").write_text("a b c d e\n")
    data = load_images("npy", tmp_path / "mine.npy")
    assert data.names == ("a", "b", "c", "d", "e")
    assert data.contexts.argmax(1).tolist() == labels.tolist()
    np.save(tmp_path / "mine.npy", images / 255)
    torch.testing.assert_close(load_images("npy", tmp_path / "mine.npy").images, data.images)


def test_a_context_is_parsed_into_weights() -> None:
    names = ("hero", "food", "spell")
    assert torch.equal(parse_context("hero=1,food=0.6", names), torch.tensor([1, 0.6, 0]))
    assert torch.equal(parse_context(" spell ", names), torch.tensor([0, 0, 1.0]))
    assert torch.equal(parse_context("", names), torch.zeros(3))
    with pytest.raises(UserError, match="no context 'dragon'; it knows hero, food, spell"):
        parse_context("dragon=1", names)
    with pytest.raises(UserError, match="weight of context food is 'much'"):
        parse_context("food=much", names)


def save(folder: Path, images: object, labels: object) -> Path:
    np.save(folder / "x.npy", np.asarray(images))
    np.save(folder / "x_labels.npy", np.asarray(labels))
    return folder / "x.npy"


def test_files_that_do_not_fit_are_refused_in_a_sentence(tmp_path: Path) -> None:
    square = np.zeros((2, 4, 4), np.uint8)
    with pytest.raises(UserError, match="say where with --path"):
        load_images("mnist")
    with pytest.raises(UserError, match="holds no train-images-idx3-ubyte"):
        load_images("mnist", tmp_path)
    with pytest.raises(UserError, match="there is no "):
        load_images("npy", tmp_path / "none.npy")
    for images, labels, complaint in (
        (np.zeros((2, 4, 5), np.uint8), [0, 1], r"\(2, 4, 5\); square images"),
        (square, [0, 1, 2], r"2 images need \(2,\)"),
        (square, [0.5, 1], "not whole numbers"),
        (square + 7.5, [0, 1], "values go from 7.5"),
    ):
        with pytest.raises(UserError, match=complaint):
            load_images("npy", save(tmp_path, images, labels))
    path = save(tmp_path, square, [0, 1])
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UserError, match="damaged"):
        load_images("npy", path)
    write_mnist(tmp_path, packed=False)
    cut = tmp_path / "train-images-idx3-ubyte"
    cut.write_bytes(cut.read_bytes()[:100])
    with pytest.raises(UserError, match="cut short"):
        load_images("mnist", tmp_path)
