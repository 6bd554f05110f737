"""Decoding: greedy, sampling and beam search, over any model that can be asked for the next token.

R rows (sentences, or beams of sentences), T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .errors import UserError
from .gpt import GPT
from .transformer import Transformer


class Session(Protocol):
    """A model in the midst of decoding a batch of rows."""

    def logits(self, tokens: Tensor) -> Tensor:
        """tokens: (R, T), those not yet given. Returns the scores of what follows the last one, (R, V)."""
        ...

    def select(self, rows: Tensor) -> None:
        """Go on with these rows (indices, possibly repeated), in this order."""
        ...


class GPTSession:
    """A GPT that reads each token once. padding: (R,) left padding of the first tokens."""

    def __init__(self, model: GPT, capacity: int, padding: Tensor | None = None) -> None:
        self.model, self.cache = model, model.make_cache(capacity, padding)

    def logits(self, tokens: Tensor) -> Tensor:
        hidden = self.model.hidden(tokens, self.cache)  # (R, T, C)
        return self.model.projection(hidden[:, -1])  # (R, V)

    def select(self, rows: Tensor) -> None:
        self.cache.select(rows)


class TranslationSession:
    """An encoder-decoder that has read its sources. src: (R, S); src_mask: (R, 1, 1, S)."""

    def __init__(self, model: Transformer, src: Tensor, src_mask: Tensor, capacity: int) -> None:
        self.model, self.src_mask = model, src_mask
        self.memory = model.encode(src, src_mask)  # (R, S, C)
        self.cache = model.make_cache(src.size(1), capacity)

    def logits(self, tokens: Tensor) -> Tensor:
        hidden = self.model.decode(self.memory, self.src_mask, tokens, cache=self.cache)  # (R, T, C)
        return self.model.project(hidden[:, -1])  # (R, V)

    def select(self, rows: Tensor) -> None:
        self.cache.select(rows)
        self.memory, self.src_mask = self.memory[rows], self.src_mask[rows]


@dataclass(frozen=True)
class Sampling:
    """How to choose the next token from its scores."""

    temperature: float = 1.0
    """Below 1 sharpens, above 1 flattens; 0 takes the best token: greedy decoding."""
    top_k: int | None = None
    """Choose among the k best tokens."""
    top_p: float | None = None
    """Choose among the fewest best tokens whose probabilities reach p (Holtzman et al. 2020)."""

    def __post_init__(self) -> None:
        if self.temperature < 0 or (self.top_k is not None and self.top_k < 1) or not 0 < (self.top_p or 1) <= 1:
            raise ValueError(f"{self} cannot sample: temperature is 0 or more, top_k 1 or more, top_p above 0 to 1")

    def choose(self, logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """logits: (R, V). Returns tokens (R,)."""
        if self.temperature == 0:
            return logits.argmax(dim=-1)
        probabilities = self.filtered(logits).softmax(dim=-1)  # (R, V)
        return torch.multinomial(probabilities, 1, generator=generator)[:, 0]

    def filtered(self, logits: Tensor) -> Tensor:
        """logits: (R, V). Returns them tempered, with minus infinity at the tokens that are out."""
        logits = logits / self.temperature
        if self.top_k is not None and self.top_k < logits.size(-1):
            worst = logits.topk(self.top_k, dim=-1).values[:, -1:]  # (R, 1)
            logits = logits.masked_fill(logits < worst, -math.inf)
        if self.top_p is not None:
            ordered, order = logits.sort(dim=-1, descending=True)  # (R, V)
            probabilities = ordered.softmax(dim=-1)
            out = probabilities.cumsum(dim=-1) - probabilities >= self.top_p  # what comes before already reaches p
            logits = logits.masked_fill(out.scatter(-1, order, out), -math.inf)
        return logits


GREEDY = Sampling(temperature=0.0)


@torch.no_grad()
def sample(
    session: Session,
    start: Tensor,
    max_new: int,
    stop: Collection[int] = (),
    sampling: Sampling = GREEDY,
    generator: torch.Generator | None = None,
) -> list[list[int]]:
    """Return up to ``max_new`` tokens after ``start`` (R, T) for each row, without the stop token that ended it."""
    results: list[list[int]] = [[] for _ in range(len(start))]
    alive = list(range(len(start)))  # which result each of the session's rows belongs to
    tokens = start
    for _ in range(max_new):
        chosen = sampling.choose(session.logits(tokens), generator)  # (R,)
        going = [i for i, token in enumerate(chosen.tolist()) if token not in stop]
        for i in going:
            results[alive[i]].append(int(chosen[i]))
        if not going:
            break
        if len(going) < len(alive):
            rows = torch.tensor(going, device=start.device)
            session.select(rows)
            chosen, alive = chosen[rows], [alive[i] for i in going]
        tokens = chosen[:, None]  # (R, 1)
    return results


@torch.no_grad()
def beam_search(
    session: Session, start: Tensor, max_new: int, stop: int, beams: int = 4, length_penalty: float = 0.6
) -> list[list[int]]:
    """Return the best continuation of each row of ``start`` (R, T) that ``beams`` hypotheses find, without ``stop``.

    A hypothesis of n tokens, ``stop`` among them, is worth its log-probability / ((5 + n) / 6) ** length_penalty (Wu et
    al. 2016): 0 compares sums, which favours short ones.
    """
    sentences, device = len(start), start.device
    session.select(torch.arange(sentences, device=device).repeat_interleave(beams))
    tokens = start.repeat_interleave(beams, dim=0)  # (N K, T)
    scores = torch.full((sentences, beams), -math.inf, device=device)
    scores[:, 0] = 0.0  # all beams start equal: let one speak for them
    alive = list(range(sentences))
    written = torch.empty(sentences * beams, 0, dtype=torch.long, device=device)  # (N K, length so far)
    best: list[tuple[float, list[int]]] = [(-math.inf, []) for _ in range(sentences)]

    for length in range(1, max_new + 1):
        steps = session.logits(tokens).float().log_softmax(dim=-1)  # (N K, V)
        vocabulary = steps.size(-1)
        if length == max_new:  # the last chance: every hypothesis ends here
            steps[:, [i for i in range(vocabulary) if i != stop]] = -math.inf
        totals = (scores.view(-1, 1) + steps).view(len(alive), -1)  # (N, K V)
        # Of 2 K candidates at most K end, so that K stay.
        top, choice = totals.topk(min(2 * beams, totals.size(1)), dim=1)  # (N, 2K)
        worth = ((5 + length) / 6) ** length_penalty
        rows, kept = [], []
        for n, (values, choices) in enumerate(zip(top.tolist(), choice.tolist(), strict=True)):
            going = []
            for rank, (value, index) in enumerate(zip(values, choices, strict=True)):
                row, token = n * beams + index // vocabulary, index % vocabulary
                if token != stop:
                    going.append((value, row, token))
                elif rank < beams and value / worth > best[alive[n]][0]:
                    best[alive[n]] = (value / worth, written[row].tolist())
            going = going[:beams]
            # Sums only fall, and no divisor exceeds the longest one's: what cannot win any more is not pursued.
            bound = going[0][0] / ((5 + max_new) / 6) ** length_penalty if going else -math.inf
            if bound > best[alive[n]][0]:
                kept.append(n)
                rows += going + [(-math.inf, n * beams, stop)] * (beams - len(going))
        if not kept:
            break
        origin = torch.tensor([row for _, row, _ in rows], device=device)
        chosen = torch.tensor([token for _, _, token in rows], device=device)
        scores = torch.tensor([value for value, _, _ in rows], device=device).view(len(kept), beams)
        session.select(origin)
        written = torch.cat([written[origin], chosen[:, None]], dim=1)
        tokens, alive = chosen[:, None], [alive[n] for n in kept]
    return [hypothesis for _, hypothesis in best]


def pad(rows: Sequence[Sequence[int]], filler: int, left: bool = False) -> Tensor:
    """Return rows of different lengths as one tensor (R, longest), filled at the right, or at the left."""
    longest = max(map(len, rows))
    fill = [[filler] * (longest - len(row)) for row in rows]
    return torch.tensor([f + list(row) if left else list(row) + f for row, f in zip(rows, fill, strict=True)])


def generate(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    max_new: int,
    stop: Collection[int] = (),
    sampling: Sampling = GREEDY,
    generator: torch.Generator | None = None,
) -> list[list[int]]:
    """Return up to ``max_new`` tokens after each prompt; prompts of different lengths share a batch.

    Raises UserError where a prompt is empty, or too long for the model together with what is to be written.
    """
    longest = max(map(len, prompts))
    if min(map(len, prompts)) == 0:
        raise UserError("a prompt is empty; give each at least one token.")
    if longest + max_new > model.config.block_size:
        raise UserError(
            f"a prompt of {longest} tokens and {max_new} new ones are longer than the model's "
            f"{model.config.block_size}; shorten one of them."
        )
    device = model.embedding.table.weight.device
    start = pad(prompts, filler=0, left=True).to(device)  # (R, T)
    padding = torch.tensor([longest - len(prompt) for prompt in prompts], device=device)  # (R,)
    session = GPTSession(model, longest + max_new, padding if padding.any() else None)
    return sample(session, start, max_new, stop, sampling, generator)


def translate(
    model: Transformer,
    sources: Sequence[Sequence[int]],
    begin: int,
    end: int,
    filler: int,
    beams: int = 1,
    length_penalty: float = 0.6,
    max_new: int | None = None,
) -> list[list[int]]:
    """Return the translation of each source as tokens without ``begin`` and ``end``; 1 beam decodes greedily.

    max_new: the most tokens to write; None for one and a half times the longest source and ten more.
    Raises UserError for a source that is too long.
    """
    device = model.projection.weight.device
    src = pad(sources, filler).to(device)  # (R, S)
    src_mask = (src != filler)[:, None, None]  # (R, 1, 1, S)
    limit = min(max_new or src.size(1) * 3 // 2 + 10, model.config.tgt_seq)
    session = TranslationSession(model, src, src_mask, limit)
    start = torch.full((len(sources), 1), begin, device=device)  # (R, 1)
    if beams == 1:
        return sample(session, start, limit, {end})
    return beam_search(session, start, limit, end, beams, length_penalty)
