"""numba's compiled code: where it is kept, and what becomes of a damaged file of it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from numba import config as numba_config

from vla_harness.envs import cache, compiling, renderer
from vla_harness.errors import UserError

SOURCE = "from numba import njit\n\n\n@njit(cache=True)\ndef twice(x):\n    return x + x\n"


def load(file: Path, name: str) -> Any:
    """Import ``file`` anew, as another process would."""
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A module whose function has been compiled and kept."""
    compiling.prepare_numba()
    file = tmp_path / "sums.py"
    file.write_text(SOURCE)
    assert load(file, "first").twice(21) == 42
    return file


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-1], lambda data: b"?" + data[1:]])
@pytest.mark.parametrize("kind", ["nbc", "nbi"])
def test_a_damaged_file_is_made_anew(kept: Path, kind: str, damage: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (file,) = (kept.parent / "__pycache__").glob(f"*.{kind}")
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    again = load(kept, "again")
    assert again.twice(4) == 8 and not again.twice.stats.cache_hits
    assert f"{file} is not what was written" in capsys.readouterr().err
    mended = load(kept, "mended")
    assert mended.twice(5) == 10 and mended.twice.stats.cache_hits
    assert capsys.readouterr().err == ""


def test_a_changed_bit_of_the_machine_code_is_not_run(kept: Path) -> None:
    (file,) = (kept.parent / "__pycache__").glob("*.nbc")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    again = load(kept, "again")
    assert again.twice(4) == 8 and not again.twice.stats.cache_hits


def test_without_a_place_that_can_be_written_a_temporary_folder_serves(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nowhere = tmp_path / "file"
    nowhere.touch()
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(numba_config, "CACHE_DIR", "")
    assert compiling.choose_numba_cache() == ""
    monkeypatch.setattr(compiling, "_sources", lambda: [nowhere])
    monkeypatch.setenv("XDG_CACHE_HOME", str(nowhere))
    told = compiling.choose_numba_cache()
    folder = Path(os.environ["NUMBA_CACHE_DIR"])
    assert str(folder) in told and folder.is_dir() and str(folder) == getattr(numba_config, "CACHE_DIR")  # noqa: B009 - set at run time
    assert compiling.choose_numba_cache() == ""  # and children take it over
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(nowhere))
    with pytest.raises(UserError, match=r"^NUMBA_CACHE_DIR is .*/file, where nothing can be written \("):
        compiling.choose_numba_cache()


def test_a_user_without_a_home_has_a_cache_for_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    folder = cache.cached_folder("tested", lambda place: (place / "there").touch())
    assert (folder / "there").exists()
    monkeypatch.setattr(cache.tempfile, "mkdtemp", lambda **_: (_ for _ in ()).throw(FileNotFoundError(2, "No place")))
    with pytest.raises(UserError, match=r"^There is no place for temporary files \(No place\): set TMPDIR"):
        cache.temporary_folder()


DRAW = """
import os, sys
{before}
import mujoco
from vla_harness.envs.gl import choose_gl_backend
choose_gl_backend()
from vla_harness.envs.renderer import Renderer
from vla_harness.errors import UserError
model = mujoco.MjModel.from_xml_string(
    '<mujoco><worldbody><light pos="0 0 3"/><geom size="0.3" group="1"/><camera pos="0 0 2"/></worldbody></mujoco>'
)
frame = Renderer(model).render(model.qpos0, 0, 16, 16)
assert frame.any()
{after}
"""

FORK = """
child = os.fork()
if child == 0:
    try:
        Renderer(model)
    except UserError as error:
        os._exit(7 if "spawn" in str(error) else 8)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""


def draw(before: str = "", after: str = "") -> None:
    """Draw in a process that imports mujoco before the GL backend is chosen, with nothing said in the environment."""
    environment = {key: value for key, value in os.environ.items() if key not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
    code = DRAW.format(before=before, after=after)
    answer = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr


def test_a_process_that_imported_mujoco_first_draws_and_one_forked_from_it_is_told_to_spawn() -> None:
    draw(after=FORK)


def test_where_no_context_can_be_made_a_sentence_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setattr(renderer, "import_module", lambda name: (_ for _ in ()).throw(ImportError("no device")))
    import mujoco

    with pytest.raises(UserError, match=r"ImportError: no device\): set MUJOCO_GL=egl and PYOPENGL_PLATFORM=egl"):
        renderer.Renderer(mujoco.MjModel.from_xml_string("<mujoco/>"))
