"""Parallel corpora, catalogues, buckets, texts and scores."""

from __future__ import annotations

import gzip
import random
import struct
import sys
import types
import zipfile
from pathlib import Path

import jiwer
import pytest

from tformer import UserError
from tformer.data import default_corpus as defaults
from tformer.data.buckets import bucketed_batches
from tformer.data.catalogues import read_catalogue
from tformer.data.parallel import read_corpus, read_pairs, split_pairs
from tformer.data.text import read_text
from tformer.scores import bleu, character_error_rate, edit_distance, word_error_rate

PO = r"""
# a header has an empty msgid
msgid ""
msgstr "Language: it\n"

#: file.c:3
msgctxt "menu"
msgid "_Open the file"
msgstr "Apri il file"

#, fuzzy
msgid "Not confirmed"
msgstr "Chissà"

msgid "A <b>long</b> "
"message"
msgstr "Un messaggio "
"\"lungo\""

msgid "%d file"
msgid_plural "%d files"
msgstr[0] "%d documento"
msgstr[1] "%d documenti"

msgid "Untranslated"
msgstr ""
"""
PAIRS = [("Open the file", "Apri il file"), ("A long message", 'Un messaggio "lungo"'), ("%d file", "%d documento")]


def write_mo(path: Path, messages: dict[str, str]) -> None:
    """Write a catalogue in the binary format of gettext."""
    items = sorted({"": "Content-Type: text/plain; charset=UTF-8\nPlural-Forms: nplurals=2; plural=n!=1;\n"} | messages)
    values = {"": "Content-Type: text/plain; charset=UTF-8\nPlural-Forms: nplurals=2; plural=n!=1;\n"} | messages
    texts = [[item.encode() for item in items], [values[item].encode() for item in items]]
    offset, tables, body = 28 + 16 * len(items), b"", b""
    for side in texts:
        for text in side:
            tables += struct.pack("<II", len(text), offset + len(body))
            body += text + b"\0"
    head = struct.pack("<7I", 0x950412DE, 0, len(items), 28, 28 + 8 * len(items), 0, 0)
    path.write_bytes(head + tables + body)


def test_catalogues_give_cleaned_translated_messages(tmp_path: Path) -> None:
    (tmp_path / "it.po").write_text(PO)
    assert read_catalogue(tmp_path / "it.po") == PAIRS
    messages = {"menu\x04_Open the file": "Apri il file", "%d file\0%d files": "%d documento\0%d documenti", "a": ""}
    write_mo(tmp_path / "it.mo", messages)
    assert sorted(read_catalogue(tmp_path / "it.mo")) == sorted([PAIRS[0], PAIRS[2]])
    (tmp_path / "bad.mo").write_bytes(b"nothing")
    with pytest.raises(UserError, match="no readable gettext catalogue"):
        read_catalogue(tmp_path / "bad.mo")


def test_every_kind_of_file_is_read(tmp_path: Path) -> None:
    expected = [("one", "uno"), ("two", "due")]
    (tmp_path / "a.tsv").write_text('one\tuno\n"two\tdue\n')
    (tmp_path / "a.jsonl").write_text(
        '{"source": "one", "target": "uno"}\n\n{"translation": {"en": "two", "it": "due"}}\n'
    )
    (tmp_path / "b.jsonl").write_text('{"en": "one", "it": "uno"}\n')
    assert read_pairs(tmp_path / "a.tsv", "en", "it") == [("one", "uno"), ('"two', "due")]
    assert read_pairs(tmp_path / "a.jsonl", "en", "it") == expected
    assert read_pairs(tmp_path / "b.jsonl", "it", "en") == [("uno", "one")]


def test_a_folder_of_parallel_files_is_read(tmp_path: Path) -> None:
    for part in ("train", "val"):
        (tmp_path / f"{part}.en").write_text("one\ntwo\n")
        (tmp_path / f"{part}.it").write_text("uno\ndue\n")
    for language, text in (("en", "three\n"), ("it", "tre\n")):
        (tmp_path / f"test.{language}.gz").write_bytes(gzip.compress(text.encode()))
    corpus = read_corpus(tmp_path, "en", "it", "test")
    assert corpus.train == [("one", "uno"), ("two", "due")] and corpus.test == [("three", "tre")]
    with pytest.raises(UserError, match=r"lacks other.en; it needs train, val and a test file"):
        read_corpus(tmp_path, "en", "it", "other")
    (tmp_path / "val.it").write_text("uno\n")
    with pytest.raises(UserError, match="2 lines of en and 1 of it; they must match line by line"):
        read_corpus(tmp_path, "en", "it", "test")


