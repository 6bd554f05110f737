"""What the sequential comparison says of runs that grow, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vla_harness.comparison.made_runs import make_run, stand_ins
from vla_harness.comparison import read_runs
from vla_harness.comparison.planning import plan_text, sequential_text
from vla_harness.errors import UserError


def said(*runs: str) -> str:
    return sequential_text(read_runs(runs))


def test_the_verdict_follows_the_pairs(tmp_path: Path) -> None:
    ahead = make_run(tmp_path / "ahead", ["1" * 20, "1" * 3], planned=20)
    behind = make_run(tmp_path / "behind", ["0" * 12, "10"], planned=20)
    close = make_run(tmp_path / "close", ["1" * 18, "01"], planned=20)
    assert said(f"a={ahead}", f"b={behind}").startswith("a is better. Both evaluations may stop here.")
    assert said(f"b={behind}", f"a={ahead}").startswith("a is better.")
    text = said(f"a={ahead}", f"b={close}")
    assert text.startswith("Not decided: go on.")
    assert "20 of 40, from 2 of 2 tasks" in text and "only a succeeds: 1; only b: 0" in text
    assert "at most, over all looks together (fixed before: 5.0 %)" in text


def test_it_says_when_only_some_tasks_were_played_and_when_all_pairs_are(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one", ["1" * 8, "-"], planned=8)
    other = make_run(tmp_path / "other", ["1" * 8, "1"], planned=8)
    assert "speaks only of the tasks" in said(f"a={one}", f"b={other}")
    full = make_run(tmp_path / "full", ["1" * 8, "1" * 8])
    last = make_run(tmp_path / "last", ["1" * 8, "1" * 7 + "0"])
    assert said(f"a={full}", f"b={last}").startswith(
        "All planned pairs are played, and the policies were not told apart"
    )


def test_several_suites_are_taken_together(tmp_path: Path) -> None:
    runs = [
        f"{name}={make_run(tmp_path / (name + suite), [word], suite=suite)}"
        for name, word in {"a": "1111", "b": "0000"}.items()
        for suite in ("spatial", "goal")
    ]
    assert said(*runs).startswith("a is better.")
    with pytest.raises(UserError, match="on the same suites"):
        said(*runs[:-1])


def test_what_is_no_sequential_comparison_is_refused(tmp_path: Path) -> None:
    one, two, three = (make_run(tmp_path / name, ["1111111111"]) for name in "abc")
    elsewhere = make_run(tmp_path / "d", ["1111111111"], provenance=stand_ins())
    tiny = [make_run(tmp_path / f"tiny{name}", ["111"]) for name in "ab"]
    for runs, message in (
        ([one], "are of 1: give the runs of two"),
        ([one, two, three], "are of 3"),
        ([one, elsewhere], "did not start from the same states"),
        (tiny, "3 pairs cannot tell two policies apart"),
    ):
        with pytest.raises(UserError, match=message):
            said(*(f"{run.name}={run}" for run in runs))


def test_the_plan_lists_the_runs_own_rates(tmp_path: Path) -> None:
    run = make_run(tmp_path / "one", ["1" * 9 + "0"] * 2, policy="p")
    text = plan_text(0.03, read_runs([str(run)]))
    assert "1,064 episodes,   107 for each of 10 tasks  any rate at all" in text
    assert text.count("388 episodes") == 2 and "p on LIBERO-Spatial" in text
    with pytest.raises(UserError, match=r"between 0 and 0\.5"):
        plan_text(0.7)
