"""Damage to a run's files: found where it changes anything, named, and mended by going on with the run."""

import random
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from tests.vla_harness.runs import PROVENANCE, configuration, episode
from vla_harness.errors import UserError
from vla_harness.results import RecordedRun, RunFolder, read_run, summarize
from vla_harness.results import database as stored
from vla_harness.results.database import DATABASE
from vla_harness.results.repair import SET_ASIDE

EPISODES = [
    episode(task, state, steps=60 + state, video=f"videos/{task}-{state}.mp4") for task in (0, 1) for state in range(6)
]


def make(path: Path) -> Path:
    with RunFolder.create(path, configuration(trials=6)) as run:
        run.record_provenance(PROVENANCE)
        for result in EPISODES:
            run.add(result)
    return path


def visible(run: RecordedRun) -> str:
    """Everything that a run's reader is given."""
    episodes = [(result, result.actions.tobytes(), result.action_sha256) for result in run.results]
    return repr((run.config, run.sittings, [(repr(one), *rest) for one, *rest in episodes], run.unchecked))


def test_a_flipped_bit_is_found_wherever_it_changes_anything(tmp_path: Path) -> None:
    path = make(tmp_path)
    file, whole = path / DATABASE, visible(read_run(path))
    content = file.read_bytes()
    draw = random.Random(0)
    found: Counter[str] = Counter()
    for _ in range(300):
        place = draw.randrange(len(content))
        file.write_bytes(content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :])
        try:
            run = read_run(path)
        except UserError as error:
            found["named" if "The episode" in str(error) else "said"] += 1
            assert "--resume" in str(error) or "layout" in str(error)
            continue
        if visible(run) != whole:
            assert "damaged" in [mark["kind"] for mark in summarize(run)["marks"]]
            found["marked"] += 1
        else:
            found["unseen"] += 1  # in space that holds nothing
    assert found["named"] > 100 and found["said"] > 5
    assert found["unseen"] < 150


def test_a_damaged_episode_is_named_and_going_on_plays_it_again(tmp_path: Path) -> None:
    path = make(tmp_path)
    content = (path / DATABASE).read_bytes()
    place = content.index(EPISODES[7].actions.tobytes()[:80]) + 40
    (path / DATABASE).write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
    with pytest.raises(UserError, match=r"The episode spatial/1/1/7 in .* is damaged: .* with --resume plays it again"):
        read_run(path)
    with RunFolder.open(path, configuration(trials=6)) as run:
        assert run.damaged == ["spatial/1/1/7"]
        assert len(run.finished()) == 11 and EPISODES[7].key not in run.finished()
        assert run.add(EPISODES[7])
    assert [result.key for result in read_run(path).results] == [result.key for result in EPISODES]
    with RunFolder.open(path, configuration(trials=6)) as run:
        assert run.damaged == []


def test_a_file_with_a_broken_structure_is_written_anew_from_what_can_be_read(tmp_path: Path) -> None:
    path = make(tmp_path)
    content = bytearray((path / DATABASE).read_bytes())
    size = 4096
    first = content.index(EPISODES[4].actions.tobytes()[:80]) // size * size
    content[first : first + size] = bytes(size)
    (path / DATABASE).write_bytes(content)
    with pytest.raises(UserError, match=r"is damaged: .*--resume"):
        read_run(path)
    with RunFolder.open(path, configuration(trials=6)) as run:
        (words,) = run.damaged
        assert words == f"all but the {len(run.finished())} that could be read ({SET_ASIDE} is the damaged file)"
        assert 4 <= len(run.finished()) < 12
        for result in EPISODES:
            run.add(result)
    run_now = read_run(path)
    assert [result.action_sha256 for result in run_now.results] == [result.action_sha256 for result in EPISODES]
    assert run_now.sittings[0].provenance == PROVENANCE and (path / SET_ASIDE).read_bytes() == content


def test_a_file_that_is_no_database_any_more_is_left_and_said(tmp_path: Path) -> None:
    path = make(tmp_path)
    content = b"no" + (path / DATABASE).read_bytes()[2:]
    (path / DATABASE).write_bytes(content)
    with pytest.raises(UserError, match="is damaged beyond reading: put back a copy"):
        RunFolder.open(path, configuration(trials=6))
    assert (path / DATABASE).read_bytes() == content


def test_a_database_of_the_earlier_layout_is_read_and_continued_and_it_is_said(tmp_path: Path) -> None:
    path = make(tmp_path)
    with closing(sqlite3.connect(path / DATABASE)) as database:
        for table in ("episodes", "sittings"):
            database.execute(f"ALTER TABLE {table} DROP COLUMN checksum")
        database.execute("PRAGMA user_version = 1")
        database.commit()
    run = read_run(path)
    assert len(run.results) == 12 and run.unchecked == 12
    (text,) = [mark["text"] for mark in summarize(run)["marks"] if mark["kind"] == "unchecked"]
    assert text.startswith("12 episodes of an earlier version, stored without checksums")
    with RunFolder.open(path, configuration(trials=7)) as again:
        again.add(episode(0, 6))
    assert len(read_run(path).results) == 13 and read_run(path).unchecked == 12
    with closing(sqlite3.connect(path / DATABASE)) as database, database:
        database.execute(
            "UPDATE episodes SET actions = zeroblob(length(actions)) WHERE task_id = 1 AND initial_state = 0"
        )
    with pytest.raises(UserError, match="The episode spatial/1/0/7"):
        read_run(path)


@pytest.mark.parametrize(
    "change",
    [
        "steps = 'many'",
        "wall_s = 'long'",
        "actions = x'00'",
        "policy_ms = x'0102'",
        "error = x'ff'",
        "task_id = 1.5",
        "action_dim = -7",
    ],
)
@pytest.mark.parametrize("layout", [1, 2])
def test_rows_of_odd_types_are_damage(tmp_path: Path, change: str, layout: int) -> None:
    path = make(tmp_path)
    with closing(sqlite3.connect(path / DATABASE)) as database:
        summed = "''" if layout == 1 else "checksum"
        database.execute(f"UPDATE episodes SET checksum = {summed}, {change} WHERE task_id = 0 AND initial_state = 2")
        database.execute(f"PRAGMA user_version = {layout}")
        database.commit()
    with pytest.raises(UserError, match="is damaged"):
        read_run(path)


def test_a_locked_database_is_waited_for_and_then_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path)
    monkeypatch.setattr(stored, "LOCK_WAIT_S", 0.2)
    with closing(sqlite3.connect(path / DATABASE)) as other:
        other.execute("BEGIN EXCLUSIVE")
        for use in (lambda: read_run(path), lambda: RunFolder.open(path, configuration(trials=6))):
            with pytest.raises(UserError, match=r"locked by another process for 0\.2 s: end that, and run this again"):
                use()
    assert len(read_run(path).results) == 12
