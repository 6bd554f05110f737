"""Greedy decoding in buffers of fixed shape: on CUDA one graph holds vision, prefill and all steps.

A batch gives the tokens that its rows give alone: prompts are padded on the right, where causal attention never looks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from .language import Cache
from .model import OpenVLA

Generate = Callable[..., torch.Tensor]
EOS, PAD = 2, 32000
PROMPT_STEP = 32
"""Where shapes are fixed, prompts are padded to a multiple of this, so that few graphs serve all instructions."""


class Decoder:
    """Runs a model on batches of images and prompts."""

    def __init__(
        self,
        model: OpenVLA,
        steps: int,
        only_actions: bool = False,
        fixed_shapes: bool = False,
        fast: Callable[[Generate], Generate] = lambda generate: generate,
    ) -> None:
        """Decode ``steps`` tokens; ``only_actions`` chooses among the action tokens instead of the whole vocabulary.

        fixed_shapes: pad batches to few shapes. fast: makes the generation faster, once per shape of the batch.
        """
        self.model = model
        self.steps = steps
        first = model.config.first_padding
        self._allowed = slice(first - model.config.bins, first) if only_actions else slice(None)
        self._fixed_shapes = fixed_shapes
        self._generate = fast(self.generate)

    @torch.inference_mode()
    def __call__(self, pixels: torch.Tensor, prompts: Sequence[Sequence[int]]) -> np.ndarray:
        """Return the action's token ids (B, steps) int64 of (B, 6, 224, 224) pixels and B prompts.

        As in the reference, a row that stops early at EOS takes the last ``steps`` tokens of prompt and answer.
        """
        rows = len(prompts)
        tokens, lengths = padded_prompts(prompts, pixels.device, self._fixed_shapes)
        pixels = torch.cat([pixels, pixels[:1].expand(len(tokens) - rows, -1, -1, -1)])
        answers = self._generate(pixels, tokens, lengths)[:rows].cpu().numpy()
        return np.stack([self._action(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)])

    def generate(self, pixels: torch.Tensor, tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return (B, steps) int64 ids; no step depends on a value that the host must see."""
        cache = self.cache(tokens)
        logits, places = self.model.prefill(pixels, tokens, lengths, cache)
        answer = [self._best(logits)]
        for step in range(self.steps - 1):
            answer.append(self._best(self.model.step(answer[-1], places + step, cache)))
        return torch.stack(answer, dim=1)

    def cache(self, tokens: torch.Tensor) -> Cache:
        """Return an empty cache with room for an image, padded prompts (B, T), and the answer."""
        config = self.model.config
        places = config.dino.patches + tokens.shape[1] + self.steps - 1
        return Cache(config.language, len(tokens), places, self.model.device, self.model.dtype)

    def _best(self, logits: torch.Tensor) -> torch.Tensor:
        return logits[:, self._allowed].argmax(dim=1) + (self._allowed.start or 0)

    def _action(self, prompt: Sequence[int], answer: np.ndarray) -> np.ndarray:
        ends = np.flatnonzero(answer == EOS)
        if len(ends):
            answer = answer[: ends[0] + 1]
        return np.concatenate([np.array(prompt, np.int64), answer])[-self.steps :]


def padded_prompts(
    prompts: Sequence[Sequence[int]], device: torch.device, fixed_shapes: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return tokens (B, T) int64, padded on the right, and lengths (B,) int64 without the padding.

    fixed_shapes: round B up to a power of two, by rows that stand for nothing, and T to a multiple of PROMPT_STEP.
    """
    rows, longest = len(prompts), max(map(len, prompts))
    if fixed_shapes:
        rows, longest = 1 << (rows - 1).bit_length(), -(-longest // PROMPT_STEP) * PROMPT_STEP
    tokens = torch.full((rows, longest), PAD, dtype=torch.int64)
    lengths = torch.ones(rows, dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = torch.tensor(prompt)
        lengths[row] = len(prompt)
    return tokens.to(device), lengths.to(device)
