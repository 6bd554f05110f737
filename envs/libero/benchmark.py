"""The benchmark's suites as data: tasks in the benchmark's order, their instructions, files and initial states."""

from __future__ import annotations

import importlib.util
import io
import pickle
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_harness.errors import UserError

from .. import SUITES
from .stock import stock_files


@dataclass(frozen=True)
class LiberoTask:
    """One task of a suite.

    task_id: position in the benchmark's own order. name: the file name without its ending. instruction: in words.
    bddl_file: the task's description. initial_states_file: 50 stored simulator states.
    """

    task_id: int
    name: str
    instruction: str
    bddl_file: Path
    initial_states_file: Path


@cache
def suite_tasks(suite: str) -> tuple[LiberoTask, ...]:
    """Return the tasks of "spatial", "object", "goal", "10" or "90" in the benchmark's default order."""
    if suite not in SUITES:
        raise UserError(f"There is no LIBERO suite {suite!r}: choose one of {', '.join(SUITES)}.")
    root, folder = stock_files(), f"libero_{suite}"
    # The list is a module of data; importing it through its package would import torch.
    path = root / "benchmark" / "libero_suite_task_map.py"
    spec = importlib.util.spec_from_file_location("libero_suite_task_map", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return tuple(
        LiberoTask(
            task_id,
            name,
            _instruction(name),
            root / "bddl_files" / folder / f"{name}.bddl",
            root / "init_files" / folder / f"{name}.pruned_init",
        )
        for task_id, name in enumerate(module.libero_task_map[folder])
    )


def _instruction(name: str) -> str:
    """Return the words of a task's name, without the scene prefix that libero_10 and libero_90 put before them."""
    if name[0].isupper():
        name = name.partition("SCENE")[2].partition("_")[2]
    return name.replace("_", " ")


def initial_states(task: LiberoTask) -> NDArray[np.float64]:
    """Return the task's stored initial states, (50, 1 + nq + nv) float64: [time, qpos, qvel] each.

    The files are ``torch.save`` archives of a pickled numpy array; only what such an array needs may be unpickled.
    """
    with zipfile.ZipFile(task.initial_states_file) as archive:
        member = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        states = _ArrayUnpickler(io.BytesIO(archive.read(member))).load()
    return np.asarray(states, np.float64)


class _ArrayUnpickler(pickle.Unpickler):
    """Reads numpy arrays and nothing else."""

    _allowed = {
        ("numpy.core.multiarray", "_reconstruct"): ("numpy._core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"): ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"): ("numpy", "ndarray"),
        ("numpy", "dtype"): ("numpy", "dtype"),
        ("_codecs", "encode"): ("_codecs", "encode"),
    }

    def find_class(self, module_name: str, global_name: str) -> Any:
        """Resolve an allowed name; UserError for any other."""
        allowed = self._allowed.get((module_name, global_name))
        if allowed is None:
            raise UserError(
                f"The file of initial states refers to {module_name}.{global_name}, which is not part of an array: "
                "install hf-libero 0.1.4 again."
            )
        return super().find_class(*allowed)
