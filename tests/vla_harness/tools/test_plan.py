"""``python -m vla_harness plan`` on made runs, whose times are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.vla_harness.runs import PROVENANCE, configuration, episode
from vla_harness.__main__ import main
from vla_harness.results import RunFolder, read_run
from vla_harness.results.measured import BATCH_TIMES
from vla_harness.tools.plan import measured

SPEC = PROVENANCE["policy_spec"] | {"max_batch": 16}


def make(path: Path, batches: Mapping[str, Sequence[float]], way_s: float = 0.0) -> Path:
    """Six episodes of 12 s and 20 decisions of 100 ms each: 10 s of a simulator."""
    with RunFolder.create(path, configuration()) as folder:
        times = {"sizes": dict(batches), "waits": [120, 120 * (0.1 - way_s)]}
        folder.record_provenance(PROVENANCE | {"policy_spec": SPEC, BATCH_TIMES: times})
        for task in (0, 1):
            for state in range(3):
                folder.add(episode(task, state, policy_ms=(100.0,) * 20, wall_s=12.0))
    return path


def test_what_a_run_cost_is_read_from_it(tmp_path: Path) -> None:
    model = measured(read_run(make(tmp_path / "run", {"1": [100, 10.0], "2": [10, 1.2]}, way_s=0.03)))
    assert [model.episode_s, model.decisions] == pytest.approx([10.0, 20])
    assert [model.first_s, model.more_s, model.max_batch] == pytest.approx([0.1, 0.02, 16])
    assert model.way_s == pytest.approx(0.03)


def test_the_plan_names_workers_and_copies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make(tmp_path / "run", {"1": [100, 10.0], "2": [10, 1.2]})
    assert main(["plan", str(run), "--episodes", "2000", "--hours", "0.5"]) == 0
    out = capsys.readouterr().out
    assert "10.0 s of a simulator, 20.0 decisions" in out and "100.0 ms, and 20.0 ms for each more" in out
    assert "2,000 episodes in 0:30:00, 4,000 an hour:" in out
    table = out.partition("takes\n")[2].partition("\n\n")[0]
    rows = [line.split() for line in table.splitlines()]
    # 22.2 decisions a second. One copy is always busy, with batches of 3.2 in 0.144 s, for which a question waits 1.5
    # times as long: 1.11 episodes a second x (10 s + 20 x 0.213 s) = 15.8 workers. With two: 1.11 x (10 + 20 x 0.147).
    assert [row[:4] for row in rows[:2]] == [["1", "16", "3.3", "100"], ["2", "15", "1.2", "100"]]
    assert rows[2][:2] == ["3", "14"]
    assert all("0:28:00" <= row[-1] <= "0:30:00" for row in rows)


def test_one_size_of_batches_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make(tmp_path / "run", {"1": [100, 10.0]})
    assert main(["plan", str(run), "--episodes", "500"]) == 0
    assert "All batches had 1 question, so a larger one is taken to cost in proportion" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("batches", "words", "sentence"),
    [
        ({}, ["--episodes", "5"], "does not say how long the policy took: play a run"),
        ({"1": [1, 0.1]}, ["--episodes", "0"], "--episodes is 0: give at least 1."),
        ({"1": [1, 0.1]}, ["--episodes", "5", "--hours", "-1"], "--hours is -1.0: give more than 0, to 10000000."),
    ],
)
def test_what_a_user_can_mend_is_said(
    batches: dict[str, list[float]], words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(make(tmp_path / "run", batches)), *words]) == 2
    assert sentence in capsys.readouterr().err
