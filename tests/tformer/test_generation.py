"""Decoding: greedy, sampling, beam search, batches with padding."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from tformer import GPT, GPTConfig, Transformer, TransformerConfig, UserError
from tformer.generation import Sampling, beam_search, generate, pad, sample, translate

CONFIG = GPTConfig(vocab_size=20, block_size=16, d_model=32, layers=2, heads=4)


@pytest.fixture
def gpt() -> GPT:
    torch.manual_seed(3)
    model = GPT(CONFIG).eval()
    torch.nn.init.normal_(model.embedding.table.weight, std=0.5)  # decided enough to have likely continuations
    return model


class Table:
    """A session that follows a fixed table of next-token probabilities, (V, V)."""

    def __init__(self, probabilities: Tensor) -> None:
        self.table = probabilities.log()
        self.rows = -1

    def logits(self, tokens: Tensor) -> Tensor:
        self.rows = len(tokens)
        return self.table[tokens[:, -1]]

    def select(self, rows: Tensor) -> None:
        pass


def test_greedy_takes_the_best_token_each_time(gpt: GPT) -> None:
    tokens = [5, 1, 7]
    for _ in range(8):
        tokens.append(int(gpt(torch.tensor([tokens]))[0, -1].argmax()))
    assert generate(gpt, [[5, 1, 7]], 8) == [tokens[3:]]


def test_a_batch_of_prompts_of_different_lengths_gives_what_each_gives_alone(gpt: GPT) -> None:
    prompts = [[5, 1, 7, 4], [2], [9, 9]]
    assert generate(gpt, prompts, 6) == [generate(gpt, [prompt], 6)[0] for prompt in prompts]


def test_stop_tokens_end_rows_one_by_one(gpt: GPT) -> None:
    prompts = [[5, 1, 7, 4], [2], [9, 9]]
    free = generate(gpt, prompts, 8)
    stop = {free[0][2], free[2][5]}
    cut = [next((row[:i] for i, token in enumerate(row) if token in stop), row) for row in free]
    assert generate(gpt, prompts, 8, stop) == cut
    assert {len(row) for row in cut} != {8}


def test_sampling_draws_from_the_tempered_distribution() -> None:
    logits = torch.tensor([0.5, 0.3, 0.2]).log().repeat(20_000, 1)
    draw = torch.Generator().manual_seed(0)
    shares = Sampling(temperature=0.5).choose(logits, draw).bincount() / 20_000
    squares = torch.tensor([0.25, 0.09, 0.04])
    torch.testing.assert_close(shares, squares / squares.sum(), atol=0.015, rtol=0)


def test_top_k_and_top_p_keep_the_best_tokens() -> None:
    logits = torch.tensor([[0.1, 0.5, 0.15, 0.25]]).log()
    assert Sampling(top_k=2).filtered(logits).isfinite().tolist() == [[False, True, False, True]]
    assert Sampling(top_p=0.75).filtered(logits).isfinite().tolist() == [[False, True, False, True]]
    assert Sampling(top_p=0.76).filtered(logits).isfinite().tolist() == [[False, True, True, True]]
    assert Sampling(top_p=0.01).filtered(logits).isfinite().tolist() == [[False, True, False, False]]
    assert Sampling(top_k=9).filtered(logits).isfinite().all()


def test_sampling_repeats_with_its_generator(gpt: GPT) -> None:
    runs = [generate(gpt, [[1]], 10, (), Sampling(5.0), torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def best_of_all(table: Tensor, start: int, stop: int, longest: int, penalty: float) -> list[int]:
    """Return the best hypothesis by trying every one."""
    candidates = []
    others = [token for token in range(len(table)) if token != stop]
    for length in range(longest):
        for tokens in itertools.product(others, repeat=length):
            path = [start, *tokens, stop]
            value = sum(math.log(table[a, b]) for a, b in itertools.pairwise(path))
            candidates.append((value / ((5 + length + 1) / 6) ** penalty, list(tokens)))
    return max(candidates)[1]


@pytest.mark.parametrize("penalty", [0.0, 0.6, 2.0])
def test_a_wide_beam_finds_the_best_hypothesis_of_all(penalty: float) -> None:
    for seed in range(5):
        table = torch.randn(4, 4, generator=torch.Generator().manual_seed(seed)).mul(2).softmax(dim=-1)
        start = torch.tensor([[0], [2]])
        found = beam_search(Table(table), start, 4, stop=3, beams=64, length_penalty=penalty)
        assert found == [best_of_all(table, begin, 3, 4, penalty) for begin in (0, 2)]


def test_beams_beat_greedy_where_the_best_start_misleads() -> None:
    #        from 0: 1 looks best, but then everything is unlikely; 2 leads to a sure end.
    table = torch.tensor([[0.01, 0.5, 0.45, 0.04], [0.3, 0.3, 0.3, 0.1], [0.01, 0.01, 0.01, 0.97], [0.25] * 4])
    start = torch.tensor([[0]])
    assert sample(Table(table), start, 3, {3})[0][0] == 1
    assert beam_search(Table(table), start, 3, stop=3, beams=2) == [[2]]
    assert beam_search(Table(table), start, 3, stop=3, beams=1)[0][:1] == [1]


def test_length_penalty_favours_long_hypotheses() -> None:
    table = torch.tensor([[0.0, 0.6, 0.4], [0.0, 0.6, 0.4], [1 / 3] * 3])
    short = beam_search(Table(table), torch.tensor([[0]]), 6, stop=2, beams=8, length_penalty=0.0)
    long = beam_search(Table(table), torch.tensor([[0]]), 6, stop=2, beams=8, length_penalty=3.0)
    assert short == [[]] and len(long[0]) == 5


def test_translation_batches_greedy_and_beams() -> None:
    torch.manual_seed(0)
    model = Transformer(TransformerConfig(30, 30, 20, 20, d_model=32, layers=2, heads=4, d_ff=64, dropout=0.0)).eval()
    torch.nn.init.normal_(model.projection.weight, std=0.5)
    sources = [[2, 9, 8, 7, 3], [2, 5, 3], [2, 11, 12, 13, 14, 15, 3]]
    for beams in (1, 4):
        together = translate(model, sources, begin=2, end=3, filler=1, beams=beams, max_new=9)
        alone = [translate(model, [s], begin=2, end=3, filler=1, beams=beams, max_new=9)[0] for s in sources]
        assert together == alone
    assert translate(model, sources, 2, 3, 1, beams=1, max_new=9) != together


def test_prompts_that_do_not_fit_are_refused(gpt: GPT) -> None:
    with pytest.raises(UserError, match="a prompt of 10 tokens and 8 new ones are longer than the model's 16"):
        generate(gpt, [[1] * 10], 8)
    with pytest.raises(UserError, match="a prompt is empty"):
        generate(gpt, [[1], []], 3)


def test_pad_fills_on_either_side() -> None:
    assert pad([[1], [2, 3]], 0).tolist() == [[1, 0], [2, 3]]
    assert pad([[1], [2, 3]], 0, left=True).tolist() == [[0, 1], [2, 3]]
