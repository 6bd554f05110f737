"""Every command's options: each number has a range, and what lies outside it is one sentence."""

from __future__ import annotations

import dataclasses
import io
import sys
from collections.abc import Iterator
from importlib import import_module
from itertools import pairwise
from typing import Annotated, Any, get_args, get_origin

import pytest

from tformer.option_fields import field_types
from tformer.values import Range
from vla_harness.command import parse_options
from vla_harness.errors import UserError

COMMANDS = {
    "eval.compare": "Compare",
    "eval.offline": "Offline",
    "eval.run_libero": "RunLibero",
    "eval.run_robosuite": "RunRobosuite",
    "eval.bench.charlm_nanogpt": "Options",
    "eval.bench.groot": "GrootBench",
    "eval.bench.libero_step": "LiberoStepBench",
    "eval.bench.openvla": "OpenVLABench",
    "eval.bench.peers": "PeersBench",
    "eval.bench.server": "Bench",
    "eval.bench.standin_sheet": "StandinSheet",
    "eval.bench.tformer": "Options",
    "servers.action_server": "ActionServer",
    "servers.demo": "Demo",
    "tformer.diffusion.figures": "FigureOptions",
    "tformer.diffusion.quality": "QualityOptions",
    "tformer.diffusion.two_ways": "TwoWaysOptions",
    "tformer.figures": "FigureOptions",
    "tformer.sample": "SampleOptions",
    "tformer.train.charlm": "CharlmOptions",
    "tformer.train.diffusion": "DiffusionOptions",
    "tformer.train.translation": "TranslationOptions",
    "vla_harness.data.record": "Record",
    "vla_harness.doctor": "DoctorOptions",
    "envs.robosuite.draw_states": "DrawStates",
    "vla_harness.policies.groot.onnx_export": "ExportOnnx",
    "vla_harness.tools.export": "Export",
    "vla_harness.tools.merge": "Merge",
    "vla_harness.tools.plan": "Plan",
    "vla_harness.tools.policies": "Policies",
    "vla_harness.tools.replay": "Replay",
    "vla_harness.tools.show": "Show",
    "vla_harness.train.curves": "CurveOptions",
    "vla_harness.train.groot": "GrootOptions",
    "vla_harness.train.openvla": "OpenVLAOptions",
    "vla_harness.train.tformer": "TformerOptions",
}
DATA = ("Summary", "Check", "Plot", "Convert")
CLASSES = [*COMMANDS.items(), *(("vla_harness.data.__main__", name) for name in DATA)]
GIVEN = {  # what each command needs beside the option under test
    "envs.robosuite.draw_states": ["f.npz"],
    "eval.offline": ["--dataset", "d"],
    "eval.run_libero": ["--suite", "spatial"],
    "eval.run_robosuite": ["--suite", "single-arm"],
    "eval.bench.charlm_nanogpt": ["--data", "d"],
    "vla_harness.data.__main__": ["d"],
    "vla_harness.data.record": ["--suite", "spatial", "--out", "o"],
    "vla_harness.policies.groot.onnx_export": ["--out", "o"],
    "vla_harness.tools.export": ["r", "--out", "o"],
    "vla_harness.tools.merge": ["r", "--out", "o"],
    "vla_harness.tools.plan": ["r", "--episodes", "5"],
    "vla_harness.tools.replay": ["r", "--episode", "0/0"],
    "vla_harness.tools.show": ["r"],
    "vla_harness.train.curves": ["r"],
    "vla_harness.train.groot": ["--dataset", "d"],
    "vla_harness.train.openvla": ["--dataset", "d"],
    "vla_harness.train.tformer": ["--dataset", "d"],
}


def options_of(module: str, name: str) -> type:
    cls = getattr(import_module(module), name)
    assert dataclasses.is_dataclass(cls) and isinstance(cls, type)
    return cls


def numbers(cls: type, prefix: str = "--") -> Iterator[tuple[str, Any, list[Range]]]:
    """Yield flag, type and ranges of each number that an option of the class holds."""
    for name, annotation in field_types(cls).items():
        flag = prefix + name.replace("_", "-")
        pending: list[tuple[Any, list[Range]]] = [(annotation, [])]
        while pending:
            kind, ranges = pending.pop()
            if get_origin(kind) is Annotated:
                inner, *notes = get_args(kind)
                if "Suppress" not in map(str, notes):
                    pending.append((inner, ranges + [note for note in notes if isinstance(note, Range)]))
            elif dataclasses.is_dataclass(kind) and isinstance(kind, type):
                yield from numbers(kind, f"{flag}.")
            elif kind in (int, float):
                yield flag, kind, ranges
            else:
                pending += [(part, []) for part in get_args(kind) if part is not Ellipsis]


@pytest.mark.parametrize(("module", "name"), CLASSES)
def test_every_number_outside_its_range_is_refused_by_its_flag(module: str, name: str) -> None:
    cls = options_of(module, name)
    given = ["r", "o", "--version", "v3.0"] if name == "Convert" else GIVEN.get(module, [])
    parse_options(cls, given, "toy")  # the rest is right
    for flag, kind, ranges in numbers(cls):
        assert len(ranges) == 1, f"{flag} has no range"
        (allowed,) = ranges
        wrong = ["nan", "inf", "-inf", "1e999"] if kind is float else []
        if allowed.low is not None:
            wrong += [str(kind(allowed.low - 1))] + ([str(kind(allowed.low))] if allowed.above else [])
        if allowed.high is not None:
            wrong += [str(kind(allowed.high + 1))] + ([str(kind(allowed.high))] if allowed.below else [])
        assert wrong, f"{flag} allows any number"
        for value in wrong:
            with pytest.raises(UserError) as error:
                parse_options(cls, [*given, f"{flag}={value}"], "toy")
            assert str(error.value) == f"{flag} is {kind(value)}: give {allowed}."


@pytest.mark.parametrize(("module", "name"), CLASSES)
def test_help_flows_and_says_what_the_flag_does(module: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "stdout", page)
    with pytest.raises(SystemExit) as left:
        parse_options(options_of(module, name), ["--help"], "toy")
    assert not left.value.code
    page.seek(0)
    text = page.read()
    assert max(map(len, text.splitlines())) <= 80
    lines = [line[2:-2] for line in text.splitlines() if line.startswith("│ ")]
    (start,) = (line.index("show this help") for line in lines if "show this help" in line)
    for line, below in pairwise(lines):
        assert not line.startswith("--no-"), "the help says what the option does without --no-"
        if not line[:start].strip() and not below[:start].strip():  # the text goes on: the next word had no room
            first = below.split()[0]
            assert len(line.rstrip()) + 1 + len(first) > len(line), f"a break before {first!r}: {line}"


def test_a_boolean_that_is_on_has_both_flags() -> None:
    cls = options_of("tformer.train.translation", "TranslationOptions")
    for arguments, value in (([], True), (["--no-norm-first"], False), (["--norm-first"], True)):
        assert parse_options(cls, arguments, "toy").norm_first is value
    with pytest.raises(UserError, match="Unrecognized options: --no-resume"):
        parse_options(options_of("eval.run_libero", "RunLibero"), ["--suite", "spatial", "--no-resume"], "toy")
