"""The Ray engine on a cluster of two nodes, both on this machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from tests.eval import toy_command
from tests.vla_harness.toy_runs import CARD, Reacher, jobs, play, substance
from vla_harness.engines import start_crew
from vla_harness.errors import UserError
from vla_harness.registry import POLICIES
from vla_harness.results import read_run
from vla_harness.rollout import RolloutSettings, run_episodes

NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_raylet_start_wait_time_s", "150")  # on a busy machine
        patch.setitem(POLICIES, "reacher", "tests.vla_harness.toy_runs:Reacher")
        made = Cluster(initialize_head=True, head_node_args=NODE)
        try:
            ray.init(address=made.address, log_to_driver=False)
            yield made
        finally:
            ray.shutdown()
            made.shutdown()


def test_the_command_plays_the_same_run_on_the_cluster(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = {}
    for engine in ("ray", "local"):
        words = ["--policy", "reacher", "--trials", "2", "--engine", engine, "--out", str(tmp_path / engine)]
        monkeypatch.setattr(sys, "argv", ["toy", *words])
        assert toy_command.main() == 0
        runs[engine] = read_run(tmp_path / engine)
    here, there = ({str(result.key): result for result in run.results} for run in (runs["local"], runs["ray"]))
    assert len(here) == 4 and substance(here) == substance(there)
    assert "1 on a Ray cluster of 1 node, 1 x the policy" in capsys.readouterr().out
    assert runs["ray"].sittings[0].provenance["ray"] == {"version": ray.__version__, "nodes": 1, "copies": 1}


def test_a_policy_that_cannot_be_loaded_is_one_sentence(cluster: Cluster) -> None:
    with pytest.raises(UserError, match=r"needs the option 'checkpoint': give --checkpoint\.$"):
        start_crew("ray", None, "replay")


def test_a_run_survives_the_loss_of_a_node_and_is_the_same_as_on_one_machine(cluster: Cluster) -> None:
    """The node takes a simulator and one of the two copies of the policy with it."""
    second = cluster.add_node(**{name: value for name, value in NODE.items() if name != "include_dashboard"})
    crew = start_crew("ray", 2, "reacher")
    assert (crew.cores, crew.copies, crew.spec) == (2, 2, Reacher().spec)
    log: list[str] = []
    found = []
    for result in run_episodes(jobs(step_s=0.02), crew, RolloutSettings(CARD, 2), log.append):
        found.append(result)
        if len(found) == 3:
            assert "CPU" not in ray.available_resources()  # a simulator on each node
            cluster.remove_node(second, allow_graceful=False)
    results = {str(result.key): result for result in found}
    assert len(results) == len(found)
    assert substance(results) == substance(play(jobs()))
    again = {key: result.attempts for key, result in results.items() if result.attempts > 1}
    assert again and sum(again.values()) <= 6 and any("worker was lost" in line for line in log)
    assert crew.batch_times.as_data()["waits"][0] > 12


@pytest.mark.parametrize(("engine", "missing", "sentence"), [
    ("ray", True, r"^--engine ray needs Ray: run `pip install 'vla-harness\[ray\]'`\.$"),
    ("local", False, r"^--replicas is for --engine ray"),
])  # fmt: skip
def test_what_is_missing_or_does_not_fit_is_said(
    engine: Any, missing: bool, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing:
        monkeypatch.setitem(sys.modules, "ray", None)
        monkeypatch.delitem(sys.modules, "vla_harness.rollout.ray_crew", raising=False)
    with pytest.raises(UserError, match=sentence):
        start_crew(engine, 2, "noop")
