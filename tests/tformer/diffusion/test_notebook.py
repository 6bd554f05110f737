"""The notebook runs from top to bottom and shows what its text says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
import pytest

NOTEBOOK = Path(__file__).parents[3] / "docs" / "tformer" / "diffusion.ipynb"


def test_the_notebook_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    names: dict[str, Any] = {}
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), NOTEBOOK.name, "exec"), names)

    assert names["right"][-1][1] > 0.8 and names["wrong"][-1][1] < 0.6, "of the noise that x should hold"
    losses = names["losses"]
    assert sum(losses[-20:]) < 0.6 * sum(losses[:20])
    assert names["verdict"].straight < 0.15 and 0.3 < names["verdict"].right < 0.7
