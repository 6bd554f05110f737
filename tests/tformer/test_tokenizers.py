"""Tokenizers: round trips, what training chooses, storing."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from tformer import UserError
from tformer.tokenizers import (
    UNKNOWN,
    BPETokenizer,
    CharTokenizer,
    Tokenizer,
    WordTokenizer,
    learn_merges,
    load_tokenizer,
    replace_pair,
    save_tokenizer,
    to_bytes,
)

TEXTS = ["Ein Mann läuft.", "Ein Mann schläft.", "Zwei Männer laufen, ein Mann läuft."]


@pytest.mark.parametrize("text", ["Ein Mann läuft.", "", "  zwei  Wörter\n", "emoji 🤖 and 漢字", "a\tb", " x"])
def test_byte_pairs_give_any_text_back(text: str) -> None:
    tokenizer = BPETokenizer.train(TEXTS, 300)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_byte_pairs_join_what_is_frequent() -> None:
    tokenizer = BPETokenizer.train(TEXTS, 300)
    assert tokenizer.vocab_size <= 300
    assert len(tokenizer.encode("Mann")) == 1
    assert tokenizer.encode("Mann") == tokenizer.encode("ein Mann")[-1:]
    assert len(tokenizer.encode("Quark")) > 3


def test_merges_are_those_of_counting_anew_each_time() -> None:
    counts = Counter({"abab": 5, "abc": 3, "bcbc": 4, "aaaa": 2, "cab": 1})
    words = [(to_bytes(word), count) for word, count in counts.items()]
    expected = []
    for number in range(6):
        pairs: Counter[tuple[int, int]] = Counter()
        for tokens, count in words:
            for pair in pairwise(tokens):
                pairs[pair] += count
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        expected.append(best)
        words = [(replace_pair(tokens, best, 260 + number), count) for tokens, count in words]
    assert learn_merges(counts, 6) == expected


def test_words_keep_the_frequent_and_mark_the_unknown() -> None:
    tokenizer = WordTokenizer.train(TEXTS, 100)
    assert tokenizer.words[4:] == [".", "Mann", "Ein", "läuft"]
    assert tokenizer.encode("Mann läuft schnell.") == [5, 7, UNKNOWN, 4]
    assert tokenizer.decode([2, 5, 7, UNKNOWN, 4, 3, 1]) == "Mann läuft [UNK] ."
    assert WordTokenizer.train(TEXTS, 6).words[4:] == [".", "Mann"]


def test_characters() -> None:
    tokenizer = CharTokenizer("hello")
    assert tokenizer.decode(tokenizer.encode("hole")) == "hole"
    with pytest.raises(UserError, match="the character 'x' does not occur"):
        tokenizer.encode("hex")


@pytest.mark.parametrize(
    "tokenizer", [CharTokenizer("abc"), WordTokenizer.train(TEXTS, 50), BPETokenizer.train(TEXTS, 290)]
)
def test_storing_gives_the_same_tokenizer(tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_tokenizer(tokenizer, tmp_path / "tokenizer.json")
    again = load_tokenizer(tmp_path / "tokenizer.json")
    assert again.vocab_size == tokenizer.vocab_size and again.encode("abc") == tokenizer.encode("abc")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no readable tokenizer"):
        load_tokenizer(tmp_path / "tokenizer.json")
