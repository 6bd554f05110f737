"""The training commands as a user runs them, on corpora that take seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tformer import Translator, UserError
from tformer.data.parallel import Corpus
from tformer.train import translation as translation_command
from tformer.train.__main__ import main
from tformer.train.charlm import CharlmOptions, CharlmTask
from tformer.training import list_checkpoints

NOUNS = {"dog": "Hund", "cat": "Katze", "man": "Mann", "boy": "Junge", "bird": "Vogel", "horse": "Pferd"}
VERBS = {"sees": "sieht", "hears": "hört", "finds": "findet", "follows": "folgt"}


def write_corpus(path: Path) -> None:
    """Write sentences of a language that can be learned in seconds."""
    lines = [
        f"a {a} {verb} a {b} .\tein {NOUNS[a]} {VERBS[verb]} ein {NOUNS[b]} ."
        for a in NOUNS
        for b in NOUNS
        for verb in VERBS
    ]
    path.write_text("\n".join(lines) + "\n")


def translation(tmp_path: Path, *more: str) -> int:
    """Run the translation command with a tiny model."""
    options = (
        "--target de --epochs 20 --d-model 32 --d-ff 64 --layers 1 --batch-size 16 --vocab-size 400 --warmup-steps 5"
    )
    options += " --learning-rate 0.01 --min-learning-rate 0.001 --dropout 0 --average 2 --keep 2 --beams 3 --device cpu"
    data = ["--data", str(tmp_path / "corpus.tsv"), "--out", str(tmp_path / "run")]
    return main(["translation", *data, *options.split(), *more])


@pytest.mark.parametrize("tokenizer", ["bpe", "word"])
def test_translation_learns_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str], tokenizer: str) -> None:
    write_corpus(tmp_path / "corpus.tsv")
    assert translation(tmp_path, "--tokenizer", tokenizer) == 0
    out = capsys.readouterr().out
    assert "source    a " in out and "predicted ein " in out
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["bleu"] > 60 > 30 > result["copy_bleu"] + result["untrained_bleu"]
    assert result["averaged"] == [path.name for path in list_checkpoints(tmp_path / "run")]
    assert result["sacrebleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    curve = json.loads((tmp_path / "run" / "curve.json").read_text())
    assert len(curve) == 20 and {"loss", "bleu", "cer", "wer", "train_loss", "seconds"} <= curve[-1].keys()
    assert len((tmp_path / "run" / "translations.txt").read_text().splitlines()) == result["sentences"]
    translator = Translator.load(str(tmp_path / "run"))
    assert translator.translate(["a dog sees a cat ."], beams=2) == ["ein Hund sieht ein Katze ."]
    with pytest.raises(UserError, match="tokens is longer than the model's 256"):
        translator.translate(["dog " * 400])
    with pytest.raises(UserError, match="holds no trained translator"):
        Translator.load(tmp_path)
    (tmp_path / "run" / "model.pt").write_bytes(b"cut short")
    with pytest.raises(UserError, match="is no translator or is damaged"):
        Translator.load(tmp_path / "run")


def test_bad_input_ends_in_one_sentence_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_corpus(tmp_path / "corpus.tsv")
    for more, said in [
        (["--max-tokens", "6"], "tokens in the train part, more than --max-tokens 6; raise it"),
        (["--max-tokens", "6", "--drop-long"], "tokens in the train part, more than --max-tokens 6; raise it"),
        (["--epochs", "0"], "--epochs is 0: give at least 1"),
        (["--batch-size", "0"], "--batch-size is 0: give at least 1"),
        (["--heads", "5"], "5 heads must divide d_model 32"),
        (["--out", "/dev/null/run"], "--out /dev/null/run cannot be made a folder"),
        (["--data", str(tmp_path / "none.tsv")], "error: there is no corpus"),
        (["--epochs", "many"], "many"),
        (["--resume", "latest"], "holds no checkpoint to resume from"),
    ]:
        assert translation(tmp_path, *more) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: ") and said in err and err.count("\n") == 1
    (tmp_path / "empty.txt").write_text("")
    assert main(["charlm", "--data", str(tmp_path / "empty.txt"), "--out", str(tmp_path / "run")]) == 2
    (tmp_path / "short.txt").write_text("short " * 50)
    assert main(["charlm", "--data", str(tmp_path / "short.txt"), "--out", str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert "empty.txt is empty" in err and "too few for --block-size 64" in err
    assert not (tmp_path / "run").exists()
    for option, value in [("--heads", "3"), ("--d-model", "12")]:
        text = str(tmp_path / "corpus.tsv")
        assert main(["charlm", "--data", text, "--out", str(tmp_path / "run"), option, value]) == 2
        assert capsys.readouterr().err.endswith("; give other values.\n")
    assert not (tmp_path / "run").exists()
    assert main(["nothing"]) == 2 and main([]) == 2 and main(["--help"]) == 0


def test_a_long_test_sentence_is_noticed_before_anything_is_learned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for language, nouns in (("en", NOUNS), ("de", NOUNS.values())):
        lines = "".join(f"{noun} {noun}\n" for noun in nouns)
        for part in ("train", "val", "test"):
            (folder / f"{part}.{language}").write_text(lines + ("x " * 60 if part == "test" else ""))
    assert translation(tmp_path, "--data", str(folder), "--max-tokens", "32") == 2
    assert "tokens in the test part, more than --max-tokens 32" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert translation(tmp_path, "--data", str(folder), "--max-tokens", "32", "--drop-long", "--epochs", "2") == 0
    assert json.loads((tmp_path / "run" / "result.json").read_text())["sentences"] == len(NOUNS)


def test_long_sentences_of_the_default_corpus_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = [(noun, word) for noun, word in NOUNS.items()]
    corpus = Corpus("messages", [*pairs, ("long " * 300, "lang")], pairs, pairs)
    monkeypatch.setattr(translation_command, "default_corpus", lambda source, target: corpus)
    options = "--epochs 1 --d-model 16 --d-ff 16 --layers 1 --heads 2 --vocab-size 300 --average 1 --device cpu"
    assert main(["translation", "--out", str(tmp_path / "run"), *options.split()]) == 0
    assert "left out 1 pairs with sentences of up to" in capsys.readouterr().out


def charlm(tmp_path: Path, *more: str) -> int:
    """Run the character command with a tiny model on a text with a rule that the bigram model cannot know."""
    (tmp_path / "text.txt").write_text("abcabdacbacd\n" * 400)
    options = "--epochs 1 --d-model 16 --layers 1 --heads 2 --block-size 16 --batch-size 8 --sample 40 --device cpu"
    data = ["--data", str(tmp_path / "text.txt"), "--out", str(tmp_path / "run")]
    return main(["charlm", *data, *options.split(), "--learning-rate", "0.02", *more])


def test_charlm_beats_the_bigram_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert charlm(tmp_path) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["gpt_bits_per_character"] < 0.5 < result["bigram_bits_per_character"]
    out = capsys.readouterr().out
    assert "abc" in out and "bits per character on the whole validation text: bigram" in out


def test_another_configuration_s_checkpoint_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert charlm(tmp_path) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert charlm(tmp_path, "--resume", "latest", "--layers", "2") == 2
    assert "another configuration (layers 1 there and 2 here)" in capsys.readouterr().err
    assert charlm(tmp_path) == 2
    assert "already holds a training" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


def test_samples_go_on_beyond_the_block(tmp_path: Path) -> None:
    options = CharlmOptions(out=tmp_path, d_model=16, layers=1, heads=2, block_size=8, batch_size=2)
    task = CharlmTask(options, "some text\n" * 40, "text")
    assert len(task.write(50)) == 50


def test_the_module_runs_as_a_program(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tformer.train", "charlm", "--help"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0
    for said in ("--preset {laptop,classic}", "--resume", "--data", "Characters that the model reads at once"):
        assert said in done.stdout
