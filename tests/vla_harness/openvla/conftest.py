"""The tiny checkpoint, written once, and the reference's numbers for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.vla_harness.openvla.tiny_checkpoint import DATA, write_tiny_checkpoint


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
