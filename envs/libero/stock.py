"""Makes the stock benchmark (hf-libero on robosuite) importable: without questions, downloads or noise.

``libero.libero`` asks a question on standard input at its first import unless a configuration file exists, downloads
meshes when it does not find them, and robosuite prints advice and opens ``/tmp/robosuite.log`` (which fails when
another user owns it). All of that is decided by settings that both packages read while they are imported; this module
sets them and changes nothing in their code.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType

from vla_harness.errors import UserError

from ..cache import cached_folder
from ..compiling import prepare_numba

REQUIRED_VERSIONS = {"mujoco": "3.3.2", "robosuite": "1.4.0", "hf-libero": "0.1.4", "bddl": "1.0.1"}
"""Other releases change contacts or pixels, and with them the scores (mujoco 3.4.0 moves the stored initial states)."""

INSTALL_COMMANDS = {
    "mujoco": "pip install mujoco==3.3.2",
    **dict.fromkeys(
        ("robosuite", "hf-libero", "bddl"), "pip install --no-deps hf-libero==0.1.4 robosuite==1.4.0 bddl==1.0.1"
    ),
}
"""``--no-deps``: the packages declare torchvision, robomimic, wandb and others that the environments never import."""


def check_version(distribution: str) -> str:
    """Return the installed version of one of ``REQUIRED_VERSIONS``; UserError unless it is the required one."""
    required = REQUIRED_VERSIONS[distribution]
    try:
        installed = metadata.version(distribution)
    except metadata.PackageNotFoundError:
        installed = "not installed"
    if installed != required:
        raise UserError(
            f"The benchmarks' scores hold for {distribution} {required}, which is {installed} here: "
            f"run `{INSTALL_COMMANDS[distribution]}`."
        )
    return installed


def import_libero(assets: Path) -> ModuleType:
    """Import the stock environments and return the module ``libero.libero.envs``.

    assets: folder of the benchmark's meshes and textures, used by every environment built from now on in this process.
    Call ``envs.gl.choose_gl_backend`` before, in the same process or a parent. Neither torch nor
    ``libero.libero.benchmark`` is imported. Raises UserError when a package is missing or has another version.
    """
    for distribution in REQUIRED_VERSIONS:
        check_version(distribution)
    with quiet_robosuite(), _private_libero_configuration():
        package = import_module("libero.libero")
        envs = import_module("libero.libero.envs")
    package._assets_path_cache = str(assets)  # type: ignore[attr-defined]  # read by libero's get_assets_path()
    return envs


def stock_files() -> Path:
    """Return the folder of the installed package that holds ``bddl_files`` and ``init_files``, importing nothing."""
    spec = importlib.util.find_spec("libero")
    if spec is None or not spec.submodule_search_locations:
        check_version("hf-libero")
        raise UserError(f"The package libero is not importable: run `{INSTALL_COMMANDS['hf-libero']}`.")
    return Path(next(iter(spec.submodule_search_locations))) / "libero"


@contextlib.contextmanager
def _private_libero_configuration() -> Iterator[None]:
    """Let libero read a configuration of ours while it is imported; ``~/.libero`` is neither read nor written."""
    before = os.environ.get("LIBERO_CONFIG_PATH")
    os.environ["LIBERO_CONFIG_PATH"] = str(_configuration_folder())
    try:
        yield
    finally:
        if before is None:
            del os.environ["LIBERO_CONFIG_PATH"]
        else:
            os.environ["LIBERO_CONFIG_PATH"] = before


def _configuration_folder() -> Path:
    """Return a folder with libero's ``config.yaml``: one per installation, shared by all processes of a user."""
    root = stock_files()
    folders = {"bddl_files": "bddl_files", "init_states": "init_files", "datasets": "../datasets", "assets": "assets"}
    # JSON is YAML.
    text = json.dumps({"benchmark_root": str(root), **{key: str(root / value) for key, value in folders.items()}})
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return cached_folder(f"libero-{digest}", lambda folder: (folder / "config.yaml").write_text(text, "utf-8"))


@contextlib.contextmanager
def quiet_robosuite() -> Iterator[None]:
    """Give robosuite's settings module our values before robosuite's first import reads them.

    Logging: errors on the console only, no ``/tmp/robosuite.log``. CUDA_VISIBLE_DEVICES is hidden for the moment of the
    import because robosuite compares its numbers with MUJOCO_EGL_DEVICE_ID, which counts other things.
    """
    prepare_numba()
    if "robosuite" in sys.modules:
        yield
        return
    package = importlib.util.find_spec("robosuite")
    assert package is not None and package.submodule_search_locations  # its version has been checked
    path = Path(next(iter(package.submodule_search_locations))) / "macros.py"
    spec = importlib.util.spec_from_file_location("robosuite.macros", path)
    assert spec is not None and spec.loader is not None
    macros = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(macros)
    macros.CONSOLE_LOGGING_LEVEL = "ERROR"  # type: ignore[attr-defined]
    macros.FILE_LOGGING_LEVEL = None  # type: ignore[attr-defined]
    sys.modules["robosuite.macros"] = macros
    hidden = os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    try:
        yield
        sys.modules["robosuite"].macros = macros  # type: ignore[attr-defined]
    finally:
        if hidden is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = hidden
