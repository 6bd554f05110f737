"""What the sequential comparison says of runs that grow, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vla_harness.comparison.made_runs import make_run, stand_ins
from tests.vla_harness.runs import configuration
from vla_harness.comparison import read_runs
from vla_harness.comparison.planning import plan_text, sequential_text
from vla_harness.errors import UserError


def said(*runs: str) -> str:
    return sequential_text(read_runs(runs))


def test_the_verdict_follows_the_pairs(tmp_path: Path) -> None:
    ahead = make_run(tmp_path / "ahead", ["1" * 20, "1" * 12], planned=20)
    behind = make_run(tmp_path / "behind", ["0" * 12, "10" * 6], planned=20)
    close = make_run(tmp_path / "close", ["1" * 18, "01" + "1" * 8], planned=20)
    assert said(f"a={ahead}", f"b={behind}").startswith("a is better. Both evaluations may stop here.")
    assert said(f"b={behind}", f"a={ahead}").startswith("a is better.")
    text = said(f"a={ahead}", f"b={close}")
    assert text.startswith("Not decided: go on.")
    assert "20 of 40: 10 of 20 initial states of each of 2 tasks" in text and "only a succeeds: 1; only b: 0" in text
    assert "at most, over all looks together (fixed before: 5.0 %)" in text


def test_an_initial_state_counts_when_all_tasks_have_it(tmp_path: Path) -> None:
    """A run plays its first task to the end before the others, and on that one alone a policy may well be better."""
    ahead = make_run(tmp_path / "ahead", ["1" * 20, "--"], planned=20)
    behind = make_run(tmp_path / "behind", ["0" * 20, "11"], planned=20)
    text = said(f"a={ahead}", f"b={behind}")
    assert text.startswith("Not decided") and "0 of 40: 0 of 20 initial states" in text
    assert "20 pairs more are played. An initial state counts when both have played it on every task" in text
    errors = make_run(tmp_path / "errors", ["1e1", "111"], planned=20)  # an error has been played, and is no pair
    text = said(f"a={errors}", f"b={make_run(tmp_path / 'other', ['1111', '1110'], planned=20)}")
    assert "5 of 40: 3 of 20 initial states" in text and "more" not in text


def test_runs_that_were_not_measured_alike_are_refused_unless_forced_and_then_marked(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one", ["1" * 8])
    card = configuration()["protocol"] | {"max_steps": {"spatial": 300}}
    other = make_run(tmp_path / "other", ["0" * 8], protocol=card)
    with pytest.raises(UserError, match=r"not measured alike: .*other has max steps 300, where a has 220"):
        said(f"a={one}", f"b={other}")
    text = sequential_text(read_runs([f"a={one}", f"b={other}"]), force=True)
    assert text.startswith("a is better.") and "Not measured alike: b has max steps 300, where a has 220." in text
    apart = [make_run(tmp_path / name, ["1" * 8], tasks=[task]) for task, name in enumerate("xy")]
    with pytest.raises(UserError, match="have no task in common"):
        said(*(f"{run.name}={run}" for run in apart))


def test_it_says_when_all_pairs_are_played(tmp_path: Path) -> None:
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
    assert "of half width 3 points, 6 in all" in text
    assert "388 episodes,    39 for each of 10 tasks" in text
    assert "388 episodes,   194 for each of 2 tasks  p on LIBERO-Spatial" in text
