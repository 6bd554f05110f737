"""BLAS kernels: fixed where a simulator runs, recorded, and marked where sittings or runs were computed by others."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vla_harness.comparison.made_runs import make_run
from tests.vla_harness.runs import PROVENANCE
from vla_harness import kernels
from vla_harness.comparison import compare, read_runs
from vla_harness.comparison.comparison import marked
from vla_harness.errors import RunFailed
from vla_harness.policies.basic import RandomPolicy
from vla_harness.results import RunFolder, read_run
from vla_harness.results.marks import marks
from vla_harness.results.summary import summarize
from vla_harness.rollout.process import _start_conditions
from vla_harness.servers.core.service import ActionService
from vla_harness.tools import playback as playback_module
from vla_harness.types import DELTA_EEF_POSE

SHOW = "from vla_harness.kernels import kernels; import numpy; print(kernels()['numpy'])"


def test_simulators_have_one_choice_and_a_users_own_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_has_core", lambda: True)
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    with _start_conditions():
        assert os.environ["OPENBLAS_CORETYPE"] == "Haswell"
    assert "OPENBLAS_CORETYPE" not in os.environ
    assert kernels.kernels()["simulator"] == "Haswell"
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Nehalem")
    assert kernels.fixed_kernels() == {} and kernels.kernels()["simulator"] == "Nehalem"
    with _start_conditions():
        assert os.environ["OPENBLAS_CORETYPE"] == "Nehalem"


def test_a_processor_without_them_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    monkeypatch.setattr(kernels.platform, "machine", lambda: "aarch64")
    assert kernels.fixed_kernels() == {}
    assert kernels.kernels()["simulator"] == kernels.kernels()["numpy"]


@pytest.mark.parametrize("core", ["Haswell", "Nehalem"])
def test_the_record_names_what_was_loaded(core: str) -> None:
    environment = os.environ | {"OPENBLAS_CORETYPE": core}
    answer = subprocess.run([sys.executable, "-c", SHOW], env=environment, capture_output=True, text=True, timeout=60)
    assert answer.stdout == f"{core}\n", answer.stderr


def test_atens_kernels_are_recorded_when_torch_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setenv("MKL_CBWR", "AVX2")
    assert kernels.kernels()["aten"] == torch.backends.cpu.get_cpu_capability()
    assert kernels.kernels()["mkl"] == "AVX2"
    monkeypatch.delitem(sys.modules, "torch")
    assert kernels.kernels()["aten"] == "" == kernels.kernels()["mkl"]


def told(**by: str) -> dict[str, dict[str, str]]:
    return {"kernels": {"simulator": "Haswell", "numpy": "Haswell", "aten": "AVX2"} | by}


def test_a_comparison_that_mixes_kernels_is_marked_and_not_refused(tmp_path: Path) -> None:
    make_run(tmp_path / "one", ["11", "10"], policy="one", provenance=told())
    make_run(tmp_path / "other", ["11", "00"], policy="other", provenance=told(aten="AVX512"))
    make_run(tmp_path / "older", ["11", "01"], policy="older")
    comparison = compare(read_runs([str(tmp_path / name) for name in ("one", "other", "older")]))
    one, other, older = (marked(comparison)[id(run)] for run in comparison.runs)
    assert not any("kernels" in text for text in one + older)
    assert (
        "Computed by other kernels: aten AVX512 where one has AVX2; last bits of states and actions may differ."
        in other
    )


def test_a_servers_kernels_are_compared_as_well(tmp_path: Path) -> None:
    for name, core in (("one", "AVX2"), ("other", "DEFAULT")):
        served = told() | {"server_kernels": {"numpy": "Haswell", "aten": core}}
        make_run(tmp_path / name, ["11", "10"], policy=name, provenance=served)
    comparison = compare(read_runs([str(tmp_path / name) for name in ("one", "other")]))
    other = marked(comparison)[id(comparison.runs[1])]
    assert "Computed by other kernels: server's aten DEFAULT where one has AVX2" in " ".join(other)
    metadata = ActionService(RandomPolicy(action=DELTA_EEF_POSE)).metadata()
    assert metadata["provenance"]["server_kernels"] == kernels.policy_kernels()


def test_sittings_on_other_kernels_are_marked(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", ["1"])
    for more in ({}, told(), told(simulator="Nehalem")):
        with RunFolder.open(path, read_run(path).config) as folder:
            folder.record_provenance(PROVENANCE | more)
    run = read_run(path)
    (mixed,) = [mark["text"] for mark in marks(run, summarize(run)) if mark["kind"] == "mixed"]
    assert mixed == "The sittings of this run differ in kernels.simulator (Haswell and Nehalem)."


def test_a_replay_that_ends_elsewhere_names_the_kernels_it_wants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def elsewhere(*_: object) -> Iterator[int]:
        raise RuntimeError("It ended in another state.")
        yield 0

    monkeypatch.setattr(playback_module, "moments", elsewhere)
    environment = {"environment": {"id": "tests.toy_environment:toy/reach-v0", "options": {}}}
    run = read_run(make_run(tmp_path / "run", ["1"], provenance=told(simulator="Nehalem") | environment))
    wanted = r"It was played with BLAS kernels for Nehalem: set OPENBLAS_CORETYPE=Nehalem\.$"
    with playback_module.playback(run) as player, pytest.raises(RunFailed, match=wanted):
        list(player.moments(run.results[0]))
