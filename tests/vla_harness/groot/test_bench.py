"""The bench runs, and its plain loop computes what the policy's does."""

from __future__ import annotations

import re

import pytest

from vla_harness.eval.bench import groot


def test_the_bench_compares_equal_results(capsys: pytest.CaptureFixture[str]) -> None:
    assert groot.main(["--size", "tiny", "--device", "cpu", "--cameras", "1", "--batch", "2", "--repeats", "1"]) == 0
    said = capsys.readouterr().out
    for phase in ("vision", "language", "adapter", "keys and values", "denoising", "all, ours", "all, plain loop"):
        assert re.search(rf"\| 1 \| 2 \| {phase} \| [\d.]+ \| [\d.]+ \| [\d.]+ \|", said), phase
    difference = re.search(r"actions differ by (\S+)", said)
    assert difference is not None and float(difference[1]) < 1e-5


def test_the_large_sizes_are_the_3b_models() -> None:
    """2.41 B weights are read; the table of positions and all embodiments' weights are counted with them."""
    from vla_harness.checkpoints import parameters_on_meta
    from vla_harness.policies.groot.model import Groot

    with parameters_on_meta():
        model = Groot(groot.sizes("3b"))
    counts = {name: sum(p.numel() for p in child.parameters()) for name, child in model.head.named_children()}
    assert counts["model"] == 550386688 and counts["vl_self_attention"] == 201433088
    assert counts["state_encoder"] + counts["action_encoder"] + counts["action_decoder"] == 315360256
    assert sum(p.numel() for p in model.backbone.vision.parameters()) == 412442352
    assert sum(p.numel() for p in model.backbone.language.layers.parameters()) == 604032000
