"""Runs of others, or damaged ones: every odd value of config.json and of a sitting is one sentence, or is shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from eval.run_libero import RunLibero
from tests.vla_harness.runs import configuration, episode
from vla_harness.__main__ import main
from vla_harness.comparison import ComparedRun, compare, document
from vla_harness.comparison.csv_format import to_csv
from vla_harness.comparison.page import html_page
from vla_harness.comparison.text_formats import latex, markdown, plain_text
from vla_harness.environments import check_environment
from vla_harness.errors import UserError
from vla_harness.policies.basic import NoopPolicy
from vla_harness.results import RecordedRun, RunFolder, collect_provenance, read_run, summarize
from vla_harness.results.configuration import CONFIG, config_differences
from vla_harness.results.database import connect, read_sittings, store_sitting
from vla_harness.results.report_html import render_html
from vla_harness.results.report_markdown import render_markdown
from vla_harness.results.stored import check_config, check_sitting, protocol_of, read_json
from vla_harness.success_table import success_table
from vla_harness.tools.plan import plan_text
from vla_harness.tools.playback import Playback

READ: list[Any] = [None, "x\x1b[31m", {}]
"""Of what is accepted, these are read in every way."""
ODD = [*READ, True, -1, 0.5, 10**30, float("nan"), "", [], [[]], {"x": {"y": None}}]
FILE = Path("a/run/config.json")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RecordedRun:
    """Return a run as the command writes one, with all that a sitting measures."""
    path = tmp_path_factory.mktemp("runs") / "run"
    options = asdict(RunLibero(suite="spatial", policy="noop", workers=2, seed=7))
    settings = options | {"benchmark": "libero", "command": "vla-libero", "policy_option": []}
    assets = {"kind": "primitive", "path": "primitive", "digest": "12"}
    action = asdict(NoopPolicy().spec.action)
    measured = {
        "environment": {
            "id": "vla_harness.envs:libero/spatial-v0",
            "options": {"assets": "primitive"},
            "action": action,
        },
        "peak_memory_mb": {"main": 400.0, "largest_worker": 800.0},
        "batch_times": {"sizes": {"1": [4, 0.2], "2": [9, 0.6]}, "waits": [13, 1.0]},
        "ray": {"nodes": 1, "copies": 1},
    }
    with RunFolder.create(path, settings | configuration()) as folder:
        folder.record_provenance(collect_provenance(NoopPolicy(), assets, "egl") | measured)
        for task in (0, 1):
            for state in range(3):
                folder.add(episode(task, state, "success" if state else "failure", steps=5))
    return read_run(path)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to everything inside plain data."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def changed(value: Any, path: tuple[Any, ...], odd: Any) -> Any:
    """Return a copy of plain data with ``odd`` at ``path``."""
    copy = json.loads(json.dumps(value))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = odd
    return copy


def read_in_every_way(run: RecordedRun, other: RecordedRun) -> None:
    """Do with ``run`` what the commands do; a UserError is an answer."""
    summary = summarize(run)
    json.dumps(summary, allow_nan=False)
    success_table(summary), render_markdown(summary, run.results), render_html(summary, run.results)
    with suppress(UserError):
        plan_text(run, 10, 1.0)
    with suppress(UserError):
        Playback(run)
    pair = [ComparedRun("a", other, summarize(other)), ComparedRun("b", run, summary)]
    with suppress(UserError):
        comparison = compare(pair, published=True, force=True)
        page = document(comparison)
        plain_text(page), markdown(page), latex(page), html_page(page), to_csv(comparison)
    config_differences(run.config, other.config)


def test_every_odd_value_of_a_configuration_is_one_sentence_or_no_matter(run: RecordedRun) -> None:
    refused = 0
    config = dict(run.config)
    for path in places(config):
        for odd in ODD:
            mutated = changed(config, path, odd)
            if odd != odd:  # no number: refused while the text is read
                with pytest.raises(ValueError, match="NaN is no number"):
                    read_json(json.dumps(mutated))
                continue
            try:
                check_config(mutated, FILE)
            except UserError as error:
                assert str(error).startswith(f"{FILE} is damaged ({path[0]}") and "\x1b" not in str(error)
                refused += 1
            else:
                if odd in READ:
                    read_in_every_way(replace(run, config=mutated), run)
    assert refused > 200


def test_every_odd_value_of_a_provenance_is_one_sentence_or_no_matter(run: RecordedRun) -> None:
    refused = 0
    (sitting,) = run.sittings
    for path in places(dict(sitting.provenance)):
        for odd in ODD:
            mutated = changed(sitting.provenance, path, odd)
            if odd != odd:
                continue
            try:
                check_sitting(sitting.config, mutated, FILE)
            except UserError as error:
                assert str(error).startswith(f"{FILE} is damaged ({path[0]}") and "\x1b" not in str(error)
                refused += 1
            else:
                if odd in READ:
                    read_in_every_way(replace(run, sittings=(replace(sitting, provenance=mutated),)), run)
    assert refused > 500


@pytest.mark.parametrize(
    ("key", "odd", "problem"),
    [
        ("trials", "3", "trials is int, and '3' is none"),
        ("trials", 0, "trials is 0: give 1 to 1000000"),
        ("tasks", ["0"], "tasks.0 is int, and '0' is none"),
        ("protocol", {"trials": 5}, "protocol.name is missing"),
        ("checkpoint", 5, "checkpoint is str or None, and 5 is none"),
    ],
)
def test_the_sentence_names_file_and_key(
    key: str, odd: Any, problem: str, run: RecordedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / CONFIG
    file.write_text(json.dumps(dict(run.config) | {key: odd}))
    export, plan, replay = ["export", "--out", "out.csv"], ["plan", "--episodes", "5"], ["replay", "--episode", "0/0"]
    for command in (["show"], export, plan, replay):
        assert main([command[0], str(tmp_path), *command[1:]]) == 2
        assert capsys.readouterr().err == f"error: {file} is damaged ({problem}): put back a copy of it.\n"


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"suite": NaN}', '{"trials": 1e999}', '{"suite": 1', "[]", '"run"', ""]
)
def test_what_is_no_configuration_at_all(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / CONFIG).write_text(text)
    assert main(["show", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path}") and said.count("\n") == 1


def test_a_protocol_of_another_version_is_not_played_by_halves(run: RecordedRun) -> None:
    card = dict(run.config["protocol"]) | {"gravity": 0}
    with pytest.raises(UserError, match=r"does not know|not know \(gravity\)"):
        protocol_of({"protocol": card}, FILE)
    assert protocol_of(run.config, FILE).settle_action == tuple(card["settle_action"])


@pytest.mark.parametrize(
    ("gymnasium_id", "options", "problem"),
    [
        ("evil_module:libero/spatial-v0", {}, "is none that this program registers"),
        ("vla_harness.envs:CartPole-v1", {}, "is none that this program registers"),
        ("gymnasium.envs.classic_control:CartPole-v1", {}, "is none that this program registers"),
        ("CartPole-v1", {}, "is none that this program registers"),
        ("vla_harness.envs:libero/none-v0", {}, "is none that this program registers"),
        ("json:libero/spatial-v0", {}, "is none that this program registers"),
        ("", {}, "is none that this program registers"),
        ("vla_harness.envs:libero/spatial-v0", {"wrappers": []}, "has no option 'wrappers'"),
        ("vla_harness.envs:libero/spatial-v0", {"task": 3}, "has no option 'task'"),
        ("vla_harness.envs:libero/spatial-v0", {"assets": 5}, "option assets is str, and 5 is none"),
        ("vla_harness.envs:robosuite/single-arm-v0", {"robot": ["Panda"]}, "option robot is str"),
    ],
)
def test_a_run_names_no_module_and_no_option_that_is_not_ours(
    gymnasium_id: str, options: dict[str, Any], problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil_module.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError) as error:
        check_environment(gymnasium_id, options, FILE)
    assert str(error.value).startswith(str(FILE)) and problem in str(error.value)
    assert "evil_module" not in sys.modules


def test_the_commands_ask_before_anything_is_imported(
    run: RecordedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "evil_module.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "run"
    (sitting,) = run.sittings
    environment = {"id": "evil_module:x/y-v0", "options": {}}
    with RunFolder.create(path, run.config) as folder:
        folder.record_provenance(dict(sitting.provenance) | {"environment": environment})
        folder.add(episode(0, 0, "failure", steps=5))
    for command in (["replay", "--episode", "0/0"], ["show"], ["export", "--out", str(tmp_path / "set")]):
        assert main([command[0], str(path), *command[1:]]) == 2
        assert "is none that this program registers" in capsys.readouterr().err


def test_a_resume_reads_what_it_goes_on_with_before_it_plays(run: RecordedRun, tmp_path: Path) -> None:
    path = tmp_path / "run"
    with RunFolder.create(path, run.config):
        pass
    with closing(connect(path)) as database, database:
        (sitting,) = read_sittings(database)
        store_sitting(database, replace(sitting, provenance={"assets": 7}), 1)
    with pytest.raises(UserError, match=r"episodes\.sqlite is damaged \(assets is dict, and 7 is none\): put back"):
        RunFolder.open(path, run.config)
    with closing(connect(path)) as database, database:  # of flipped bits, a checksum tells: nothing is read of it
        database.execute("""UPDATE sittings SET provenance = '{"assets": 8}'""")
    with RunFolder.open(path, run.config) as folder:
        first, _ = folder.recorded().sittings
    assert not first.intact and first.provenance == {}
