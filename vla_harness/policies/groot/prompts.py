"""Instructions to token ids: Eagle's chat template, with 256 image tokens for each camera."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from transformers import Qwen2Tokenizer

from ...checkpoints import Checkpoint
from ...errors import CheckpointError

PromptStyle = Literal["policy", "train"]
"""How the words enter the prompt: "policy" writes them as the list ['…'] that the reference's ``Gr00tPolicy`` makes of
them, "train" as they are, which is what the network saw in training."""

_IMAGE = "<IMG_CONTEXT>"


class Prompts:
    """Tokens of an instruction under the images of some cameras."""

    def __init__(self, tokenizer: Checkpoint, image_token: int, patches: int = 256) -> None:
        """tokenizer: a folder with vocab.json and merges.txt, or tokenizer.json. patches: image tokens per camera.

        Raises CheckpointError when the folder holds no tokenizer, or one that does not fit ``image_token``.
        """
        if not (tokenizer.has("vocab.json") and tokenizer.has("merges.txt")) and not tokenizer.has("tokenizer.json"):
            raise CheckpointError(
                f"{tokenizer.name} holds no tokenizer (vocab.json and merges.txt): give the folder of Eagle's as"
                " tokenizer."
            )
        self._tokenizer = Qwen2Tokenizer.from_pretrained(str(tokenizer.path))
        found = self._tokenizer.convert_tokens_to_ids(_IMAGE)
        if found != image_token:
            raise CheckpointError(
                f"The image token of the tokenizer {tokenizer.name} is {found}, the model's is {image_token}: give the"
                " tokenizer of this model."
            )
        self._image_token, self._patches = image_token, patches
        self.padding = int(self._tokenizer.pad_token_id)
        self._cached = lru_cache(maxsize=1024)(self._tokens)

    def __call__(self, instruction: str, cameras: int, style: PromptStyle) -> tuple[int, ...]:
        """Return the token ids of ``instruction`` behind the images of ``cameras`` cameras."""
        return self._cached(instruction, cameras, style)

    def _tokens(self, instruction: str, cameras: int, style: PromptStyle) -> tuple[int, ...]:
        tokens: list[int] = []
        for token in self._tokenizer(prompt(instruction, cameras, style))["input_ids"]:
            tokens += [token] * (self._patches if token == self._image_token else 1)
        return tuple(tokens)


def prompt(instruction: str, cameras: int, style: PromptStyle) -> str:
    """Return the whole prompt, with one image token for each camera."""
    images = "".join(f"<image {number}><img>{_IMAGE}</img>" for number in range(1, cameras + 1))
    words = f"[{instruction!r}]" if style == "policy" else instruction
    return (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n{images}{words}<|im_end|>\n<|im_start|>assistant\n"
    )
