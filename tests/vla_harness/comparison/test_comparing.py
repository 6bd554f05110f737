"""What is compared with what: names, pairs, refusals, letters, means."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.vla_harness.comparison.made_runs import make_run, reads_scene, stand_ins
from vla_harness.comparison import FORMATS, Comparison, compare, contrasts, document, read_runs, write_comparison
from vla_harness.comparison.document import Table
from vla_harness.comparison.planning import sequential_text
from vla_harness.comparison.text_formats import plain_text
from vla_harness.errors import UserError
from vla_harness.protocols import PROTOCOLS
from vla_harness.results import RunFolder, read_run
from vla_harness.results.measured import peak_memory_mb
from vla_harness.statistics import PairCounts, fisher_p, mcnemar_p, stratified_interval

SPATIAL = ("libero", "spatial")
GOOD, POOR = ["1111111111", "1111111100"], ["1010101010", "0000000011"]


def comparison(*runs: str | Path, **options: Any) -> Comparison:
    return compare(read_runs([str(run) for run in runs]), **options)


def table(made: Comparison, title: str) -> Table:
    return next(one for one in document(made).tables if one.title.startswith(title))


def texts(made: Comparison, title: str) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table(made, title).rows]


# Names.


def test_runs_are_called_after_their_policy_or_as_they_are_named(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one", GOOD, policy="openvla")
    two = make_run(tmp_path / "two", POOR, policy="groot")
    assert [run.name for run in read_runs([str(one), f"ours={two}"])] == ["openvla", "ours"]


def test_kinds_of_policies_that_one_entry_of_the_registry_loads_are_told_apart(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one", GOOD, policy="openvla")
    other = make_run(tmp_path / "other", GOOD, policy="openvla-oft", suite="object")
    config = other / "config.json"
    config.write_text(config.read_text().replace('"policy": "openvla-oft"', '"policy": "openvla"'))
    assert [run.name for run in read_runs([str(one), str(other)])] == ["openvla", "openvla-oft"]


def test_one_policys_runs_on_several_suites_are_one_row_also_with_a_checkpoint_for_each(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / suite, GOOD, suite=suite, policy="openvla", checkpoint=f"hub/openvla-{suite}")
        for suite in ("spatial", "object")
    ]
    made = comparison(*runs)
    assert list(made.policies) == ["openvla"] and len(made.suites) == 2


@pytest.mark.parametrize(
    ("first", "second", "names"),
    [
        ({"checkpoint": "a/x"}, {"checkpoint": "b/y"}, ["p (x)", "p (y)"]),
        ({"seed": 7}, {"seed": 8}, ["p (seed 7)", "p (seed 8)"]),
        ({}, {}, ["p (one)", "p (two)"]),
    ],
)
def test_two_runs_of_one_policy_are_told_apart_by_what_differs(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], names: list[str]
) -> None:
    runs = [
        make_run(tmp_path / "one", GOOD, policy="p", **first),
        make_run(tmp_path / "two", POOR, policy="p", **second),
    ]
    assert [run.name for run in read_runs([str(run) for run in runs])] == names


def test_policies_that_differ_on_a_suite_stay_one_row_over_suites_with_a_checkpoint_for_each(tmp_path: Path) -> None:
    runs = [
        make_run(
            tmp_path / precision / suite,
            GOOD,
            suite=suite,
            policy="p",
            checkpoint=f"hub/{suite}",
            provenance={"precision": precision},
        )
        for precision in ("bf16", "4bit")
        for suite in ("spatial", "object")
    ]
    made = comparison(*runs)
    assert list(made.policies) == ["p (bf16)", "p (4bit)"] and set(made.average) == {"p (bf16)", "p (4bit)"}


def test_runs_in_folders_of_one_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / part / "run", words, policy="p") for part, words in (("a", GOOD), ("b", POOR))]
    assert [run.name for run in read_runs([str(run) for run in runs])] == [f"p ({run})" for run in runs]


def test_what_cannot_be_read_or_named_is_refused_in_one_sentence(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one", GOOD)
    two = make_run(tmp_path / "two", GOOD)
    empty = make_run(tmp_path / "empty", ["eee"])
    for arguments, message in (
        ([f"a={one}", f"a={two}"], "both 'a' on spatial: give each a name of its own"),
        ([str(one), str(one)], "given twice"),
        ([str(empty)], "no finished episode"),
        ([str(tmp_path / "nothing")], "is not a run"),
    ):
        with pytest.raises(UserError, match=message):
            read_runs(arguments)


def test_two_runs_that_are_the_same_episodes_are_called_one_measurement(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one", ["11", "10"], policy="p", seed=7)
    two = make_run(tmp_path / "two", ["11", "10"], policy="p", seed=8)
    other = make_run(tmp_path / "other", ["11", "11"], policy="q")
    (repeat,) = comparison(one, two, other).repeats
    assert repeat.text == (
        "All 4 episodes shared with p (seed 7) ended alike by the same actions, so the other seed changed nothing: this"
        " is one measurement, not two independent ones."
    )
    for ending in FORMATS:
        write_comparison(comparison(one, two), tmp_path / f"table{ending}")
        assert "one measurement, not two" in (tmp_path / f"table{ending}").read_text()
    assert "one measurement, not two" in plain_text(document(comparison(one, two)))
    assert "one measurement, not two" in sequential_text(read_runs([str(one), str(two)]), alpha=0.9)


# Alike or not.


def test_default_runs_of_policies_with_different_protocols_are_alike_where_nothing_differs_in_effect(
    tmp_path: Path,
) -> None:
    """The shipped policy's protocol executes whole chunks, the expert's one action, and it returns one."""
    cards = {name: json.loads(json.dumps(asdict(PROTOCOLS[name]))) for name in ("vla-harness", "openvla")}
    spec = {"cameras": ["agentview"], "image_size": [128, 128], "reads_scene": False, "horizon": 8}
    learned = make_run(
        tmp_path / "learned", GOOD, policy="tformer", protocol=cards["vla-harness"], provenance={"policy_spec": spec}
    )
    expert = make_run(tmp_path / "expert", GOOD, protocol=cards["openvla"], provenance=reads_scene())
    assert comparison(learned, expert).contrasts[SPATIAL][0].counts is not None
    cut = make_run(tmp_path / "cut", GOOD, policy="cut", protocol=cards["openvla"], provenance={"policy_spec": spec})
    with pytest.raises(UserError, match="cut has actions per inference 1, where tformer has all of the policy's"):
        comparison(learned, cut)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"planned": 20}, "trials 20, where a has 10"),
        ({"provenance": stand_ins()}, "assets stand-ins 99, where a has files 12"),
        ({"provenance": {"versions": {"mujoco": "3.3.7", "robosuite": "1.4.0", "hf-libero": "0.1.4"}}}, "mujoco 3.3.7"),
        ({"protocol": {"name": "x"}}, "settle steps –, where a has 10"),
        ({"tasks": [0, 1, 2]}, "tasks 0, 1, 2, where a has 0, 1"),
    ],
)
def test_runs_that_were_not_measured_alike_are_refused_unless_forced_and_then_marked(
    tmp_path: Path, changes: dict[str, Any], field: str
) -> None:
    one = make_run(tmp_path / "one", GOOD)
    other = make_run(tmp_path / "other", POOR, **changes)
    with pytest.raises(UserError, match="not measured alike") as refusal:
        comparison(f"a={one}", f"b={other}")
    assert field in str(refusal.value) and "--force" in str(refusal.value)
    forced = comparison(f"a={one}", f"b={other}", force=True)
    notes = table(forced, "Success").notes
    (number,) = (note[1 : note.index("]")] for note in notes if f"] Not measured alike: {field}" in note)
    reference, marked = (row[1].partition("[")[2].strip("]").split(", ") for row in texts(forced, "Success"))
    assert number in marked and number not in reference


def test_a_policys_own_settings_may_differ(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one", GOOD, precision="bf16", workers=1)
    spec = {"policy_spec": {"name": "x", "cameras": ["wrist"], "image_size": [224, 224], "reads_scene": False}}
    other = make_run(tmp_path / "other", POOR, precision="4bit", checkpoint="c", seed=9, provenance=spec)
    assert not comparison(f"a={one}", f"b={other}").departures


def test_suites_are_measured_alike_too_but_each_has_its_own_steps(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one", GOOD)
    long = make_run(tmp_path / "long", GOOD, suite="10")
    assert not comparison(f"a={one}", f"a={long}").departures
    other = make_run(tmp_path / "other", GOOD, suite="10", provenance=stand_ins())
    with pytest.raises(UserError, match=r"assets stand-ins 99, where a on LIBERO-Spatial has files 12"):
        comparison(f"a={one}", f"a={other}")


def test_stand_ins_are_marked_in_every_table_that_shows_them(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, GOOD, provenance=stand_ins()) for name in "ab"]
    made = comparison(*(f"{run.name}={run}" for run in runs))
    page = document(made)
    assert "(stand-in assets)" in page.title
    assert page.notes[0] == "Played on generated stand-in assets: this is not a LIBERO result."
    assert "LIBERO-Spatial (stand-in assets)" in table(made, "Success").head


# Statistics.


def test_differences_rest_on_the_pairs_that_both_finished(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one", ["11101", "1e110"])
    other = make_run(tmp_path / "other", ["01001", "1110-"], planned=5)
    made = comparison(f"a={one}", f"b={other}")
    (contrast,) = made.contrasts[SPATIAL]
    assert contrast.counts == PairCounts(both=4, first_only=3, second_only=0, neither=1)
    assert contrast.p == mcnemar_p(contrast.counts) == 0.25
    assert contrast.difference == pytest.approx(3 / 8)
    assert texts(made, "Differences")[0][:6] == ["a", "b", "8 pairs", "3", "0", "+37.5"]
    assert "(provisional)" in texts(made, "Success")[0][1]  # an error is left


def test_episodes_from_other_starting_states_are_no_pairs(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one", GOOD)
    other = make_run(tmp_path / "other", POOR, provenance=stand_ins())
    made = comparison(f"a={one}", f"b={other}", force=True)
    (contrast,) = made.contrasts[SPATIAL]
    assert contrast.counts is None and contrast.episodes == (20, 20)
    assert contrast.difference == pytest.approx(18 / 20 - 7 / 20)
    assert contrast.p < 0.01 and contrast.probability > 0.99
    assert "Boschloo" in " ".join(table(made, "Differences").notes)
    assert texts(made, "Differences")[0][2] == "20 and 20, unpaired"


def test_many_episodes_that_are_no_pairs_are_compared_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contrasts, "BOSCHLOO_TRIALS", 19)
    one = make_run(tmp_path / "one", GOOD)
    other = make_run(tmp_path / "other", POOR, provenance=stand_ins())
    made = comparison(f"a={one}", f"b={other}", force=True)
    (contrast,) = made.contrasts[SPATIAL]
    assert contrast.test == "Fisher" and contrast.p == fisher_p((18, 20), (7, 20))
    notes = " ".join(table(made, "Differences").notes)
    assert "p: Fisher's exact test" in notes and "for more than 200 episodes a side" in notes


def test_holm_corrects_within_a_suite_and_letters_follow(tmp_path: Path) -> None:
    words = {"a": "1" * 20, "b": "1" * 19 + "0", "c": "1" * 8 + "0" * 12, "d": "0" * 20}
    runs = [f"{name}={make_run(tmp_path / name, [word])}" for name, word in words.items()]
    made = comparison(*runs)
    found = {(one.first, one.second): one for one in made.contrasts[SPATIAL]}
    assert len(found) == 6
    assert found["a", "d"].adjusted_p == pytest.approx(6 * found["a", "d"].p)
    assert found["a", "b"].adjusted_p == 1.0
    assert made.letters[SPATIAL] == {"a": "a", "b": "a", "c": "b", "d": "c"}
    assert [row[-1] for row in texts(made, "Success")] == ["a", "a", "b", "c"]


def test_a_baseline_is_tested_against_all_others_and_only_it(tmp_path: Path) -> None:
    paths = {name: make_run(tmp_path / name, [word]) for name, word in {"a": "1111", "b": "1110", "c": "1000"}.items()}
    runs = [f"{name}={path}" for name, path in paths.items()]
    by_name, by_path = (comparison(*runs, baseline=one) for one in ("b", str(paths["b"])))
    for made in (by_name, by_path):
        assert [(one.first, one.second) for one in made.contrasts[SPATIAL]] == [("a", "b"), ("c", "b")]
        assert not made.letters
    with pytest.raises(UserError, match=r"--baseline is 'z', which is none of the runs: give .* of a, b, c"):
        comparison(*runs, baseline="z")


def test_the_mean_of_the_suites_needs_all_of_them(tmp_path: Path) -> None:
    runs = [f"a={make_run(tmp_path / s, GOOD, suite=s)}" for s in ("spatial", "object", "goal", "10")]
    runs += [f"b={make_run(tmp_path / ('b' + s), POOR, suite=s)}" for s in ("spatial", "object")]
    made = comparison(*runs)
    assert made.average == {"a": (0.9, stratified_interval([(18, 20)] * 4))}
    assert None not in made.contrasts  # b did not play what a played
    head = table(made, "Success").head
    assert head[1::2] == ["LIBERO-Spatial", "LIBERO-Object", "LIBERO-Goal", "LIBERO-10 (Long)", "mean of 4"]
    assert texts(made, "Success")[1][5] == "–"
    whole = comparison(*runs[:2], *runs[4:])
    (together,) = whole.contrasts[None]
    assert together.counts is not None and together.counts.pairs == 40
    assert set(whole.letters) == {SPATIAL, ("libero", "object"), None}


def test_a_mean_of_nothing_is_not_the_best(tmp_path: Path) -> None:
    runs = [
        f"{name}={make_run(tmp_path / (name + suite), ['00'], suite=suite)}"
        for name in "ab"
        for suite in ("spatial", "goal")
    ]
    made = comparison(*runs)
    assert [row[5].text for row in table(made, "Success").rows] == ["0.0 %"] * 2
    assert not any(cell.bold for row in table(made, "Success").rows for cell in row)
    assert "Bold" not in table(made, "Success").notes[0]


def test_the_best_is_bold_but_never_a_policy_that_reads_the_simulator(tmp_path: Path) -> None:
    expert = make_run(tmp_path / "expert", ["1111", "1111"], provenance=reads_scene())
    one = make_run(tmp_path / "one", ["1110", "0000"])
    two = make_run(tmp_path / "two", ["1000", "0000"])
    made = comparison(f"expert={expert}", f"one={one}", f"two={two}")
    bold = [[cell.text for cell in row if cell.bold] for row in table(made, "Success").rows]
    assert bold == [[], ["3/8 = 37.5 %"], []]
    tasks = [[cell.text for cell in row if cell.bold] for row in table(made, "Tasks").rows]
    assert tasks == [["3/4 = 75.0 %"], []]  # where none succeeds, none is best
    assert "do not read the simulator's state" in table(made, "Success").notes[0]


def test_tasks_have_their_counts_and_the_exact_interval_at_the_bounds(tmp_path: Path) -> None:
    made = comparison(make_run(tmp_path / "one", ["1110", "1111"], policy="p"))
    assert table(made, "Tasks").head == ["task", "instruction", "p", "95 %"]
    assert texts(made, "Tasks") == [
        ["0", "do task number 0", "3/4 = 75.0 %", "[30.1, 95.4]"],
        ["1", "do task number 1", "4/4 = 100.0 %", "[39.8, 100.0]†"],
    ]


def test_efficiency_is_computed_from_the_episodes(tmp_path: Path) -> None:
    made = comparison(make_run(tmp_path / "one", ["11"], policy="p"))
    row = dict(zip(table(made, "Efficiency").head, texts(made, "Efficiency")[0], strict=True))
    assert row["steps on success"] == "60.5"
    assert row["p50 ms"] == "1.5"
    assert row["control Hz"] == f"{121 / (2 * (1.5 + 2.25 + 1 / 3) / 1000):,.1f}"


# Published rates.


def published_run(path: Path, successes: int, **config: Any) -> Path:
    """Write a run of ten tasks with five episodes each."""
    outcomes = "1" * successes + "0" * (50 - successes)
    settings = {"policy": "openvla", "provenance": {"policy_spec": {"cameras": ["agentview"]}}} | config
    return make_run(path, [outcomes[task::10] for task in range(10)], **settings)


@pytest.mark.parametrize(("successes", "word"), [(42, "inside"), (47, "inside"), (30, "outside"), (50, "outside")])
def test_a_run_is_inside_or_outside_the_published_rate(tmp_path: Path, successes: int, word: str) -> None:
    made = comparison(published_run(tmp_path / "run", successes), published=True)
    (row,) = texts(made, "Runs against")
    assert row[2] == "OpenVLA, fine-tuned" and row[-1] == word
    rows = {row[0]: row for row in texts(made, "Published")}
    assert rows["OpenVLA, fine-tuned"][1] == "84.7 % of 1500" and "arXiv:2406.09246" in rows["OpenVLA, fine-tuned"][3]


def test_published_rates_never_enter_the_tests(tmp_path: Path) -> None:
    one, two = published_run(tmp_path / "one", 42), published_run(tmp_path / "two", 40)
    without = comparison(f"a={one}", f"b={two}")
    made = comparison(f"a={one}", f"b={two}", published=True)
    assert made.contrasts == without.contrasts and made.letters == without.letters
    assert texts(made, "Success") == texts(without, "Success")


def test_suites_without_published_rates_are_said(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["11"], benchmark="robosuite", suite="two-arm")
    with pytest.raises(UserError, match=r"^--published knows rates on LIBERO's suites .* alone: leave it out\.$"):
        comparison(run, published=True)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"protocol": json.loads(json.dumps(asdict(PROTOCOLS["openpi"])))}, "protocol openpi instead of openvla"),
        ({"provenance": stand_ins()}, "played on stand-in assets"),
        ({"planned": 6}, "errors or unplayed episodes are left"),
    ],
)
def test_a_run_under_other_conditions_reproduces_nothing(tmp_path: Path, config: dict[str, Any], reason: str) -> None:
    made = comparison(published_run(tmp_path / "run", 42, **config), published=True)
    (row,) = texts(made, "Runs against")
    assert row[-1] == f"not comparable: {reason}"


def test_peak_memory_is_the_largest_of_the_sittings_and_no_difference_between_them(tmp_path: Path) -> None:
    peaks = ({"main": 100.0, "largest_worker": 900.0}, {"main": 300.0, "largest_worker": 800.0, "gpu": 50.0})
    path = make_run(tmp_path / "run", ["11"], policy="p", provenance={"peak_memory_mb": peaks[0]})
    first = read_run(path)
    with RunFolder.open(path, first.config) as folder:
        folder.record_provenance({**first.sittings[0].provenance, "peak_memory_mb": peaks[1]})
    made = comparison(path)
    row = dict(zip(table(made, "Efficiency").head, texts(made, "Efficiency")[0], strict=True))
    assert (row["MB"], row["worker MB"], row["GPU MB"]) == ("300", "900", "50")
    assert "mixed" not in {mark["kind"] for mark in made.runs[0].summary["marks"]}


def test_peak_memory_grows_with_what_is_used() -> None:
    before = peak_memory_mb()["main"]
    held = np.ones(40_000_000)  # 320 MB, touched
    assert peak_memory_mb()["main"] >= min(before + 300, held.nbytes / 1e6)
    assert 0 <= peak_memory_mb()["largest_worker"] < 1e6
