"""The stock benchmark is imported in silence, without torch, and without a trace outside the user's cache."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from vla_harness.envs.libero.stock import check_version, stock_files
from vla_harness.errors import UserError

IMPORT = (
    "import os, sys\n"
    "from pathlib import Path\n"
    "from vla_harness.envs.libero.stock import import_libero\n"
    "environments = import_libero(Path(sys.argv[1]))\n"
    "import libero.libero\n"
    "report = {\n"
    "    'class': environments.OffScreenRenderEnv.__name__,\n"
    "    'assets': libero.libero.get_assets_path(),\n"
    "    'bddl': libero.libero.get_libero_path('bddl_files'),\n"
    "    'heavy': sorted({'torch', 'libero.libero.benchmark', 'transformers'} & set(sys.modules)),\n"
    "    'cuda': os.environ['CUDA_VISIBLE_DEVICES'],\n"
    "    'config': os.environ.get('LIBERO_CONFIG_PATH'),\n"
    "}\n"
    "print(report)\n"
)


def start_import(home: Path, assets: Path) -> subprocess.Popen[str]:
    """Import in a fresh process with an empty home and a closed standard input."""
    kept = {key: value for key, value in os.environ.items() if key not in ("LIBERO_CONFIG_PATH", "XDG_CACHE_HOME")}
    return subprocess.Popen(
        [sys.executable, "-c", IMPORT, str(assets)],
        # robosuite refuses this pair when it sees it: a device index that is none of CUDA's
        env={**kept, "HOME": str(home), "CUDA_VISIBLE_DEVICES": "3", "MUJOCO_EGL_DEVICE_ID": "0"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_import_at_once_without_a_question_or_a_word(tmp_path: Path) -> None:
    for child in [start_import(tmp_path, tmp_path) for _ in range(2)]:
        output, errors = child.communicate(timeout=120)
        assert child.returncode == 0 and errors == ""
        assert eval(output) == {
            "class": "OffScreenRenderEnv",
            "assets": str(tmp_path),
            "bddl": str(stock_files() / "bddl_files"),
            "heavy": [],
            "cuda": "3",
            "config": None,
        }
    assert not (tmp_path / ".libero").exists()
    assert len(list(tmp_path.glob(".cache/vla_harness/libero-*/config.yaml"))) == 1
    assert len(list(tmp_path.glob(".cache/vla_harness/*/*"))) == 1


def test_a_home_that_cannot_be_written_to_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".cache").write_text("a file where a folder would be needed")
    output, _ = start_import(tmp_path, tmp_path).communicate(timeout=120)
    assert "OffScreenRenderEnv" in output


def test_the_stock_files_are_found_without_an_import() -> None:
    assert len(list((stock_files() / "bddl_files/libero_90").glob("*.bddl"))) == 90
    assert (stock_files() / "init_files/libero_spatial").is_dir()


@pytest.mark.parametrize("found", ["3.4.0", None])
def test_another_mujoco_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch, found: str | None) -> None:
    def version(name: str) -> str:
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(UserError, match=rf"mujoco 3\.3\.2, .*{found or 'not installed'}.*pip install mujoco==3\.3\.2"):
        check_version("mujoco")
