"""How good translations are: BLEU, and error rates of characters and words."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import sacrebleu

SIGNATURE = f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{sacrebleu.__version__}"
"""What sacreBLEU reports as the settings of ``bleu``."""


def bleu(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Return sacreBLEU's corpus BLEU, 0 to 100, with its default settings: 13a tokens, cased."""
    return float(sacrebleu.corpus_bleu(list(hypotheses), [list(references)]).score)


def character_error_rate(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Return the edits that turn hypotheses into references, per character of the references."""
    return _error_rate([list(text) for text in hypotheses], [list(text) for text in references])


def word_error_rate(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Return the edits that turn hypotheses into references, per word of the references, split at spaces."""
    return _error_rate([text.split() for text in hypotheses], [text.split() for text in references])


def edit_distance(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """Return the fewest insertions, deletions and substitutions that turn ``a`` into ``b`` (Levenshtein)."""
    row = list(range(len(b) + 1))  # distances of the prefix of a read so far to all prefixes of b
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


def _error_rate(hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> float:
    edits = sum(edit_distance(h, r) for h, r in zip(hypotheses, references, strict=True))
    return edits / max(1, sum(map(len, references)))
