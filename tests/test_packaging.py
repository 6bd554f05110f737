"""What an installation holds, and what it must not put into anybody's site-packages."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from vla_harness import launch
from vla_harness.launch import EXTRAS

ROOT = Path(__file__).parents[1]
SOURCES = ("vla_harness", "tformer", "envs", "eval", "servers", "pyproject.toml", "LICENSE", "README.md")


def build(source: Path, kind: str, target: Path) -> Path:
    """Build a "wheel" or "sdist" of the tree ``source`` with the installed setuptools and return its path."""
    code = f"import sys; from setuptools import build_meta; build_meta.build_{kind}(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(target)], cwd=source, check=True, capture_output=True, timeout=120)
    (built,) = target.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return built


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, links kept as links, as a clone has them."""
    copy = tmp_path_factory.mktemp("tree")
    (copy / "tests").mkdir()
    (copy / "tests/__init__.py").touch()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a clean tree."""
    return build(tree, "wheel", tmp_path_factory.mktemp("wheel"))


def files(folder: Path) -> list[Path]:
    """The files below ``folder``, behind no link, that are no byproducts of running it."""
    return [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]


def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_a_wheel_holds_every_module_and_data_file_once_and_nothing_under_a_bare_name(wheel: Path) -> None:
    names = contents(wheel)
    assert {name.split("/")[0] for name in names} == {"vla_harness", "tformer"}
    expected = {str(path.relative_to(ROOT)) for path in files(ROOT / "tformer") if path.suffix == ".py"}
    expected |= {str(path.relative_to(ROOT)) for path in files(ROOT / "vla_harness")}
    for folder in ("envs", "eval", "servers"):
        expected |= {f"vla_harness/{path.relative_to(ROOT)}" for path in files(ROOT / folder)}
    assert expected <= names


def test_a_source_distribution_builds_the_same_wheel(tree: Path, wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "sdist").mkdir()
    shutil.unpack_archive(build(tree, "sdist", tmp_path / "sdist"), tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    (tmp_path / "again").mkdir()
    assert contents(build(unpacked, "wheel", tmp_path / "again")) == contents(wheel)


def test_an_installed_wheel_runs_its_commands_and_registers_its_environments(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*command, str(wheel)], check=True, capture_output=True, timeout=120)
    code = (
        "import sys, importlib.metadata as metadata\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import gymnasium, vla_harness.envs\n"
        "assert 'libero/spatial-v0' in gymnasium.registry\n"
        "assert not {'mujoco', 'torch', 'robosuite'} & set(sys.modules), 'the registration is not light'\n"
        "import vla_harness\n"
        "assert vla_harness.__file__.startswith(sys.argv[1]), vla_harness.__file__\n"
        "(distribution,) = metadata.distributions(name='vla-harness', path=[sys.argv[1]])\n"
        "assert distribution.version == vla_harness.__version__\n"
        "from importlib.util import find_spec\n"
        "from vla_harness.launch import EXTRAS\n"
        "for entry in distribution.entry_points.select(group='console_scripts'):\n"
        "    command = entry.load()\n"
        "    assert find_spec(command.args[0])\n"
        "    try:\n"
        "        command.args[0] in EXTRAS or command(['--help'])\n"
        "    except SystemExit as left:\n"
        "        assert not left.code\n"
    )
    # -S and -I would hide the dependencies; another folder keeps the checkout out of the path.
    answer = subprocess.run(
        [sys.executable, "-c", code, str(site)], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert answer.returncode == 0, answer.stderr
    assert "--suite" in answer.stdout and "doctor" in answer.stdout
    for module in ("vla_harness.eval.run_libero", "vla_harness.servers.action_server", "vla_harness.eval.bench.peers"):
        command = [sys.executable, "-m", module, "--help"]
        environment = os.environ | {"PYTHONPATH": str(site)}
        answer = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
        assert answer.returncode == 0 and f"usage: {module.rpartition('.')[2]}.py" in answer.stdout, answer.stderr


WITHOUT = """
import contextlib, importlib.abc, io, json, runpy, sys, warnings

warnings.simplefilter("ignore")  # modules that an earlier command has imported already

