"""Numbers of NVIDIA's own code on a tiny checkpoint; tests/data/groot/README.md says how they were made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

DATA = Path(__file__).parents[2] / "data/groot"
CHECKPOINT, TOKENIZER = str(DATA / "checkpoint"), str(DATA / "tokenizer")
LONG_STEP = 8
"""Of the long sequences, every eighth token is kept."""


class Goldens:
    """The arrays of one file, as tensors or as they are."""

    def __init__(self, name: str) -> None:
        with np.load(DATA / f"{name}.npz") as file:
            self.arrays: dict[str, np.ndarray] = dict(file)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def tensor(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self.arrays[name])

    def under(self, prefix: str) -> dict[str, np.ndarray]:
        """Return what begins with ``prefix``, by the rest of the name."""
        return {name.removeprefix(prefix): array for name, array in self.arrays.items() if name.startswith(prefix)}


def summary() -> dict[str, Any]:
    return json.loads((DATA / "summary.json").read_text(encoding="utf-8"))


INSTRUCTIONS = {
    "a": summary()["a"]["instruction"],
    "b": summary()["b"]["instruction"],
    "c": summary()["c"]["instructions"][1],
}
LANGUAGE = {"a": "annotation.human.task_description", "b": "annotation.human.coarse_action"}
LANGUAGE["c"] = LANGUAGE["a"]


def observation(cases: Goldens, case: str) -> dict[str, Any]:
    """Return what the reference's ``get_action`` was given in a case: a, b or c."""
    return {**cases.under(f"{case}.obs."), LANGUAGE[case]: [INSTRUCTIONS[case]]}