def test_bad_corpora_are_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("only one column\n")
    (tmp_path / "a.jsonl").write_text('{"en": "one"}\n')
    (tmp_path / "empty.tsv").write_text("")
    (tmp_path / "a.txt").write_text("x")
    for name, said in [
        ("a.tsv", "a line without two sentences"),
        ("a.jsonl", "a line without two sentences"),
        ("empty.tsv", "the train part of empty.tsv is empty"),
        ("a.txt", "of an unknown kind"),
        ("none.tsv", "there is no corpus"),
    ]:
        with pytest.raises(UserError, match=said):
            read_corpus(tmp_path / name, "en", "it", "test")


def test_no_source_is_both_learned_and_tested() -> None:
    pairs = [(f"sentence {i % 400}", f"frase {i}") for i in range(1000)]
    corpus = split_pairs("x", [*pairs, *pairs])
    parts = [{source for source, _ in part} for part in (corpus.train, corpus.validation, corpus.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 400
    assert len(corpus.train) + len(corpus.validation) + len(corpus.test) == 1000
    assert len(parts[0]) > 320 and min(map(len, parts)) > 5


def test_opus_books_comes_first_and_the_packages_messages_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"translation": {"en": f"line {i}", "it": f"riga {i}"}} for i in range(300)]
    fake = types.ModuleType("datasets")
    asked: list[tuple[str, ...]] = []

    def load(*what: str, split: str) -> list[dict[str, dict[str, str]]]:
        asked.append((*what, split))
        return rows

    fake.load_dataset = load  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", fake)
    corpus = defaults.default_corpus("it", "en")
    assert asked == [("Helsinki-NLP/opus_books", "en-it", "train")]
    assert ("riga 7", "line 7") in [*corpus.train, *corpus.validation, *corpus.test]

    def unreachable(*what: str, split: str) -> None:
        raise ConnectionError("no way to the hub")

    fake.load_dataset = unreachable  # type: ignore[attr-defined]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache = tmp_path / "tformer" / "wheels"
    cache.mkdir(parents=True)
    write_mo(tmp_path / "it.mo", {f"message {i}": f"messaggio {i}" for i in range(300)})
    for wheel in ("gramps-6.0.8", "wagtail-8.0.1", "nicotine_plus-3.3.11"):
        with zipfile.ZipFile(cache / f"{wheel}-py3-none-any.whl", "w") as archive:
            archive.write(tmp_path / "it.mo", "share/locale/it/LC_MESSAGES/x.mo")
    corpus = defaults.default_corpus("en", "it")
    assert corpus.name == "package messages en-it" and ("message 7", "messaggio 7") in corpus.train
    assert "no way to the hub" in capsys.readouterr().out
    with pytest.raises(UserError, match="no package translates its messages to 'xx'"):
        defaults.default_corpus("en", "xx")
    with pytest.raises(UserError, match="translate from en, not it"):
        defaults.default_corpus("it", "en")


def test_buckets_hold_every_sentence_once_and_pad_little() -> None:
    draw = random.Random(0)
    lengths = [(n, n + draw.randrange(3)) for n in (draw.randrange(5, 60) for _ in range(3000))]
    batches = bucketed_batches(lengths, 32, seed=1)
    assert sorted(i for batch in batches for i in batch) == list(range(3000))
    assert batches == bucketed_batches(lengths, 32, seed=1) != bucketed_batches(lengths, 32, seed=2)
    assert len(batches) == len(bucketed_batches(lengths, 32, seed=2))
    padded = sum(max(lengths[i][1] for i in batch) * len(batch) for batch in batches)
    assert padded < 1.05 * sum(length for _, length in lengths)


def test_the_default_text_is_the_standard_library(tmp_path: Path) -> None:
    text, name = read_text(None)
    assert "def namedtuple" in text or "class ABC" in text
    assert len(text) > 3_000_000 and len(set(text)) < 130 and name == "the Python standard library"
    (tmp_path / "empty.txt").write_text(" \n")
    with pytest.raises(UserError, match="is empty"):
        read_text(tmp_path / "empty.txt")
    with pytest.raises(UserError, match="cannot be read"):
        read_text(tmp_path / "none.txt")


def test_error_rates_equal_jiwers() -> None:
    references = ["the cat sat on the mat", "hello world", "drei Männer laufen"]
    hypotheses = ["the cat sits on mat", "hello there world", "drei Männer laufen"]
    assert edit_distance("kitten", "sitting") == 3
    assert word_error_rate(hypotheses, references) == pytest.approx(jiwer.wer(references, hypotheses))
    assert character_error_rate(hypotheses, references) == pytest.approx(jiwer.cer(references, hypotheses))
    assert bleu(references, references) == pytest.approx(100)
    assert 0 < bleu(["the cat sat on a mat"], references[:1]) < 100
