"""The run folder and the summary: what is stored, what a kill leaves, what is refused, what is counted."""

import errno
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.vla_harness.runs import PROVENANCE, configuration, episode
from vla_harness.errors import UserError
from vla_harness.results import RecordedRun, RunFolder, collect_provenance, read_run, summarize, write_reports
from vla_harness.results.configuration import config_differences
from vla_harness.results.files import write_text
from vla_harness.types import DELTA_EEF_POSE, EpisodeKey, EpisodeResult, Observation, Policy, PolicySpec


def recorded(
    path: Path, results: Sequence[EpisodeResult], provenance: Mapping[str, Any] = PROVENANCE, **changes: Any
) -> RecordedRun:
    """Write a run with ``results`` and read it."""
    with RunFolder.create(path, configuration(**changes)) as run:
        run.record_provenance(provenance)
        for result in results:
            run.add(result)
    return read_run(path)


def assert_same(one: EpisodeResult, other: EpisodeResult) -> None:
    for field in fields(EpisodeResult):
        if field.name == "actions":
            np.testing.assert_array_equal(one.actions, other.actions)
            assert one.actions.dtype == other.actions.dtype == np.float32
        else:
            assert getattr(one, field.name) == getattr(other, field.name)


# The folder


def test_an_episode_comes_back_as_it_was_stored(tmp_path: Path) -> None:
    error = episode(1, 0, "error", 0, actions=np.zeros((0, 0), np.float32), error="It hung.", video="v/1.mp4")
    with RunFolder.create(tmp_path / "run", configuration()) as run:
        assert run.add(episode()) and run.add(error)
        first, second = run.results()
    assert_same(first, episode())
    assert_same(second, error)
    assert_same(read_run(tmp_path / "run").results[0], episode())


def test_numpy_scalars_are_stored_as_numbers(tmp_path: Path) -> None:
    zero, two = np.arange(3)[[0, 2]]
    key = EpisodeKey("spatial", zero, two, 7)
    with RunFolder.create(tmp_path, configuration()) as run:
        run.add(episode(key=key, env_s=np.float32(0.5)))
        assert run.finished() == {EpisodeKey("spatial", 0, 2, 7)}
        assert run.results()[0].env_s == 0.5


def test_text_that_is_no_unicode_is_stored_spelled_out(tmp_path: Path) -> None:
    assert (
        recorded(tmp_path, [episode(outcome="error", error="bad \ud800 byte")]).results[0].error == "bad \\ud800 byte"
    )


def test_actions_that_are_no_matrix_are_refused(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, configuration()) as run, pytest.raises(ValueError, match="action_dim"):
        run.add(episode(actions=np.zeros(7, np.float32)))


def test_a_finished_episode_is_stored_once_and_an_error_is_replaced(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, configuration()) as run:
        assert run.add(episode(0, 0, "error", attempts=2))
        assert run.finished() == set()
        assert run.add(episode(0, 0, "success", steps=80))
        assert run.finished() == {EpisodeKey("spatial", 0, 0, 7)}
        assert not run.add(episode(0, 0, "failure", steps=90))
        assert not run.add(episode(0, 0, "error"))
        (result,) = run.results()
    assert (result.outcome, result.steps, result.attempts) == ("success", 80, 3)


def test_resume_keeps_the_episodes_and_adds_a_sitting(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, configuration()) as run:
        run.add(episode(0, 0))
    with RunFolder.open(tmp_path, configuration(workers=7, video="all")) as run:
        assert run.finished() == {EpisodeKey("spatial", 0, 0, 7)}
        assert run.config == configuration()
        run.add(episode(0, 1))
    sittings = read_run(tmp_path).sittings
    assert [sitting.config["workers"] for sitting in sittings] == [2, 7]
    assert all(sitting.wall_s > 0 for sitting in sittings)


def test_a_kill_loses_no_committed_episode(tmp_path: Path) -> None:
    """SIGKILL a writer at some moment: what it reported as added is there, and the run goes on."""
    code = (
        "import sys; from tests.vla_harness.runs import *; from vla_harness.results import RecordedRun, RunFolder\n"
        "run = RunFolder.create(sys.argv[1], configuration(trials=10000))\n"
        "for i in range(10000):\n    run.add(episode(0, i, steps=200)); print(i, flush=True)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
    run = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(run)], stdout=subprocess.PIPE, text=True, env=environment
    ) as writer:
        assert writer.stdout is not None
        reported = [int(writer.stdout.readline()) for _ in range(20)]
        writer.send_signal(signal.SIGKILL)
        reported += [int(line) for line in writer.stdout if line.endswith("\n")]
    stored = {result.key.initial_state for result in read_run(run).results}
    assert set(reported) <= stored
    assert len(stored) - len(reported) <= 1  # committed, but killed before it was reported
    assert read_run(run).sittings[0].wall_s > 0
    with RunFolder.open(run, configuration(trials=10000)) as again:
        assert len(again.finished()) == len(stored)


