"""`python -m tformer.train translation`: an encoder-decoder that translates, on any parallel corpus."""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys

    from tformer.launch import launch

    sys.exit(launch("tformer.train.__main__", arguments=["translation", *sys.argv[1:]]))

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..batch import Batch
from ..command import parse_options, run_command
from ..data.buckets import bucketed_batches
from ..data.default_corpus import default_corpus
from ..data.parallel import Corpus, Pair, read_corpus
from ..errors import UserError, refused_values
from ..generation import pad
from ..scores import SIGNATURE, bleu, character_error_rate, word_error_rate
from ..tokenizers import END, PADDING, START, BPETokenizer, Tokenizer, WordTokenizer
from ..training import Loss, TrainOptions, Validation, average_weights, leads, list_checkpoints, train
from ..transformer import Transformer, TransformerConfig
from ..translator import Translator
from ..values import Decay, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt


@dataclass(frozen=True, kw_only=True)
class TranslationOptions(TrainOptions):
    """Train a transformer to translate, then test it with averaged weights and beam search."""

    out: Path = Path("runs/translation")
    """Folder for checkpoints, tokenizers, curve.json, result.json, translations and TensorBoard events."""
    preset: Literal["cpu", "classic"] = "cpu"
    """cpu: 3+3 layers, 256 wide, one BPE vocabulary, a second per step on one core. classic: the tutorial's 6+6 layers,
    512 wide, a word vocabulary per language, for a GPU. Other options change a preset."""
    data: Path | None = None
    """A folder with train, val and test files per language (train.en or train.en.gz …), or a .tsv, .jsonl, .po or .mo
    file. Without it: opus_books where the hub is reachable, else the translated messages of packages from PyPI."""
    test: str = "test"
    """Name of the test files in a folder given as --data, such as test_2016_flickr."""
    source: str = "en"
    """Language code of the source."""
    target: str = "it"
    """Language code of the target."""
    tokenizer: Literal["word", "bpe"] = "bpe"
    """word: a vocabulary of words per language, the others unknown. bpe: one vocabulary of byte pairs for both."""
    vocab_size: PositiveInt = 6000
    """Tokens of a vocabulary, at most."""
    max_tokens: PositiveInt = 256
    """The longest sentence, in tokens with its start and end."""
    drop_long: bool = False
    """Leave out longer pairs, also of validation and test, instead of refusing the corpus; without --data always so."""
    batch_size: PositiveInt = 64
    """Sentence pairs of a step, over all processes."""
    d_model: PositiveInt = 256
    """Width of the model."""
    layers: PositiveInt = 3
    """Layers of the encoder, and of the decoder."""
    heads: PositiveInt = 4
    """Attention heads."""
    d_ff: PositiveInt = 512
    """Inner width of the feed-forward layers."""
    dropout: Decay = 0.15
    """On the embeddings and on each sublayer's output."""
    norm_first: bool = True
    """Norm before each sublayer, or after it, as in the paper."""
    label_smoothing: Decay = 0.1
    """Share of the target's probability that is spread over all tokens."""
    average: PositiveInt = 5
    """Checkpoints, one per epoch, whose weights are averaged for the test."""
    beams: PositiveInt = 5
    """Hypotheses of the beam search in the test; 1 decodes greedily."""
    length_penalty: NonNegativeFloat = 1.0
    """Exponent of the hypotheses' length that their score is divided by; 0 favours short ones."""
    validate_on: PositiveInt = 256
    """Validation sentences that each epoch translates."""
    # The cpu preset's training; the fields are TrainOptions'.
    epochs: PositiveInt = 10
    learning_rate: PositiveFloat = 1e-3
    min_learning_rate: NonNegativeFloat = 1e-5
    warmup_steps: NonNegativeInt = 400
    weight_decay: NonNegativeFloat = 0.01
    beta2: Decay = 0.98
    keep: PositiveInt = 5


PRESETS = {
    "cpu": TranslationOptions(),
    "classic": TranslationOptions(
        preset="classic", tokenizer="word", vocab_size=30_000, max_tokens=350, drop_long=True, d_model=512, layers=6,
        heads=8, d_ff=2048, dropout=0.1, epochs=20, learning_rate=5e-4, batch_size=64,
    ),
}  # fmt: skip


