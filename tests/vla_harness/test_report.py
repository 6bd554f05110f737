"""The reports: what they must state, that they stand alone, and that nothing from outside is read as markup."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.vla_harness.runs import PROVENANCE, configuration, episode
from vla_harness.results import RunFolder, write_reports
from vla_harness.types import EpisodeResult

VOID = {"meta", "line", "rect", "br"}


class Page(HTMLParser):
    """Collects tags and text, and fails on a tag that is closed in the wrong place."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def write(
    path: Path, results: list[EpisodeResult], provenance: dict[str, Any] = PROVENANCE, **changes: Any
) -> tuple[str, Page, str]:
    """Write a run's reports; return the Markdown, the parsed page and its source."""
    with RunFolder.create(path, configuration(**changes)) as run:
        run.record_provenance(provenance)
        for result in results:
            run.add(result)
        write_reports(run)
    source = (path / "report.html").read_text(encoding="utf-8")
    return (path / "report.md").read_text(encoding="utf-8"), Page(source), source


def six(**last: Any) -> list[EpisodeResult]:
    """Return the six episodes of the default configuration: 3/3 and 1/3, the last one changed by ``last``."""
    outcomes = ["success"] * 4 + ["failure"] * 2
    results = [episode(i // 3, i % 3, outcome) for i, outcome in enumerate(outcomes)]
    return [*results[:-1], episode(1, 2, **{"outcome": "failure", **last})]


def test_the_markdown_states_counts_rates_and_intervals(tmp_path: Path) -> None:
    markdown, _, _ = write(tmp_path, six())
    assert markdown.startswith("# LIBERO-Spatial: scripted\n\n**4/6 = 66.7 % [30.0, 90.3]**\n")
    assert "| 0 | do task number 0 | 3/3 | 100.0 % | [29.2, 100.0]† | 0 | 80.0 |" in markdown
    assert "| 1 | do task number 1 | 1/3 | 33.3 % | [6.1, 79.2] | 0 | 80.0 |" in markdown
    assert "|  | pooled | 4/6 | 66.7 % | [30.0, 90.3] | 0 | 80.0 |" in markdown
    assert re.search(r"\|  \| task mean \|  \| 66\.7 % \| \[\d\d\.\d, \d\d\.\d\] \|", markdown)
    assert "these 2 tasks and these 3 initial states of each" in markdown
    assert "† exact (Clopper-Pearson)" in markdown
    assert "| mujoco | 3.3.2 |" in markdown
    assert "| settle steps | 10 |" in markdown
    assert "provisional" not in markdown


def test_every_table_has_the_same_number_of_cells_in_every_row(tmp_path: Path) -> None:
    markdown, _, _ = write(tmp_path, six(outcome="error", error="a | b\nc"))
    for table in re.findall(r"(?:^\|.*\n)+", markdown, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1


def test_the_page_shows_the_same_numbers_with_a_bar_and_a_whisker_per_task(tmp_path: Path) -> None:
    _, page, _ = write(tmp_path, six())
    for stated in ("LIBERO-Spatial", "66.7 %", "4/6 episodes", "[30.0, 90.3]", "[29.2, 100.0]†", "do task number 1"):
        assert stated in page.text
    fills = [attributes["width"] for _, attributes in page.tags if attributes.get("class") == "fill"]
    assert fills == ["100.00%", "33.33%", "66.67%", "66.67%"]  # two tasks, pooled, task mean
    whiskers = [attributes for _, attributes in page.tags if attributes.get("class") == "whisker"]
    assert (whiskers[3]["x1"], whiskers[3]["x2"]) == ("6.15%", "79.23%")
    cells = [attributes["class"] for tag, attributes in page.tags if "title" in attributes and tag == "span"]
    assert cells == ["cell success"] * 4 + ["cell failure"] * 2


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    _, page, source = write(tmp_path, six())
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "img", "iframe", "object"})
    assert not [attributes for _, attributes in page.tags if "src" in attributes]
    assert "://" not in source and "url(" not in source and "@import" not in source


@pytest.mark.parametrize("provisional", ["error", "missing"])
def test_a_headline_is_marked_while_errors_or_unplayed_episodes_remain(tmp_path: Path, provisional: str) -> None:
    results = six(outcome="error", error="The worker hung.") if provisional == "error" else six()[:-1]
    markdown, page, _ = write(tmp_path, results)
    assert "**4/5 = 80.0 % [37.6, 96.4] (provisional)**" in markdown
    assert "provisional" in page.text
    stated = "1 episode has ended in an error" if provisional == "error" else "1 episode of 6 not played yet"
    assert stated in markdown and stated in page.text
    if provisional == "error":
        assert "| spatial/1/2/7 | The worker hung. |" in markdown
        assert "The worker hung." in page.text


def test_stand_ins_are_never_shown_as_the_benchmark(tmp_path: Path) -> None:
    provenance = PROVENANCE | {"assets": {"kind": "primitive"}}
    markdown, page, source = write(tmp_path, six(), provenance)
    for text in (markdown, page.text, source, (tmp_path / "summary.json").read_text()):
        assert "LIBERO-Spatial (stand-in assets)" in text
        assert not re.search(r"LIBERO-Spatial(?! \(stand-in assets\))", text)
        assert "this is not a LIBERO result" in text


def test_a_policy_that_reads_the_simulator_is_marked(tmp_path: Path) -> None:
    provenance = PROVENANCE | {"policy_spec": {"reads_scene": True}}
    markdown, page, _ = write(tmp_path, six(), provenance)
    assert "reads the simulator's state" in markdown
    assert "reads the simulator's state" in page.text


def test_nothing_from_outside_becomes_markup(tmp_path: Path) -> None:
    evil = '<script>alert("x")</script> [a](javascript:b) | `c` & "d'
    markdown, page, _ = write(
        tmp_path, [episode(instruction=evil, outcome="error", error=evil, video=evil)], policy=evil, checkpoint=evil
    )
    assert not [tag for tag, _ in page.tags if tag == "script"]
    assert page.text.count(evil) >= 4
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert links == [
        "%3Cscript%3Ealert%28%22x%22%29%3C/script%3E%20%5Ba%5D%28javascript%3Ab%29%20%7C%20%60c%60%20%26%20%22d"
    ]
    body = markdown.replace("\\<", "").replace("\\]", "")
    assert "<script" not in body and "](" not in body


def test_the_report_says_when_how_and_what_was_applied_without_dumps_or_fields_of_one_name(tmp_path: Path) -> None:
    stated = PROVENANCE | {
        "policy_spec": {
            "name": "eyes", "cameras": ["agentview"], "image_size": [128, 128], "image_orientation": "mirrored",
            "image_path": "mirrored, lanczos3 to 224", "state_keys": [], "horizon": 8, "action": {
                "mode": "delta", "translation_unit": 0.05, "rotation": "axis_angle", "rotation_unit": 0.5,
                "gripper_open": -1.0, "gripper_closed": 1.0}},
        "seed": 0,
        "trained_on": [{"name": "a"}, {"name": "b"}],
        "server_metadata": {"model": {"name": "x", "layers": [1, 2]}},
        "environment": {"id": "envs:libero/spatial-v0", "options": {"assets": "/a"}, "action": {}},
    }  # fmt: skip
    command = "python eval/run_libero.py --suite spatial"
    markdown, page, _ = write(tmp_path, six(), stated, command=command)
    for text in (
        "| image path | mirrored, lanczos3 to 224 |",
        "| frames | agentview, 128 x 128 |",
        "| actions per inference | 1 of the policy's 8 |",
        "| run seed | 7 |",
        "| policy seed | 0 |",
        "| policy trained on | a; b |",
        "| policy server metadata model layers | 1, 2 |",
        f"| command | {command} |",
    ):
        assert text in markdown
    assert re.search(r"\| started \| 20\d\d-\d\d-\d\d \d\d:\d\d UTC, for ", markdown)
    assert command in page.text and re.search(r"protocol openvla · 20\d\d-\d\d-\d\d", page.text)
    for dump in ("{'", "['", "PosixPath", "None", "translation_unit"):
        assert dump not in markdown and dump not in page.text
    names = re.findall(r"^\| ([^|]+) \|", markdown[markdown.index("## Run") :], re.MULTILINE)
    named = [name for name in names if name not in ("field", "---")]
    assert len(named) == len(set(named))


def test_videos_are_linked(tmp_path: Path) -> None:
    _, page, _ = write(tmp_path, six(video="videos/task 1.mp4"))
    assert [attributes["href"] for tag, attributes in page.tags if tag == "a"] == ["videos/task%201.mp4"]


def test_a_run_without_episodes_has_reports(tmp_path: Path) -> None:
    markdown, page, _ = write(tmp_path, [])
    assert "| 0 | task 0 | 0/0 | – | – | 0 | – |" in markdown
    assert "task 1" in page.text


def test_a_suite_that_is_not_liberos_keeps_its_own_name(tmp_path: Path) -> None:
    markdown, _, _ = write(tmp_path, [], suite="robosuite")
    assert markdown.startswith("# robosuite: scripted\n")
