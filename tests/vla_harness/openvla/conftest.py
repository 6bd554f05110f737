"""The tiny checkpoint, written once, and the reference's numbers for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.vla_harness.openvla.tiny_checkpoint import DATA, write_tiny_checkpoint
from vla_harness.checkpoints import find_checkpoint
from vla_harness.policies.openvla.images import PixelNormalisation, plain_image
from vla_harness.policies.openvla.prompt import Prompt


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the folder of the tiny checkpoint, sharded."""
    return str(write_tiny_checkpoint(tmp_path_factory.mktemp("openvla")))


@pytest.fixture(scope="session")
def goldens() -> Mapping[str, np.ndarray]:
    """Return the reference's arrays; tests/data/openvla/README.md names them."""
    return dict(np.load(DATA / "goldens.npz"))


@pytest.fixture(scope="session")
def facts() -> Mapping[str, Any]:
    """Return the reference's instructions and prompts, and hashes of arrays that are too large to store."""
    return json.loads((Path(DATA) / "goldens.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def pixels(tiny: str, goldens: Mapping[str, np.ndarray]) -> torch.Tensor:
    """Return the four images as the network reads them, by the plain path."""
    preprocessor = find_checkpoint(tiny).json("preprocessor_config.json")
    return PixelNormalisation(preprocessor, torch.device("cpu"))(np.stack(list(map(plain_image, goldens["images"]))))


@pytest.fixture(scope="session")
def prompts(tiny: str, facts: Mapping[str, Any]) -> list[list[int]]:
    """Return the tokens of the four prompts."""
    prompt = Prompt(find_checkpoint(tiny))
    return [prompt.tokens(instruction) for instruction in facts["instructions"]]