def test_an_existing_run_is_not_overwritten(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, configuration()).close()
    with pytest.raises(UserError, match="--resume"):
        RunFolder.create(tmp_path, configuration())


def test_a_folder_with_other_things_is_refused_and_one_of_a_killed_creation_is_not(tmp_path: Path) -> None:
    (tmp_path / "config.json.tmp").write_text("{")
    (tmp_path / "episodes.sqlite").touch()
    RunFolder.create(tmp_path, configuration()).close()
    assert read_run(tmp_path).results == ()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").touch()
    with pytest.raises(UserError, match="not empty"):
        RunFolder.create(tmp_path / "home", configuration())


def test_episodes_without_their_configuration_are_not_overwritten(tmp_path: Path) -> None:
    recorded(tmp_path, [episode()])
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match=r"holds episodes but no config\.json"):
        RunFolder.create(tmp_path, configuration())


def test_a_configuration_without_what_the_results_need_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="trials"):
        RunFolder.create(tmp_path, {key: value for key, value in configuration().items() if key != "trials"})


def test_resume_with_another_configuration_names_the_fields(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, configuration()).close()
    other = configuration(seed=8)
    other["protocol"]["settle_steps"] = 5
    with pytest.raises(UserError, match=r"another protocol\.settle_steps, seed:"):
        RunFolder.open(tmp_path, other)


def test_tuples_and_absent_fields_in_configurations() -> None:
    assert config_differences({"tasks": [0, 1]}, {"tasks": (0, 1)}) == []
    assert config_differences({"tasks": [0]}, {"tasks": [0], "precision": "fp32"}) == ["precision"]
    assert config_differences({"workers": 1, "out": "a"}, {"workers": 2, "server": "http://x", "resume": True}) == []


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with (
        RunFolder.create(tmp_path, configuration()),
        pytest.raises(UserError, match="being written by another process"),
    ):
        RunFolder.open(tmp_path, configuration())
    RunFolder.open(tmp_path, configuration()).close()


def test_of_processes_that_create_one_run_at_the_same_moment_one_does(tmp_path: Path) -> None:
    """Each waits for the others to be there, creates the run, adds an episode of its own and stays."""
    code = (
        "import sys, time; from pathlib import Path\n"
        "from tests.vla_harness.runs import *; from vla_harness.errors import UserError\n"
        "from vla_harness.results import RunFolder\n"
        "path, me = Path(sys.argv[1]), int(sys.argv[2])\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "for turn in range(12):\n"
        "    while time.time() % 0.25 > 0.02: time.sleep(0.001)\n"
        "    try:\n"
        "        run = RunFolder.create(path / str(turn), configuration(workers=me))\n"
        "        run.add(episode(0, me)); print(turn, 'has it', flush=True); time.sleep(0.15); run.close()\n"
        "    except UserError as error:\n"
        "        print(turn, 'refused' if 'another process' in str(error) or 'already' in str(error) else error)\n"
        "        time.sleep(0.15)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), str(me)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )
        for me in range(3)
    ]  # fmt: skip
    for racer in racers:
        assert racer.stdout is not None and racer.stdout.readline() == "ready\n"
    said = [racer.communicate("go\n", timeout=120)[0].splitlines() for racer in racers]
    for turn in range(12):
        outcomes = sorted(lines[turn] for lines in said)
        assert outcomes == [f"{turn} has it", f"{turn} refused", f"{turn} refused"]
        run = read_run(tmp_path / str(turn))
        assert len(run.results) == len(run.sittings) == 1
        assert run.results[0].key.initial_state == run.sittings[0].config["workers"] == run.config["workers"]


def test_a_run_is_extended_by_more_trials_and_its_reports_say_so(tmp_path: Path) -> None:
    recorded(tmp_path, [episode(task, state) for task in (0, 1) for state in range(3)])
    with pytest.raises(UserError, match="another trials"):
        RunFolder.open(tmp_path, configuration(trials=2))
    with pytest.raises(UserError, match="another trials, seed"):
        RunFolder.open(tmp_path, configuration(trials=4, seed=8))
    assert read_run(tmp_path).config["trials"] == 3
    with RunFolder.open(tmp_path, configuration(trials=4)) as run:
        assert run.extended_from == 3 and len(run.finished()) == 6
        run.add(episode(0, 3, "failure"))
        with pytest.raises(UserError, match="being written by another process"):
            RunFolder.open(tmp_path, configuration(trials=5))  # also while its configuration has been replaced
        run.add(episode(1, 3))
        summary = write_reports(run)
    assert (summary["planned"], summary["complete"], summary["successes"]) == (8, True, 7)
    (mark,) = [mark["text"] for mark in summary["marks"] if mark["kind"] == "extended"]
    assert mark.startswith("Extended from 3 to 4 trials a task after it had begun")
    assert mark in (tmp_path / "report.md").read_text() and mark in (tmp_path / "report.html").read_text()
    with RunFolder.open(tmp_path, configuration(trials=4)) as run:  # a resume of it is no further extension
        assert run.extended_from is None
        assert [mark["kind"] for mark in write_reports(run)["marks"]].count("extended") == 1
    RunFolder.open(tmp_path, configuration(trials=6)).close()
    assert "from 3 to 4, then from 4 to 6 trials" in str(write_reports(tmp_path)["marks"])


