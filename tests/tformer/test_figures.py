"""The figures of the README's transformer half can be drawn from a small translator."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tformer import Transformer, TransformerConfig, Translator
from tformer.figures import main
from tformer.tokenizers import BPETokenizer


def test_every_figure_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    tokenizer = BPETokenizer.train(["a man and a dog", "a woman and a man"] * 9, 300)
    size = tokenizer.vocab_size
    model = Transformer(TransformerConfig(size, size, 128, 128, d_model=16, layers=1, heads=2, d_ff=16))
    (tmp_path / "model").mkdir()
    Translator(model, tokenizer, tokenizer).save(tmp_path / "model")
    sides = {"ours_seconds": 1, "ours_loss": 2.0, "nanogpt_seconds": 1, "nanogpt_loss": 2.1}
    (tmp_path / "charlm_nanogpt.json").write_text(json.dumps({"curve": [{"step": 250} | sides]}))
    point = {"epoch": 1, "train_loss": 3.0, "loss": 2.0, "bleu": 9.0}
    (tmp_path / "multi30k_curve.json").write_text(json.dumps([point]))
    folders = ["--translator", str(tmp_path / "model"), "--results", str(tmp_path), "--out", str(tmp_path / "figures")]
    assert main(folders) == 0
    names = {path.stem for path in (tmp_path / "figures").glob("*.png")}
    assert names == {
        *("embedding", "positions", "attention", "add_and_norm", "feed_forward", "mask", "kv_cache"),
        *("charlm", "translation"),
    }
    assert main(["--translator", str(tmp_path)]) == 2
    assert "holds no trained translator" in capsys.readouterr().err
