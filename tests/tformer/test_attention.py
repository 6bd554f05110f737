"""The readable attention path against the fast one, and the layers against their formulas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tformer.attention import CrossAttention, SelfAttention, attention, attention_with_weights, causal_mask
from tformer.layers import FeedForward, LayerNorm, Residual, RMSNorm, RotaryPositions, TokenEmbedding, sinusoids

B, T, S, C, H = 2, 5, 7, 32, 4


def heads(length: int) -> Tensor:
    return torch.randn(B, H, length, C // H)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("mask", [None, "padding", "padding as numbers"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("queries", [1, T, S])
def test_both_paths_agree(mask: str | None, causal: bool, queries: int) -> None:
    q, k, v = heads(queries), heads(S), heads(S)
    allowed = torch.ones(B, 1, 1, S, dtype=torch.bool)
    allowed[0, ..., 3:] = False
    given = None if mask is None else allowed if mask == "padding" else allowed.long()
    expected, weights = attention_with_weights(q, k, v, given, causal)
    torch.testing.assert_close(attention(q, k, v, given, causal), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, H, queries))


def test_a_query_that_may_attend_to_nothing_gets_zero() -> None:
    q, k, v = heads(T), heads(T), heads(T)
    mask = torch.ones(B, 1, T, T, dtype=torch.bool)
    mask[0, :, 2] = False
    expected, weights = attention_with_weights(q, k, v, mask)
    torch.testing.assert_close(attention(q, k, v, mask), expected, atol=1e-6, rtol=0)
    assert weights[0, :, 2].abs().max() == 0 and expected[0, :, 2].abs().max() == 0


def test_causal_mask_lets_the_last_query_see_all() -> None:
    assert causal_mask(2, 4).int().tolist() == [[[1, 1, 1, 0], [1, 1, 1, 1]]]


@pytest.mark.parametrize("kv_heads", [None, 2, 1])
@pytest.mark.parametrize("rotary", [False, True])
def test_self_attention_module_paths_agree(kv_heads: int | None, rotary: bool) -> None:
    module = SelfAttention(C, H, kv_heads, rotary=RotaryPositions(T, C // H) if rotary else None)
    x = torch.randn(B, T, C)
    expected, weights = module.weights(x, causal=True)
    torch.testing.assert_close(module(x, causal=True), expected, atol=1e-6, rtol=0)
    assert weights.shape == (B, H, T, T) and weights.triu(1).abs().max() == 0


def test_attention_equals_torchs_own_module() -> None:
    ours, theirs = SelfAttention(C, H), nn.MultiheadAttention(C, H, batch_first=True)
    theirs.in_proj_weight.data, theirs.in_proj_bias.data = ours.qkv.weight.data, ours.qkv.bias.data
    theirs.out_proj.weight.data, theirs.out_proj.bias.data = ours.out.weight.data, ours.out.bias.data
    x = torch.randn(B, T, C)
    torch.testing.assert_close(ours(x), theirs(x, x, x)[0], atol=1e-6, rtol=0)


def test_cross_attention_paths_agree_and_ignore_masked_memory() -> None:
    module = CrossAttention(C, H)
    x, memory = torch.randn(B, T, C), torch.randn(B, S, C)
    mask = torch.ones(B, 1, 1, S)
    mask[:, :, :, 4:] = 0
    expected, weights = module.weights(x, memory, mask)
    torch.testing.assert_close(module(x, memory, mask), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(module(x, memory[:, :4]), expected, atol=1e-6, rtol=0)
    assert weights[..., 4:].abs().max() == 0


def test_grouped_heads_equal_full_heads_with_repeated_weights() -> None:
    grouped, full = SelfAttention(C, H, kv_heads=2), SelfAttention(C, H)
    q, k, v = grouped.qkv.weight.split([C, C // 2, C // 2])
    repeat = [part.view(2, C // H, C).repeat_interleave(2, dim=0).reshape(C, C) for part in (k, v)]
    full.qkv.weight.data = torch.cat([q, *repeat])
    full.qkv.bias.data.zero_()
    grouped.qkv.bias.data.zero_()
    full.out.load_state_dict(grouped.out.state_dict())
    x = torch.randn(B, T, C)
    torch.testing.assert_close(grouped(x), full(x), atol=1e-6, rtol=0)


def test_rotary_scores_depend_on_distance_alone() -> None:
    rotary = RotaryPositions(64, 8)
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)

    def score(m: int, n: int) -> Tensor:
        return (rotary(q, torch.tensor([m])) * rotary(k, torch.tensor([n]))).sum()

    torch.testing.assert_close(score(3, 1), score(43, 41), atol=1e-5, rtol=0)
    assert abs(score(3, 1) - score(3, 2)) > 1e-3
    torch.testing.assert_close(rotary(q, torch.tensor([9])).norm(), q.norm())


def test_norms_follow_their_formulas() -> None:
    x = torch.randn(B, T, C) * 3 + 1
    layer, rms = LayerNorm(C), RMSNorm(C, shift=True)
    for parameter in [*layer.parameters(), *rms.parameters()]:
        nn.init.normal_(parameter)
    mean, var = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
    assert layer.shift is not None and rms.shift is not None
    expected = (x - mean) / (var + layer.eps).sqrt() * layer.scale + layer.shift
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)
    expected = x / (x.pow(2).mean(-1, keepdim=True) + rms.eps).sqrt() * rms.scale + rms.shift
    torch.testing.assert_close(rms(x), expected, atol=1e-5, rtol=1e-5)


def test_sinusoids_follow_the_paper() -> None:
    table = sinusoids(torch.arange(50), 16)
    assert table.shape == (50, 16)
    torch.testing.assert_close(table[7, 4], torch.tensor(7 / 10_000 ** (4 / 16)).sin())
    torch.testing.assert_close(table[7, 5], torch.tensor(7 / 10_000 ** (4 / 16)).cos())


def test_embedding_is_scaled_by_the_root_of_the_width() -> None:
    embedding = TokenEmbedding(10, 16)
    torch.testing.assert_close(embedding(torch.tensor([[3]]))[0, 0], embedding.table.weight[3] * 4)


def test_swiglu_gates() -> None:
    module = FeedForward(C, 3 * C, "swiglu")
    x = torch.randn(B, T, C)
    gate, up = module.up(x).split(3 * C, dim=-1)
    torch.testing.assert_close(module(x), module.down(gate * gate.sigmoid() * up))


@pytest.mark.parametrize("norm_first", [False, True])
def test_residual_places_the_norm(norm_first: bool) -> None:
    norm = LayerNorm(C)
    residual = Residual(norm, norm_first=norm_first)
    x = torch.randn(B, T, C)
    expected = x + norm(x) ** 2 if norm_first else norm(x + x**2)
    torch.testing.assert_close(residual(x, lambda y: y**2), expected)
