"""The formats of a comparison: every number in each, everything escaped, and the page in a real browser."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.browser import rendered
from tests.vla_harness.comparison.made_runs import make_run, sees_images, stand_ins
from vla_harness.comparison import Comparison, compare, read_runs, write_comparison
from vla_harness.comparison.text_formats import escape_latex
from vla_harness.errors import UserError

NASTY = r"<b>&_50%$#{x}\~^|*`"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder = tmp_path_factory.mktemp("runs")
    words = {"openvla": ["11110", "11111"], NASTY: ["11000", "10000"], "third": ["00000", "01010"]}
    runs = [
        f"{name}={make_run(folder / str(number), outcomes, policy='openvla', provenance=sees_images())}"
        for number, (name, outcomes) in enumerate(words.items())
    ]
    return compare(read_runs(runs), published=True)


@pytest.fixture(scope="module")
def written(made: Comparison, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("out") / "new"
    texts = {}
    for ending in ("md", "tex", "csv", "html"):
        write_comparison(made, folder / f"table.{ending}")
        texts[ending] = (folder / f"table.{ending}").read_text(encoding="utf-8")
    return texts | {"folder": str(folder)}


def test_markdown_has_every_table_with_as_many_cells_in_each_row(written: dict[str, str]) -> None:
    tables = re.findall(r"(?:^\|.*\n)+", written["md"], re.MULTILINE)
    assert len(tables) == 7  # success, differences, tasks, efficiency, runs, published, verdicts
    for table in tables:
        cells = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(cells) == 1
    assert "| **9/10 = 90.0 %" in written["md"]
    assert "<b>" not in written["md"].replace(r"\<b\>", "")


def test_latex_balances_and_escapes(written: dict[str, str]) -> None:
    text = written["tex"]
    assert text.startswith(r"\documentclass") and text.rstrip().endswith(r"\end{document}")
    opened, closed = (re.findall(rf"\\{word}\{{(\w+)\}}", text) for word in ("begin", "end"))
    assert sorted(opened) == sorted(closed) and opened.count("tabular") == 7
    assert text.isascii()
    for tabular in re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", text, re.DOTALL):
        columns, body = tabular
        rows = [line for line in body.splitlines() if line.endswith(r" \\")]
        assert rows and {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(columns)}
    bare = re.sub(r"\\[\\{}%&#_$]|\\[A-Za-z]+", "", text)
    assert bare.count("{") == bare.count("}")
    assert r"\textbf{9/10 = 90.0 \%" in text
    assert text.count(r"\else\leavevmode\box0\fi") == 7  # a bare box is not centred


def test_latex_compiles(written: dict[str, str]) -> None:
    pdflatex = shutil.which("pdflatex")
    assert pdflatex, "This test needs LaTeX: install Debian's package texlive-latex-recommended."
    words = [pdflatex, "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    done = subprocess.run(words, cwd=written["folder"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    assert "Overfull" not in done.stdout and "Missing character" not in done.stdout
    assert Path(written["folder"], "table.pdf").read_bytes().startswith(b"%PDF")


def test_latex_escapes_what_is_special() -> None:
    assert escape_latex("a_b 5 % & $x$ {y} #1 ~ ^ < > | \\") == (
        r"a\_b 5 \% \& \$x\$ \{y\} \#1 \textasciitilde{} \textasciicircum{} \textless{} \textgreater{} \textbar{}"
        r" \textbackslash{}"
    )
    assert escape_latex("[1]\n† – 中") == r"{[}1{]} \textdagger{} -- ?"
    assert escape_latex("π0.5: [-0.5, +3.1], 2020-11") == r"$\pi$0.5: {[}$-$0.5, +3.1{]}, 2020-11"


def test_csv_holds_the_full_numbers(written: dict[str, str], made: Comparison) -> None:
    lines = list(csv.DictReader(io.StringIO(written["csv"])))
    by_kind = {kind: [line for line in lines if line["kind"] == kind] for kind in {line["kind"] for line in lines}}
    assert {kind: len(found) for kind, found in by_kind.items()} == {
        "task": 6, "suite": 3, "difference": 3, "published": 7, "verdict": 3
    }  # fmt: skip
    assert sum(int(line["successes"]) for line in by_kind["task"]) == 9 + 3 + 2
    suite = next(line for line in by_kind["suite"] if line["policy"] == NASTY)
    assert float(suite["value"]) == 0.3 and suite["interval"] == "Wilson 95 %"
    contrast = made.contrasts["libero", "spatial"][0]
    line = by_kind["difference"][0]
    assert (line["policy"], line["against"], int(line["pairs"])) == ("openvla", NASTY, 10)
    assert float(line["p"]) == contrast.p and float(line["low"]) == contrast.interval[0]
    assert all(line["source"] for line in by_kind["published"])
    marks = {line["note"] for kind in ("task", "suite", "difference") for line in by_kind[kind]}
    assert marks == {"Differs from the protocol openvla: 2 of 10 tasks; trials 5 instead of 50."}
    assert all("not comparable" in line["note"] for line in by_kind["verdict"])


def test_the_page_needs_nothing_else(written: dict[str, str]) -> None:
    assert not re.search(r"(src|href|@import|url\()", written["html"])
    assert NASTY not in written["html"] and "&lt;b&gt;&amp;_50%" in written["html"]


SORT = """
const table = document.querySelectorAll("table.sortable")[0];
const buttons = [...table.tHead.querySelectorAll("button")];
const shown = () => [...table.tBodies[0].rows].map((row) => row.cells[1].dataset.order);
const seen = [shown()];
buttons[1].click(); seen.push(shown());
buttons[1].click(); seen.push(shown());
buttons[0].click(); seen.push([...table.tBodies[0].rows].map((row) => row.cells[0].dataset.order));
const plot = document.querySelector("table.plot").getBoundingClientRect();
const bars = [...document.querySelectorAll("table.plot tbody .fill")].map((bar) => bar.getBoundingClientRect().width);
const whiskers = [...document.querySelectorAll("table.plot tbody tr")].map(
  (row) => row.querySelector(".whisker").getBoundingClientRect());
