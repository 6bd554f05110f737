"""The comparison command as a user meets it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.vla_harness.comparison.made_runs import make_run, stand_ins
from vla_harness.eval.compare import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("runs")
    made = {
        "good": make_run(folder / "good", ["1" * 10, "1111111110"], policy="good"),
        "poor": make_run(folder / "poor", ["0" * 10, "1010000000"], policy="poor"),
        "odd": make_run(folder / "odd", ["0" * 10, "1010000000"], policy="odd", provenance=stand_ins()),
    }
    return {name: str(path) for name, path in made.items()}


def test_it_runs_from_a_checkout_and_prints_and_writes(runs: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "table.md"
    command = [sys.executable, str(ROOT / "eval" / "compare.py"), runs["good"], runs["poor"], "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "19/20 = 95.0 %" in done.stdout and "+85.0" in done.stdout and f"Written: {out}" in done.stdout
    assert "| good | poor | 20 pairs | 17 | 0 | +85.0 |" in out.read_text()


def test_help_explains_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for option in ("--baseline", "--published", "--out", "--force", "--target-halfwidth", "--sequential"):
        assert option in shown


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{good}", "{odd}"], "not measured alike: {odd} has assets stand-ins 99, where good has files 12"),
        ([], "No run is given"),
        (["{good}", "{poor}", "--out", "x.pdf"], "--out is x.pdf: end its name in .md, .tex, .csv, .html."),
        (["{good}", "--sequential"], "--sequential compares two policies"),
        (["--target-halfwidth", "3"], "--target-halfwidth is 3.0: give more than 0, to less than 0.5"),
        (["{good}", "{poor}", "--baseline", "z"], "--baseline is 'z'"),
        (["nowhere"], "nowhere is not a run"),
        (
            ["{good}", "{poor}", "--sequential", "--out", "x.md"],
            "--sequential only prints its own answer: leave out --out",
        ),
        (["--target-halfwidth", "0.1", "--force", "--published"], "leave out --published and --force"),
    ],
)
def test_what_a_user_can_mend_is_one_sentence_and_exit_code_2(
    runs: dict[str, str], arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([argument.format(**runs) for argument in arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and sentence.format(**runs) in said and said.count("\n") == 1


def test_force_baseline_sequential_and_plan_together(runs: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*runs.values(), "--force", "--baseline", runs["poor"]]) == 0
    shown = capsys.readouterr().out
    assert "Not measured alike: assets stand-ins 99, where poor has files 12" in shown
    assert "20 and 20, unpaired" in shown and "Boschloo" in shown
    assert main([runs["good"], runs["poor"], "--sequential"]) == 0
    assert capsys.readouterr().out.startswith("good is better.")
    assert main(["--target-halfwidth", "0.03"]) == 0
    assert "1,064 episodes" in capsys.readouterr().out
