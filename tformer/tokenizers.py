"""Text to numbers and back: characters, words, and byte pairs."""

from __future__ import annotations

import heapq
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from .errors import UserError

UNKNOWN, PADDING, START, END = range(4)
SPECIAL = ("[UNK]", "[PAD]", "[SOS]", "[EOS]")


class Tokenizer(Protocol):
    """What the commands need of a tokenizer."""

    @property
    def vocab_size(self) -> int: ...

    def encode(self, text: str) -> list[int]:
        """Return the tokens of ``text``, without special ones around them."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of ``tokens``; special ones are left out."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Return plain values from which ``tokenizer_from_json`` makes the same tokenizer."""
        ...


class CharTokenizer:
    """One token per character of the training text; others are refused."""

    def __init__(self, characters: Iterable[str]) -> None:
        self.characters = sorted(set(characters))
        self.index = {character: i for i, character in enumerate(self.characters)}

    @property
    def vocab_size(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> list[int]:
        """Return one token per character. Raises UserError for one that the training text lacks."""
        try:
            return [self.index[character] for character in text]
        except KeyError as error:
            raise UserError(
                f"the character {error.args[0]!r} does not occur in the training text; leave it out."
            ) from None

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(self.characters[token] for token in tokens)

    def to_json(self) -> dict[str, Any]:
        return {"kind": "characters", "characters": "".join(self.characters)}


class WordTokenizer:
    """One token per word or mark, as in the classic tutorial: what occurs once is unknown, decoding puts spaces."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = [*SPECIAL, *words]
        self.index = {word: i for i, word in enumerate(self.words)}

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, min_frequency: int = 2) -> WordTokenizer:
        """Return a tokenizer of the most frequent words, at most ``vocab_size`` with the special tokens."""
        counts = Counter(word for text in texts for word in split_words(text))
        frequent = sorted((word for word in counts if counts[word] >= min_frequency), key=lambda w: (-counts[w], w))
        return cls(frequent[: vocab_size - len(SPECIAL)])

    @property
    def vocab_size(self) -> int:
        return len(self.words)

    def encode(self, text: str) -> list[int]:
        return [self.index.get(word, UNKNOWN) for word in split_words(text)]

    def decode(self, tokens: Sequence[int]) -> str:
        return " ".join(self.words[token] for token in tokens if token == UNKNOWN or token >= len(SPECIAL))

    def to_json(self) -> dict[str, Any]:
        return {"kind": "words", "words": self.words[len(SPECIAL) :]}


class BPETokenizer:
    """Byte pairs (Sennrich et al. 2016, on bytes as in GPT-2): no text is unknown, and decoding gives it back exactly.

    A word is first its bytes; then the pair of neighbours that training found most often is joined, then the next.
    merges: (left, right) token pairs in that order; the i-th makes token ``len(SPECIAL) + 256 + i``.
    """

    def __init__(self, merges: Sequence[tuple[int, int]]) -> None:
        self.merges = [tuple(merge) for merge in merges]
        self.rank = {merge: i for i, merge in enumerate(self.merges)}
        self.bytes = [b""] * len(SPECIAL) + [bytes([i]) for i in range(256)]
        for left, right in self.merges:
            self.bytes.append(self.bytes[left] + self.bytes[right])
        self.known: dict[str, list[int]] = {}

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> BPETokenizer:
        """Return a tokenizer of up to ``vocab_size`` tokens, learned from the words of ``texts``."""
        counts = Counter(piece for text in texts for piece in split_pieces(text))
        return cls(learn_merges(counts, vocab_size - len(SPECIAL) - 256))

    @property
    def vocab_size(self) -> int:
        return len(self.bytes)

    def encode(self, text: str) -> list[int]:
        tokens: list[int] = []
        for piece in split_pieces(text):
            if piece not in self.known:
                self.known[piece] = self._join(to_bytes(piece))
            tokens += self.known[piece]
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        text = b"".join(self.bytes[token] for token in tokens).decode("utf-8", errors="replace")
        return text.removeprefix(" ")

    def to_json(self) -> dict[str, Any]:
        return {"kind": "bpe", "merges": [list(merge) for merge in self.merges]}

    def _join(self, tokens: list[int]) -> list[int]:
        """Apply the merges to one word, those learned first, first."""
        while len(tokens) > 1:
            pairs = list(pairwise(tokens))
            best = min(pairs, key=lambda pair: self.rank.get(pair, len(self.rank)))
            if best not in self.rank:
                break
            tokens = replace_pair(tokens, best, len(SPECIAL) + 256 + self.rank[best])
        return tokens


def split_words(text: str) -> list[str]:
    """Return words and runs of marks: "Hello, you." gives Hello , you . in turn."""
    return re.findall(r"\w+|[^\w\s]+", text)


def split_pieces(text: str) -> list[str]:
    """Return words with the space before them; joined they are " " + text. Pairs are never joined across pieces."""
    return re.findall(r" ?\w+| ?[^\w\s]+|\s+", " " + text) if text else []


def to_bytes(piece: str) -> list[int]:
    """Return the tokens of a piece's bytes."""
    return [len(SPECIAL) + byte for byte in piece.encode("utf-8")]


def replace_pair(tokens: list[int], pair: tuple[int, int], joined: int) -> list[int]:
    """Return ``tokens`` with each occurrence of ``pair`` as the one token ``joined``."""
    result, i = [], 0
    while i < len(tokens):
        if i + 1 < len(tokens) and (tokens[i], tokens[i + 1]) == pair:
            result.append(joined)
            i += 2
        else:
            result.append(tokens[i])
            i += 1
    return result


def learn_merges(counts: Counter[str], number: int) -> list[tuple[int, int]]:
    """Return up to ``number`` merges for pieces that occur ``counts`` times; a pair that occurs once is not merged.

    Only the words that hold the joined pair are recounted, and a heap knows the most frequent pair: entries in it that
    are out of date are recognised when they come up. Ties go to the smaller pair, so the result is always the same.
    """
    words = [(to_bytes(piece), count) for piece, count in sorted(counts.items())]
    pairs: Counter[tuple[int, int]] = Counter()
    places: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
    for i, (tokens, count) in enumerate(words):
        for pair in pairwise(tokens):
            pairs[pair] += count
            places[pair].add(i)
    heap = [(-count, pair) for pair, count in pairs.items()]
    heapq.heapify(heap)
    merges: list[tuple[int, int]] = []
    while heap and len(merges) < number:
        negative, pair = heapq.heappop(heap)
        if pairs[pair] != -negative:
            continue
        if pairs[pair] < 2:
            break
        joined = len(SPECIAL) + 256 + len(merges)
        merges.append(pair)
        changed = set()
        for i in places.pop(pair):
            tokens, count = words[i]
            merged = replace_pair(tokens, pair, joined)
            for old in pairwise(tokens):
                pairs[old] -= count
                changed.add(old)
            for new in pairwise(merged):
                pairs[new] += count
                places[new].add(i)
                changed.add(new)
            words[i] = (merged, count)
        for other in changed:
            if pairs[other] > 0:
                heapq.heappush(heap, (-pairs[other], other))
    return merges


def tokenizer_from_json(stored: dict[str, Any]) -> Tokenizer:
    """Return the tokenizer whose ``to_json`` gave ``stored``."""
    kind = stored.get("kind")
    if kind == "characters":
        return CharTokenizer(stored["characters"])
    if kind == "words":
        return WordTokenizer(stored["words"])
    if kind == "bpe":
        return BPETokenizer([(left, right) for left, right in stored["merges"]])
    raise UserError(f"a tokenizer of kind {kind!r} is unknown; train the model anew.")


def save_tokenizer(tokenizer: Tokenizer, path: str | Path) -> None:
    """Write the tokenizer as JSON."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tokenizer.to_json(), ensure_ascii=False))


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Read what ``save_tokenizer`` wrote. Raises UserError where there is no such file."""
    try:
        return tokenizer_from_json(json.loads(Path(path).read_text()))
    except (OSError, ValueError):
        raise UserError(f"{path} is no readable tokenizer; name the folder of a finished training.") from None
