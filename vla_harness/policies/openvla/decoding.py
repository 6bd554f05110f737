"""Greedy decoding in buffers of fixed shape: on CUDA one graph holds vision, prefill and all steps.

A batch gives the tokens that its rows give alone: prompts are padded on the right, where causal attention never looks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from .language import Cache
from .model import OpenVLA

EOS, PAD = 2, 32000
PROMPT_STEP = 32
"""On CUDA prompts are padded to a multiple of this, so that few graphs serve all instructions."""
WARM_UP_RUNS = 3


class Decoder:
    """Runs a model on batches of images and prompts. graphs: capture one CUDA graph per shape of the batch."""

    def __init__(self, model: OpenVLA, steps: int, only_actions: bool = False, graphs: bool = False) -> None:
        """Decode ``steps`` tokens; ``only_actions`` chooses among the action tokens instead of the whole vocabulary."""
        self.model = model
        self.steps = steps
        self.graphs = graphs
        first = model.config.first_padding
        self._allowed = slice(first - model.config.bins, first) if only_actions else slice(None)
        self._captured: dict[tuple[int, int], _Graph] = {}

    @torch.inference_mode()
    def __call__(self, pixels: torch.Tensor, prompts: Sequence[Sequence[int]]) -> np.ndarray:
        """Return the action's token ids (B, steps) int64 of (B, C, 224, 224) pixels and B prompts.

        As in the reference, a row that stops early at EOS takes the last ``steps`` tokens of prompt and answer.
        """
        longest = max(map(len, prompts))
        rows = len(prompts)
        if self.graphs:
            longest = -(-longest // PROMPT_STEP) * PROMPT_STEP
            rows = 1 << (rows - 1).bit_length()  # 1, 2, 4, 8, …
        tokens = torch.full((rows, longest), PAD, dtype=torch.int64)
        lengths = torch.ones(rows, dtype=torch.int64)
        for row, prompt in enumerate(prompts):
            tokens[row, : len(prompt)] = torch.tensor(prompt)
            lengths[row] = len(prompt)
        pixels = torch.cat([pixels, pixels[:1].expand(rows - len(prompts), -1, -1, -1)])
        inputs = pixels, tokens.to(pixels.device), lengths.to(pixels.device)
        if not self.graphs:
            answers = self.generate(*inputs, self.cache(*inputs))
        else:
            if (rows, longest) not in self._captured:
                self._captured[rows, longest] = _Graph(self.generate, inputs, self.cache(*inputs))
            answers = self._captured[rows, longest](inputs)
        found = zip(prompts, answers.cpu().numpy(), strict=False)  # without the rows that only fill the batch
        return np.stack([self._action(prompt, answer) for prompt, answer in found])

    def generate(self, pixels: torch.Tensor, tokens: torch.Tensor, lengths: torch.Tensor, cache: Cache) -> torch.Tensor:
        """Return (B, steps) int64 ids; no step depends on a value that the host must see."""
        logits, places = self.model.prefill(pixels, tokens, lengths, cache)
        answer = [self._best(logits)]
        for step in range(self.steps - 1):
            answer.append(self._best(self.model.step(answer[-1], places + step, cache)))
        return torch.stack(answer, dim=1)

    def cache(self, pixels: torch.Tensor, tokens: torch.Tensor, lengths: torch.Tensor) -> Cache:
        """Return an empty cache with room for these inputs, as ``generate`` takes them, and the answer."""
        config = self.model.config
        places = tokens.shape[1] + pixels.shape[1] // 6 * config.dino.patches + self.steps - 1
        return Cache(config.language, len(lengths), places, self.model.device, self.model.dtype)

    def _best(self, logits: torch.Tensor) -> torch.Tensor:
        return logits[:, self._allowed].argmax(dim=1) + (self._allowed.start or 0)

    def _action(self, prompt: Sequence[int], answer: np.ndarray) -> np.ndarray:
        ends = np.flatnonzero(answer == EOS)
        if len(ends):
            answer = answer[: ends[0] + 1]
        return np.concatenate([np.array(prompt, np.int64), answer])[-self.steps :]


class _Graph:
    """``generate`` for one shape of batch as a CUDA graph, with the buffers that it reads and writes."""

    def __init__(self, generate: Callable[..., torch.Tensor], inputs: tuple[torch.Tensor, ...], cache: Cache) -> None:
        self._inputs = tuple(tensor.clone() for tensor in inputs)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_RUNS):
                generate(*self._inputs, cache)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._output = generate(*self._inputs, cache)

    def __call__(self, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Return (B, steps) ids; valid until the next call."""
        for buffer, value in zip(self._inputs, inputs, strict=True):
            buffer.copy_(value)
        self._graph.replay()
        return self._output
