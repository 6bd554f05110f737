"""A trained encoder-decoder with its tokenizers: text in, text out."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from .errors import UserError
from .finite import check_finite
from .generation import translate
from .tokenizers import END, PADDING, START, Tokenizer, load_tokenizer, save_tokenizer
from .transformer import Transformer, TransformerConfig


class Translator:
    """Translates sentences with ``model``; source and target may be one tokenizer."""

    def __init__(self, model: Transformer, source: Tokenizer, target: Tokenizer) -> None:
        self.model, self.source, self.target = model, source, target

    def translate(self, sentences: Sequence[str], beams: int = 5, length_penalty: float = 1.0) -> list[str]:
        """Return the translations, in order; sentences of similar length share a batch.

        Raises UserError for a sentence that is longer than the model.
        """
        tokens = [[START, *self.source.encode(sentence), END] for sentence in sentences]
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
        result = [""] * len(tokens)
        self.model.eval()
        for start in range(0, len(order), 64):
            chunk = order[start : start + 64]
            sources = [tokens[i] for i in chunk]
            written = translate(self.model, sources, START, END, PADDING, beams, length_penalty)
            for i, hypothesis in zip(chunk, written, strict=True):
                result[i] = self.target.decode(hypothesis)
        return result

    def save(self, folder: str | Path) -> None:
        """Write model.pt and both tokenizers."""
        folder = Path(folder)
        save_tokenizer(self.source, folder / "tokenizer_source.json")
        save_tokenizer(self.target, folder / "tokenizer_target.json")
        torch.save({"config": asdict(self.model.config), "model": self.model.state_dict()}, folder / "model.pt")

    @classmethod
    def load(cls, folder: str | Path) -> Translator:
        """Read what ``save`` wrote. Raises UserError where the folder holds no finished training."""
        folder = Path(folder)
        try:
            stored = torch.load(folder / "model.pt", map_location="cpu", weights_only=True)
            model = Transformer(TransformerConfig(**stored["config"]))
            model.load_state_dict(stored["model"])
        except FileNotFoundError:
            raise UserError(f"{folder} holds no trained translator; name the --out of a finished training.") from None
        except (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError):
            raise UserError(f"{folder / 'model.pt'} is no translator or is damaged; train it again.") from None
        check_finite(stored["model"], folder / "model.pt")
        source, target = (load_tokenizer(folder / f"tokenizer_{side}.json") for side in ("source", "target"))
        return cls(model.eval(), source, target)