class TranslationTask:
    """A transformer, its tokenizers, and the corpus as tokens."""

    def __init__(self, options: TranslationOptions, corpus: Corpus) -> None:
        self.options = options
        self.source, self.target = train_tokenizers(options, corpus.train)
        self.corpus = self.short_enough(corpus)
        self.shared = self.source is self.target
        config = TransformerConfig(
            self.source.vocab_size,
            self.target.vocab_size,
            options.max_tokens,
            options.max_tokens,
            options.d_model,
            options.layers,
            options.heads,
            d_ff=options.d_ff,
            dropout=options.dropout,
            norm_first=options.norm_first,
            tie_weights=self.shared,
        )
        torch.manual_seed(options.seed)
        with refused_values():
            self.model: Transformer = Transformer(config)
        self.translator = Translator(self.model, self.source, self.target)
        self.configuration: Mapping[str, Any] = asdict(config) | {
            "corpus": corpus.name,
            "pairs": len(self.corpus.train),
            "tokenizer": options.tokenizer,
            "languages": f"{options.source}-{options.target}",
            "batch_size": options.batch_size,
            "seed": options.seed,
        }
        self.items = [self.tokens(pair) for pair in self.corpus.train]
        self.held_out = [self.tokens(pair) for pair in self.corpus.validation]

    def tokens(self, pair: Pair) -> tuple[list[int], list[int]]:
        """Return source and target with their start and end."""
        source, target = self.source.encode(pair[0]), self.target.encode(pair[1])
        return [START, *source, END], [START, *target, END]

    def short_enough(self, corpus: Corpus) -> Corpus:
        """Return the pairs that fit the model. Raises UserError for longer ones unless ``drop_long``.

        All parts are checked before anything is learned: a test sentence that is too long must not cost a training.
        """
        limit, parts = self.options.max_tokens, []
        for name in ("train", "validation", "test"):
            pairs: list[Pair] = getattr(corpus, name)
            lengths = [max(map(len, self.tokens(pair))) for pair in pairs]
            short = [pair for pair, length in zip(pairs, lengths, strict=True) if length <= limit]
            if len(short) < len(pairs):
                told = f"sentences of up to {max(lengths)} tokens in the {name} part, more than --max-tokens {limit}"
                if not self.options.drop_long or not short:
                    raise UserError(f"{corpus.name} has {told}; raise it, or leave them out with --drop-long.")
                print(f"left out {len(pairs) - len(short)} pairs with {told}")
            parts.append(short)
        return Corpus(corpus.name, *parts)

    def batches(self, epoch: int) -> Sequence[Sequence[int]]:
        lengths = [(len(source), len(target)) for source, target in self.items]
        return bucketed_batches(lengths, self.options.batch_size, self.options.seed * 1000 + epoch)

    def collate(self, indices: Sequence[int]) -> Batch:
        return make_batch([self.items[i] for i in indices])

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        logits = model(batch.source, batch.source_mask, batch.inputs)  # (B, T, V)
        return token_loss(logits, batch.targets, self.options.label_smoothing)

    def validate(self, model: nn.Module, epoch: int) -> Validation:
        total, items = 0.0, 0
        for start in range(0, len(self.held_out), 128):
            batch = make_batch(self.held_out[start : start + 128]).to(next(model.parameters()).device)
            loss = token_loss(model(batch.source, batch.source_mask, batch.inputs), batch.targets)
            total, items = total + float(loss.total), items + int(loss.items)
        scores, text = self.run_validation(self.corpus.validation[: self.options.validate_on])
        return Validation({"loss": total / items} | scores, text)

    def run_validation(self, pairs: Sequence[Pair], examples: int = 3) -> tuple[dict[str, float], str]:
        """Translate greedily; return BLEU, CER and WER, and the first ``examples`` as text."""
        hypotheses = self.translator.translate([source for source, _ in pairs], beams=1)
        shown = [
            f"  source    {source}\n  expected  {target}\n  predicted {hypothesis}"
            for (source, target), hypothesis in zip(pairs[:examples], hypotheses, strict=False)
        ]
        return score(hypotheses, [target for _, target in pairs]), "\n\n".join(shown)

    def test(self) -> dict[str, float]:
        """Translate the test part with the averaged weights; write translations and result.json; return the scores."""
        options, references = self.options, [target for _, target in self.corpus.test]
        sources = [source for source, _ in self.corpus.test]
        checkpoints = list_checkpoints(options.out)[-options.average :]
        self.model.load_state_dict(average_weights(checkpoints))
        started = time.perf_counter()
        hypotheses = self.translator.translate(sources, options.beams, options.length_penalty)
        seconds = time.perf_counter() - started
        torch.manual_seed(options.seed)
        untrained = Transformer(self.model.config).to(self.model.projection.weight.device)
        baseline = Translator(untrained, self.source, self.target).translate(sources[:100], beams=1)
        result = score(hypotheses, references) | {
            "copy_bleu": bleu(sources, references),
            "untrained_bleu": bleu(baseline, references[:100]),
            "sentences": len(sources),
            "seconds": round(seconds, 1),
        }
        (options.out / "translations.txt").write_text("\n".join(hypotheses) + "\n")
        stored: dict[str, Any] = {"corpus": self.corpus.name, "test": options.test, "sacrebleu": SIGNATURE}
        stored |= {"beams": options.beams, "averaged": [path.name for path in checkpoints], **result}
        (options.out / "result.json").write_text(json.dumps(stored, indent=1) + "\n")
        self.translator.save(options.out)
        return result


