"""The progress of a run, piped and on a terminal."""

import io
import re
from dataclasses import replace

import pytest

from tests.vla_harness.runs import episode
from vla_harness import progress as progress_module
from vla_harness.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_piped_progress_is_one_line_per_episode() -> None:
    stream = io.StringIO()
    with Progress(4, already=[episode(0, 0), episode(0, 1, "error")], stream=stream) as progress:
        progress.update(episode(0, 1, steps=87))
        progress.update(episode(0, 2, "failure", steps=220))
        progress.update(episode(0, 3, "error", error="It hung."))
    first, second, third, fourth = stream.getvalue().splitlines()
    assert first == "1 of 4 episodes are there already: 1/1 = 100.0 % [20.7, 100.0]"
    assert re.fullmatch(
        r"\[2/4\] spatial/0/1/7: success in 87 steps; 2/2 = 100\.0 % \[34\.2, 100\.0\]; "
        r"elapsed 0:00:0\d, remaining 0:00:0\d",
        second,
    )
    assert "[3/4] spatial/0/2/7: failure in 220 steps; 2/3 = 66.7 % [20.8, 93.9];" in third
    assert "[4/4] spatial/0/3/7: error: It hung.; 2/3 = 66.7 % [20.8, 93.9], 1 error;" in fourth
    assert fourth.endswith("remaining 0:00:00")
    assert "\r" not in stream.getvalue()


def test_what_remains_is_told_from_the_time_of_playing_not_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, *[172.0] * 5, *[177.0] * 5])  # loading and compiling, then episodes of 5 s
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    with Progress(50, stream=stream) as progress:
        progress.update(replace(episode(0, 0), wall_s=5.0))
    assert "elapsed 0:02:52, remaining 0:04:05" in stream.getvalue()


def test_a_terminal_gets_a_bar_with_the_rate_and_errors_above_it() -> None:
    stream = Terminal()
    with Progress(4, already=[episode(0, 0)], stream=stream) as progress:
        progress.update(episode(0, 1, "failure"))
        progress.update(episode(0, 2, "error", error="It hung."))
    shown = stream.getvalue()
    assert "\r" in shown
    assert "1/4" in shown and "3/4" in shown
    assert "1/2 = 50.0 % [9.5, 90.5], 1 error" in shown
    assert "spatial/0/2/7: error: It hung.\n" in shown


def test_progress_without_an_episode() -> None:
    stream = io.StringIO()
    with Progress(0, stream=stream) as progress:
        assert progress.rate_text() == "no episode finished"
    assert stream.getvalue() == ""