blocked, modules = (argument.split(",") for argument in sys.argv[1:])

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
for module in modules:
    sys.argv = [module, "--help"]
    with contextlib.redirect_stderr(io.StringIO()) as told, contextlib.redirect_stdout(io.StringIO()):
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            code = "none"
        except SystemExit as left:
            code = left.code
    print(json.dumps([module, code, told.getvalue()]))
"""
"""Runs each module as ``python -m`` does where some packages are not installed."""

OPTIONAL = (
    *("torch", "transformers", "safetensors", "bitsandbytes", "tensorboard", "sacrebleu", "sklearn", "pyarrow", "h5py"),
    *("fastapi", "uvicorn", "uvloop", "zmq", "msgpack", "websockets", "prometheus_client", "gradio", "ray", "wandb"),
    *("onnx", "onnxruntime", "json_numpy", "openpi_client"),
)


def test_without_the_extras_each_command_says_in_one_sentence_which_it_needs(tmp_path: Path) -> None:
    sources = [path for folder in ("vla_harness", "tformer") for path in (ROOT / folder).rglob("*.py")]
    sources += [path for folder in ("envs", "eval", "servers") for path in (ROOT / folder).rglob("*.py")]
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sources
        if "\ndef main(" in path.read_text(encoding="utf-8") and path.name != "gl_probe.py"
    ]
    modules = [name if name.startswith(("vla_harness", "tformer")) else f"vla_harness.{name}" for name in names]
    answer = subprocess.run(
        [sys.executable, "-c", WITHOUT, ",".join(OPTIONAL), ",".join(modules)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert answer.returncode == 0, answer.stderr
    told = {module: (code, text) for module, code, text in map(json.loads, answer.stdout.splitlines())}
    assert set(told) == set(modules) and len(modules) > 30
    for module, (code, text) in told.items():
        if code == 0:
            assert text == ""
            continue
        assert code == 2, (module, text)
        extra = EXTRAS.get(module, "tformer" if module.startswith("tformer.") else None)
        assert re.fullmatch(
            rf"error: This command needs \w+, which is not installed: run `pip install 'vla-harness\[{extra}\]'`\.\n",
            text,
        ), (module, text)
    silent = {module for module, (code, _) in told.items() if code == 0}
    assert {"vla_harness.eval.run_libero", "vla_harness.eval.compare", "vla_harness.doctor"} <= silent
    assert not silent & {module for module in EXTRAS if module != "tformer.__main__"}


def test_the_table_of_commands_names_every_program_and_its_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    readme = (ROOT / "README.md").read_text().replace("\\|", "/")
    rows = [
        [cell.strip(" `") for cell in row.split("|")[1:-1]] for row in re.findall(r"^\|.*\|$", readme, re.MULTILINE)
    ]
    extras = {row[2].split()[0]: row[3] for row in rows if len(row) == 4 and row[2]}
    for program, target in project["scripts"].items():
        assert program in extras, f"{program} is not in README's table"
        module = getattr(launch, target.partition(":")[2]).args[0]
        assert EXTRAS.get(module, "") in extras[program].replace("`", ""), program
        for name in re.findall(r"[a-z]+", EXTRAS.get(module, "")):
            assert name in project["optional-dependencies"]


def test_the_lock_files_pin_everything_that_the_project_declares() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins: dict[str, str] = {}
    for name in ("requirements.lock", "requirements-libero.lock", "requirements-test.lock"):
        for line in (ROOT / name).read_text().splitlines():
            if not line.startswith("#"):
                package, _, version = line.partition("==")
                assert re.fullmatch(r"[0-9][0-9a-z.]*", version), line
                assert package not in pins, f"{package} is pinned twice"
                pins[package] = version
    declared = [
        *project["dependencies"],
        *(need for name, extra in project["optional-dependencies"].items() if name != "cuda" for need in extra),
    ]  # what `cuda` names is built against the GPU's own tool kit
    for need in declared:
        if need.startswith(project["name"]):
            continue  # an extra that includes another
        package = re.split(r"[<>=!~;\s\[]", need)[0].replace("_", "-")
        assert package in pins, f"{package} is declared and not locked: run `make lock`"
    assert pins["mujoco"] == "3.3.2" and "mujoco==3.3.2" in project["dependencies"]
    assert not {"torchvision", "robomimic", "thop", "hydra-core"} & set(pins)