@pytest.mark.parametrize("change", [{"assets": {"kind": "path", "digest": "99"}}, {"checkpoint_sha256": "ff"}])
def test_a_sitting_with_other_assets_or_weights_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    recorded(tmp_path, [episode()])
    with RunFolder.open(tmp_path, configuration()) as run, pytest.raises(UserError, match="was started with"):
        run.record_provenance(PROVENANCE | change)


@pytest.mark.parametrize("name", ["config.json", "episodes.sqlite"])
@pytest.mark.parametrize("content", [b"", b"garbage" * 1000])
def test_damaged_files_are_one_sentence(tmp_path: Path, name: str, content: bytes) -> None:
    recorded(tmp_path, [episode()])
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name} (is damaged|has layout)"):
        read_run(tmp_path)


def test_a_database_damaged_in_the_middle_is_one_sentence(tmp_path: Path) -> None:
    recorded(tmp_path, [episode(0, i) for i in range(50)], trials=50)
    file = tmp_path / "episodes.sqlite"
    content = bytearray(file.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    file.write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        read_run(tmp_path)


def test_what_is_not_a_run_is_said(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(UserError, match="is not a run"):
            read_run(path)
    (tmp_path / "config.json").write_text('{"name": "some other program"}')
    with pytest.raises(UserError, match="is not a run"):
        read_run(tmp_path)


def test_a_missing_database_is_said(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, configuration()).close()
    (tmp_path / "episodes.sqlite").unlink()
    with pytest.raises(UserError, match="is missing"):
        RunFolder.open(tmp_path, configuration())


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be written .*--out"):
        RunFolder.create(tmp_path / "file" / "run", configuration())


def test_a_full_disk_is_said_and_keeps_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunFolder.create(tmp_path, configuration(trials=100)) as run:
        run.add(episode(0, 0))
        run._database.execute("PRAGMA max_page_count = 1")  # sqlite's own way to have no room: the pages in use now
        with pytest.raises(UserError, match=r"is full: .*--resume"):
            for i in range(1, 100):
                run.add(episode(0, i, steps=500))
        kept = len(run.finished())
    assert kept >= 1
    assert len(read_run(tmp_path).results) == kept

    def no_space(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(UserError, match="is full"):
        write_text(tmp_path / "report.md", "text")
    assert not list(tmp_path.glob("report*"))


def test_a_database_of_another_layout_is_said(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, configuration()).close()
    database = sqlite3.connect(tmp_path / "episodes.sqlite")
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(UserError, match="layout 99"):
        read_run(tmp_path)


# The summary


def test_the_summary_has_the_promised_fields(tmp_path: Path) -> None:
    recorded(tmp_path, [episode()])
    summary = write_reports(tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    promised = (
        "suite policy checkpoint protocol tasks successes trials errors success_rate wilson95 mean_steps_on_success "
        "env_steps_per_second policy_latency_ms wall_s provenance"
    )
    assert set(promised.split()) <= set(summary)
    assert {"task_id", "name", "successes", "trials", "errors", "wilson95"} <= set(summary["tasks"][0])
    assert set(summary["policy_latency_ms"]) == {"p50", "p95", "p99"}
    provenance = "versions device precision assets checkpoint_sha256 git_revision"
    assert set(provenance.split()) <= set(summary["provenance"])


def test_errors_are_neither_trials_nor_failures(tmp_path: Path) -> None:
    outcomes = ["success", "success", "failure"], ["success", "error", "error"]
    results = [episode(t, i, outcome) for t, row in enumerate(outcomes) for i, outcome in enumerate(row)]
    summary = summarize(recorded(tmp_path, results))
    assert (summary["successes"], summary["failures"], summary["trials"], summary["errors"]) == (3, 1, 4, 2)
    assert summary["success_rate"] == 0.75
    assert summary["wilson95"] == pytest.approx([0.3006, 0.9544], abs=1e-4)
    assert summary["task_mean_rate"] == pytest.approx((2 / 3 + 1) / 2)
    assert not summary["complete"]
    assert [task["errors"] for task in summary["tasks"]] == [0, 2]
    assert summary["tasks"][0]["exact95"] is None
    assert summary["tasks"][1]["exact95"] == pytest.approx([0.025, 1.0])
    assert "errors" in [mark["kind"] for mark in summary["marks"]]


def test_steps_times_and_latencies(tmp_path: Path) -> None:
    results = [episode(0, 0, steps=60), episode(0, 1, steps=100), episode(0, 2, "failure", steps=220)]
    run = recorded(tmp_path, results, tasks=[0])
    summary = summarize(run)
    assert summary["complete"]
    assert summary["mean_steps_on_success"] == 80
    assert summary["env_steps"] == 380
    assert summary["wall_s"] == run.sittings[0].wall_s
    assert summary["env_steps_per_second"] == pytest.approx(380 / summary["wall_s"])
    assert summary["env_steps_per_second_per_worker"] == pytest.approx(380 / 3)
    assert summary["policy_latency_ms"]["p50"] == 1.5
    assert summary["decisions"] == 9
    assert summary["frames"] == 9
    assert summary["render_share"] == pytest.approx(1 / 3)


def test_a_run_without_episodes_has_a_summary(tmp_path: Path) -> None:
    recorded(tmp_path, [])
    summary = write_reports(tmp_path)
    assert summary["success_rate"] is summary["stratified95"] is summary["mean_steps_on_success"] is None
    assert summary["wilson95"] == [0.0, 1.0]
    assert [task["task_id"] for task in summary["tasks"]] == [0, 1]


def test_wall_time_sums_the_sittings(tmp_path: Path) -> None:
    recorded(tmp_path, [episode()])
    with RunFolder.open(tmp_path, configuration()) as run:
        run.add(episode(0, 1))
        summary = write_reports(run)
    assert summary["sittings"] == 2
    first, second = (sitting.wall_s for sitting in read_run(tmp_path).sittings)
    assert first < summary["wall_s"] <= first + second


def mark_texts(run: RecordedRun) -> dict[str, str]:
    return {mark["kind"]: mark["text"] for mark in summarize(run)["marks"]}


def test_marks_of_a_run(tmp_path: Path) -> None:
    provenance = PROVENANCE | {
        "assets": {"kind": "primitive"},
        "policy_spec": {"reads_scene": True, "cameras": ["agentview"], "image_size": [224, 224]},
    }
    run = recorded(tmp_path, [episode()], provenance)
    assert summarize(run)["suite_title"] == "LIBERO-Spatial (stand-in assets)"
    texts = mark_texts(run)
    assert set(texts) == {"incomplete", "stand_ins", "reads_scene", "protocol"}
    assert "5 episodes of 6" in texts["incomplete"]
    assert "2 of 10 tasks; trials 3 instead of 50; image size 224 x 224 instead of 256 x 256" in texts["protocol"]


def test_a_run_to_the_letter_of_its_protocol_has_no_marks(tmp_path: Path) -> None:
    results = [episode(t, i) for t in range(10) for i in range(5)]
    config = configuration(tasks=list(range(10)), trials=50)
    config["protocol"]["trials"] = 50
    run = recorded(tmp_path, results, **{key: config[key] for key in ("tasks", "trials", "protocol")})
    assert set(mark_texts(run)) == {"incomplete"}


def test_sittings_that_differ_are_marked(tmp_path: Path) -> None:
    recorded(tmp_path, [episode()])
    with RunFolder.open(tmp_path, configuration()) as run:
        run.record_provenance(PROVENANCE | {"git_revision": "def"})
    assert mark_texts(read_run(tmp_path))["mixed"] == "The sittings of this run differ in git_revision (abc and def)."


# Provenance


class _Blind(Policy):
    spec = PolicySpec("blind", DELTA_EEF_POSE, reads_scene=True)

    @property
    def provenance(self) -> Mapping[str, Any]:
        return {"device": "cpu", "weights": Path("weights.pt")}

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        raise NotImplementedError


def test_provenance_is_plain_data_and_complete() -> None:
    provenance = collect_provenance(_Blind(), {"kind": "path"}, "egl")
    assert json.loads(json.dumps(provenance)) == provenance
    assert provenance["versions"]["numpy"] == np.__version__
    assert set(provenance["versions"]) >= {"python", "mujoco", "robosuite", "hf-libero", "bddl", "torch", "gymnasium"}
    assert provenance["device"] == "cpu"
    assert provenance["precision"] is provenance["checkpoint_sha256"] is None
    assert provenance["weights"] == "weights.pt"
    assert provenance["policy_spec"]["reads_scene"] is True
    assert provenance["machine"]["cores"] >= 1


def test_provenance_imports_nothing_heavy() -> None:
    code = (
        "import sys; from vla_harness.results.provenance import installed_versions; installed_versions()\n"
        "assert not {'torch', 'mujoco', 'robosuite', 'scipy.stats'} & set(sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
