"""Instruction to token ids, as OpenVLA was trained."""

from __future__ import annotations

from tokenizers import Tokenizer

from ...checkpoints import Checkpoint
from ...errors import CheckpointError

SPACE = 29871
"""The token of a lone space, between the prompt and the action in the training data."""


class Prompt:
    """The prompt around an instruction, tokenised."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Read ``tokenizer.json``; raises CheckpointError if it is absent or broken."""
        if not checkpoint.has("tokenizer.json"):
            raise CheckpointError(f"{checkpoint.name} has no file tokenizer.json: give a complete checkpoint.")
        try:
            self._tokenizer = Tokenizer.from_file(str(checkpoint.path / "tokenizer.json"))
        except Exception as error:  # the library raises nothing narrower
            raise CheckpointError(f"tokenizer.json of {checkpoint.name} cannot be read ({error}).") from None

    @property
    def vocabulary(self) -> int:
        """Ids that the tokenizer can give."""
        return self._tokenizer.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``, BOS first."""
        return self._tokenizer.encode(text).ids

    def tokens(self, instruction: str) -> list[int]:
        """Return the ids of the prompt that asks for the action of ``instruction``, up to where the action begins."""
        ids = self.encode(f"In: What action should the robot take to {instruction.lower()}?\nOut:")
        return ids if ids[-1] == SPACE else [*ids, SPACE]
