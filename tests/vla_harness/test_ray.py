"""The Ray engine on a cluster of two nodes, both on this machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from tests.eval import toy_command
from tests.vla_harness.toy_runs import substance
from vla_harness.engines import start_crew
from vla_harness.errors import UserError
from vla_harness.registry import POLICIES
from vla_harness.results import RecordedRun, read_run
from vla_harness.results.measured import BATCH_TIMES
from vla_harness.rollout.ray_crew import PolicyActor, RayCrew
from vla_harness.tracking import OUTLETS, Tracker
from vla_harness.types import EpisodeResult

NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_log_monitor": False}
HEAD: dict[str, Any] = NODE | {"include_dashboard": False, "no_monitor": True}  # fewer processes to start


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_raylet_start_wait_time_s", "150")  # on a busy machine
        patch.setitem(POLICIES, "reacher", "tests.vla_harness.toy_runs:Reacher")
        made = Cluster(initialize_head=True, head_node_args=HEAD)
        try:
            ray.init(address=made.address, log_to_driver=False)
            yield made
        finally:
            ray.shutdown()
            made.shutdown()


def test_a_run_survives_the_loss_of_a_node_and_is_the_same_as_on_one_machine(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The node takes a simulator and one of the two copies of the policy with it."""
    second = cluster.add_node(**NODE)
    ended: list[str] = []

    class LosesTheNode(Tracker):
        def episode(self, result: EpisodeResult) -> None:
            ended.append(str(result.key))
            if len(ended) == 3:
                assert "CPU" not in ray.available_resources()  # a simulator on each node
                cluster.remove_node(second, allow_graceful=False)

    def run(engine: str, *words: str) -> tuple[RecordedRun, dict[str, Any]]:
        path = tmp_path / engine
        command = ["toy", "--policy", "reacher", "--trials", "6", "--out", str(path), "--engine", engine, *words]
        monkeypatch.setattr(sys, "argv", command)
        assert toy_command.main() == 0
        return read_run(path), json.loads((path / "summary.json").read_text())

    with monkeypatch.context() as patch:
        patch.setitem(OUTLETS, "none", LosesTheNode)
        patch.setattr(toy_command, "OPTIONS", {"step_s": 0.02})  # so that there is something to lose
        run_there, there = run("ray", "--replicas", "2")
    assert "2 on a Ray cluster of 2 nodes, 2 x the policy" in capsys.readouterr().out
    assert len(ended) == len(set(ended)) == 12
    run_here, here = run("local")
    results_there, results_here = ({str(one.key): one for one in run.results} for run in (run_there, run_here))
    assert substance(results_there) == substance(results_here)
    told = ("tasks", "successes", "trials", "errors", "success_rate", "wilson95", "mean_steps_on_success", "complete")
    assert {name: there[name] for name in told} == {name: here[name] for name in told}
    again = [one.attempts for one in run_there.results if one.attempts > 1]
    assert again and sum(again) <= 6 and "worker was lost" in (run_there.path / "errors.log").read_text()
    provenance = run_there.sittings[0].provenance
    assert provenance["ray"] == {"version": ray.__version__, "nodes": 2, "copies": 2}
    assert provenance[BATCH_TIMES]["waits"][0] > 12


def test_a_policy_that_cannot_be_loaded_is_one_sentence(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its actor says of it, without the seconds of starting one."""
    monkeypatch.setattr(RayCrew, "_start", lambda crew: (None, ray.put(PolicyActor(crew._recipe).load())))
    with pytest.raises(UserError, match=r"needs the option 'checkpoint': give --checkpoint\.$"):
        start_crew("ray", None, "replay")


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