def train_tokenizers(options: TranslationOptions, pairs: Sequence[Pair]) -> tuple[Tokenizer, Tokenizer]:
    """Return the tokenizers of source and target; byte pairs are one and the same."""
    sources, targets = [source for source, _ in pairs], [target for _, target in pairs]
    if options.tokenizer == "bpe":
        both = BPETokenizer.train([*sources, *targets], options.vocab_size)
        return both, both
    return WordTokenizer.train(sources, options.vocab_size), WordTokenizer.train(targets, options.vocab_size)


def make_batch(items: Sequence[tuple[list[int], list[int]]]) -> Batch:
    """Return (source, target) token lists, with start and end, as a batch padded at the right."""
    source = pad([source for source, _ in items], PADDING)  # (B, S)
    target = pad([target for _, target in items], PADDING)  # (B, T + 1)
    return Batch(target[:, :-1], target[:, 1:], source, (source != PADDING)[:, None, None])


def token_loss(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Loss:
    """logits: (B, T, V); targets: (B, T). Returns the cross-entropy over all tokens that are no padding."""
    total = functional.cross_entropy(
        logits.flatten(0, 1),
        targets.flatten(),
        ignore_index=PADDING,
        label_smoothing=label_smoothing,
        reduction="sum",
    )
    return Loss(total, (targets != PADDING).sum())


def score(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Return the three scores of translations."""
    return {
        "bleu": bleu(hypotheses, references),
        "cer": character_error_rate(hypotheses, references),
        "wer": word_error_rate(hypotheses, references),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit code."""

    def command() -> None:
        program = "python -m tformer.train translation"
        preset = parse_options(TranslationOptions, arguments, program).preset
        options = parse_options(TranslationOptions, arguments, program, PRESETS[preset])
        options = replace(options, keep=max(options.keep, options.average))
        if options.data is None:
            corpus = default_corpus(options.source, options.target)
            options = replace(options, drop_long=True)
        else:
            corpus = read_corpus(options.data, options.source, options.target, options.test)
        print(f"{corpus.name}: {len(corpus.train)} pairs to learn, {len(corpus.test)} to test")
        task = TranslationTask(options, corpus)
        state = train(task, options)
        if not leads():
            return
        result = task.test()
        print(
            f"test: BLEU {result['bleu']:.1f}, CER {result['cer']:.3f}, WER {result['wer']:.3f}; "
            f"copying the source gives {result['copy_bleu']:.1f}, an untrained model {result['untrained_bleu']:.1f}; "
            f"trained for {state.seconds / 60:.0f} minutes"
        )

    return run_command(command)
