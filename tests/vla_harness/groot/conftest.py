"""The tiny checkpoint, opened once; tests that change its weights open their own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.vla_harness.groot.goldens import CHECKPOINT, TOKENIZER, Goldens
from vla_harness.policies.groot.assembly import GrootParts, open_groot


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cases() -> Goldens:
    return Goldens("cases")


@pytest.fixture(scope="session")
def opened() -> Callable[[str], GrootParts]:
    """Returns the parts of a case's embodiment, opened at its first use."""
    kept: dict[str, GrootParts] = {}

    def of(case: str) -> GrootParts:
        embodiment, config = ("gr1", "fourier_gr1_arms_waist") if case == "b" else ("new_embodiment", "so100_dualcam")
        if config not in kept:
            kept[config] = open_groot(CHECKPOINT, TOKENIZER, embodiment, config, "fp32", "cpu")
        return kept[config]

    return of
