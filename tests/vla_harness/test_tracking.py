"""What TensorBoard and Weights & Biases hold after a run, read back from their own files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.vla_harness.runs import configuration, episode
from vla_harness import tracking
from vla_harness.errors import UserError
from vla_harness.results import RunFolder, summarize
from vla_harness.tracking import OUTLETS, Outlet, require_outlet

EPISODES = [
    episode(0, 0, "success"),
    episode(1, 0, "failure", 220),
    episode(0, 1, "error", 3, policy_ms=()),
    episode(1, 1, "success"),
]
RATES = [(1, 1.0), (2, 1 / 2), (4, 2 / 3)]
TASK_1 = [(2, 0.0), (4, 1 / 2)]


def track(outlet: Outlet, path: Path) -> None:
    """Two sittings, of two episodes each."""
    with RunFolder.create(path, configuration()) as folder, OUTLETS[outlet](folder) as tracker:
        for result in EPISODES[:2]:
            folder.add(result)
            tracker.episode(result)
    with RunFolder.open(path, configuration()) as folder, OUTLETS[outlet](folder) as tracker:
        for result in EPISODES[2:]:
            folder.add(result)
            tracker.episode(result)
        tracker.end(summarize(folder.recorded()))


def test_tensorboard_holds_episodes_rates_times_and_the_table(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    track("tensorboard", tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()

    def scalars(name: str) -> list[tuple[int, Any]]:
        return [(event.step, pytest.approx(event.value)) for event in events.Scalars(name)]

    assert scalars("success_rate/all") == RATES and scalars("success_rate/01_task_number_1") == TASK_1
    assert scalars("episode/success") == [(1, 1), (2, 0), (4, 1)]
    assert scalars("episode/steps") == [(1, 80), (2, 220), (3, 3), (4, 80)]
    assert scalars("time/decision_ms") == [(step, (1.5 + 2.25 + 1 / 3) / 3) for step in (1, 2, 4)]
    (table,) = events.Tensors("tasks")
    assert "| 1 | task_number_1 | 1 | 2 | 0 | 0.500 | 80.000 |" in table.tensor_proto.string_val[0].decode()
    assert events.SummaryMetadata("tasks").plugin_data.plugin_name == "text"


def leveldb_records(content: bytes) -> Iterator[bytes]:
    """Yield the records of a .wandb file: LevelDB's log format, after a header of 7 bytes."""
    at, block, parts = 7, 1 << 15, b""
    while at + 7 <= len(content):
        if block - at % block < 7:  # no record begins in the last bytes of a block
            at += block - at % block
            continue
        size, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        parts += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def test_wandb_holds_the_same_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    monkeypatch.setenv("WANDB_MODE", "offline")
    track("wandb", tmp_path / "run")
    files = sorted((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    history: list[dict[str, Any]] = []
    for file in files:
        for data in leveldb_records(file.read_bytes()):
            record = Record.FromString(data)
            if record.HasField("history"):
                items = record.history.item
                history.append({"/".join([i.key, *i.nested_key]).strip("/"): json.loads(i.value_json) for i in items})
    assert len(files) == 2 and len({file.name for file in files}) == 1  # both sittings are one run there
    rates = [(row["_step"], row["success_rate/all"]) for row in history if "success_rate/all" in row]
    assert rates == [(step, pytest.approx(rate)) for step, rate in RATES]
    assert [row["time/episode_s"] for row in history if "time/episode_s" in row] == [1.0] * 4
    assert any("tasks" in name for row in history for name in row)


def test_nothing_is_written_unless_asked_for(tmp_path: Path) -> None:
    track("none", tmp_path / "run")
    assert not [path for path in (tmp_path / "run").iterdir() if path.is_dir()]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^--track wandb needs wandb: run `pip install 'vla-harness\[wandb\]'`\.$"):
        require_outlet("wandb")
    require_outlet("none")
