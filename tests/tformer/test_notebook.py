"""The transformer's notebook runs from top to bottom, and its models learn what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "tformer" / "transformer.ipynb"


def test_the_notebook_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    names: dict[str, Any] = {}
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), NOTEBOOK.name, "exec"), names)

    assert names["losses"][-1] < 0.65 * names["losses"][0]
    assert (names["whole"] - names["steps"]).abs().max() < 1e-4
    assert names["share_sorted"] > 0.5
    assert names["copied"] > 0.7 and names["followed"] > 0.7