const result = {
  seen, bars, plot: plot.width, sorted: buttons[0].parentElement.getAttribute("aria-sort"),
  whiskers: whiskers.map((box) => box.width),
  loaded: performance.getEntriesByType("resource").map((entry) => entry.name),
};
document.title = "RESULT" + JSON.stringify(result);
"""


def test_the_page_sorts_and_draws_in_a_real_browser(written: dict[str, str], tmp_path: Path) -> None:
    dom = rendered(Path(written["folder"], "table.html"), tmp_path, SORT)
    result = json.loads(re.search(r"<title>RESULT(.*?)</title>", dom, re.DOTALL).group(1))  # type: ignore[union-attr]
    first, up, down, names = result["seen"]
    assert [float(one) for one in first] == [0.9, 0.3, 0.2]
    assert [float(one) for one in up] == [0.2, 0.3, 0.9]
    assert down == up[::-1]
    assert [name.replace("&lt;", "<") for name in names][1:] == ["openvla", "third"]
    assert result["sorted"] == "ascending"
    widths = result["bars"]
    assert widths[0] == pytest.approx(3 * widths[1], rel=0.02) and 100 < widths[0] < result["plot"]
    assert all(width > 20 for width in result["whiskers"])
    assert result["loaded"] == []


def test_four_suites_with_their_mean_fit_into_a_window(tmp_path: Path) -> None:
    runs = [
        f"{name}={make_run(tmp_path / f'{name}-{suite}', ['10'], suite=suite, provenance=stand_ins())}"
        for name in ("first", "second")
        for suite in ("spatial", "object", "goal", "10")
    ]
    write_comparison(compare(read_runs(runs)), tmp_path / "table.html")
    measure = (
        'const box = document.querySelector(".scroll"); document.title = `${box.scrollWidth} of ${box.clientWidth}`;'
    )
    dom = rendered(tmp_path / "table.html", tmp_path / "browser", measure)
    width, room = map(int, re.search(r"<title>(\d+) of (\d+)</title>", dom).groups())  # type: ignore[union-attr]
    assert 1000 < width <= room


def test_an_unknown_ending_and_a_place_that_cannot_be_written_are_refused(made: Comparison, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"end its name in \.md, \.tex, \.csv, \.html"):
        write_comparison(made, tmp_path / "x.docx")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_comparison(made, tmp_path / "file" / "x.md")
