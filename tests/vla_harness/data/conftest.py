from __future__ import annotations

from pathlib import Path

import pytest

from tests.vla_harness.data import public
from tests.vla_harness.data import recorded as toy
from vla_harness.data import convert_dataset, open_dataset


@pytest.fixture(scope="session")
def v21(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy dataset as written; not to be changed."""
    return toy.record(tmp_path_factory.mktemp("data") / "v21")


@pytest.fixture(scope="session")
def v30(v21: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy dataset converted to v3.0; not to be changed."""
    return convert_dataset(open_dataset(v21), tmp_path_factory.mktemp("data") / "v30", "v3.0").path


@pytest.fixture(scope="session")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Demonstrations in the harness's terms; not to be changed."""
    return public.write(tmp_path_factory.mktemp("data") / "own", "own")
