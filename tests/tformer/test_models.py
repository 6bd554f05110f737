"""The encoder-decoder and the GPT: against references, masks, caches."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from tformer import GPT, Bigram, GPTConfig, Transformer, TransformerConfig, build_transformer
from tformer.cache import KVCache
from tformer.errors import UserError
from tformer.gpt import gpt2_from_weights, load_gpt2

SMALL = TransformerConfig(50, 60, 20, 24, d_model=32, layers=2, heads=4, d_ff=64, dropout=0.0)
TINY_GPT = GPTConfig(vocab_size=50, block_size=24, d_model=32, layers=2, heads=4)
GPTS = [
    TINY_GPT,
    replace(TINY_GPT, positions="rotary", norm="rms", activation="swiglu", kv_heads=2, bias=False, d_ff=None),
    replace(TINY_GPT, positions="sinusoidal", activation="gelu"),
]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def padded_source() -> tuple[Tensor, Tensor]:
    """Return two sources (2, 7), of which the second has 4 tokens, and their mask."""
    mask = torch.ones(2, 1, 1, 7, dtype=torch.long)
    mask[1, ..., 4:] = 0
    return torch.randint(50, (2, 7)), mask


def test_build_transformer_follows_the_tutorial_s_interface() -> None:
    model: Any = build_transformer(50, 60, 20, 24, d_model=32, N=2, h=4, d_ff=64)
    src, src_mask = padded_source()
    tgt = torch.randint(60, (2, 5))
    causal = torch.ones(1, 1, 5, 5).tril()
    memory = model.encode(src, src_mask)
    hidden = model.decode(memory, src_mask, tgt, causal)
    assert memory.shape == (2, 7, 32) and hidden.shape == (2, 5, 32) and model.project(hidden).shape == (2, 5, 60)
    assert len(model.encoder) == len(model.decoder) == 2 and model.config.dropout == 0.1
    base = build_transformer(1000, 1000, 10, 10).config
    assert (base.d_model, base.layers, base.heads, base.d_ff) == (512, 6, 8, 2048)
    bound = (6 / (32 + 64)) ** 0.5  # Xavier's
    weight = model.encoder[0].feed_forward.up.weight
    assert 0.9 * bound < weight.abs().max() <= bound


def test_none_means_the_causal_mask() -> None:
    model = Transformer(SMALL).eval()
    src, src_mask = padded_source()
    tgt = torch.randint(60, (2, 5))
    memory = model.encode(src, src_mask)
    masked = model.decode(memory, src_mask, tgt, torch.ones(1, 1, 5, 5).tril())
    torch.testing.assert_close(model.decode(memory, src_mask, tgt), masked, atol=1e-5, rtol=0)
    everything = model.decode(memory, src_mask, tgt, torch.ones(1, 1, 5, 5))
    assert (everything - masked).abs().max() > 1e-2


@pytest.mark.parametrize("norm_first", [False, True])
def test_it_equals_torchs_transformer(norm_first: bool) -> None:
    ours = Transformer(replace(SMALL, norm_first=norm_first)).eval()
    layer: dict[str, Any] = {"d_model": 32, "nhead": 4, "dim_feedforward": 64, "dropout": 0.0, "batch_first": True}
    theirs = nn.Transformer(num_encoder_layers=2, num_decoder_layers=2, norm_first=norm_first, **layer).eval()
    if not norm_first:  # torch ends in a norm even after post-norm layers; the paper does not
        theirs.encoder.norm = theirs.decoder.norm = None  # type: ignore[assignment]
    copy_to_torch(ours, theirs)
    src, src_mask = padded_source()
    tgt = torch.randint(60, (2, 5))
    source = ours.src_embedding(src, torch.arange(7))
    target = ours.tgt_embedding(tgt, torch.arange(5))
    hidden_keys = src_mask[:, 0, 0] == 0
    expected = theirs(
        source,
        target,
        tgt_mask=torch.ones(5, 5).triu(1).bool(),
        src_key_padding_mask=hidden_keys,
        memory_key_padding_mask=hidden_keys,
    )
    torch.testing.assert_close(ours.decode(ours.encode(src, src_mask), src_mask, tgt), expected, atol=1e-5, rtol=0)


def copy_to_torch(ours: Any, theirs: Any) -> None:
    """Give torch's module the weights of ours."""

    def copy_self(a: Any, b: Any) -> None:
        b.in_proj_weight.data, b.in_proj_bias.data = a.qkv.weight.data, a.qkv.bias.data
        b.out_proj.load_state_dict(a.out.state_dict())

    def copy_norm(a: Any, b: Any) -> None:
        b.weight.data, b.bias.data = a.scale.data, a.shift.data

    for a, b in zip(ours.encoder, theirs.encoder.layers, strict=True):
        copy_self(a.attention, b.self_attn)
        for i, norm in enumerate((b.norm1, b.norm2)):
            copy_norm(a.residuals[i].norm, norm)
    for a, b in zip(ours.decoder, theirs.decoder.layers, strict=True):
        copy_self(a.attention, b.self_attn)
        cross = a.cross_attention
        b.multihead_attn.in_proj_weight.data = torch.cat([cross.q.weight, cross.kv.weight]).data
        b.multihead_attn.in_proj_bias.data = torch.cat([cross.q.bias, cross.kv.bias]).data
        b.multihead_attn.out_proj.load_state_dict(cross.out.state_dict())
        for i, norm in enumerate((b.norm1, b.norm2, b.norm3)):
            copy_norm(a.residuals[i].norm, norm)
    for a, b in zip([*ours.encoder, *ours.decoder], [*theirs.encoder.layers, *theirs.decoder.layers], strict=True):
        b.linear1.load_state_dict(a.feed_forward.up.state_dict())
        b.linear2.load_state_dict(a.feed_forward.down.state_dict())


def test_padding_changes_nothing() -> None:
    model = Transformer(SMALL).eval()
    src, src_mask = padded_source()
    tgt = torch.randint(60, (2, 5))
    both = model(src, src_mask, tgt)
    alone = model(src[1:, :4], None, tgt[1:])
    torch.testing.assert_close(both[1:], alone, atol=1e-5, rtol=0)


def test_tied_weights_are_one_table() -> None:
    model = Transformer(replace(SMALL, tgt_vocab_size=50, tie_weights=True))
    assert model.projection.weight is model.src_embedding.tokens.table.weight
    assert model.projection.weight is model.tgt_embedding.tokens.table.weight
    with pytest.raises(ValueError, match="one vocabulary"):
        replace(SMALL, tie_weights=True)


def test_sentences_longer_than_the_model_are_refused_in_one_sentence() -> None:
    model = Transformer(SMALL)
    with pytest.raises(UserError, match=r"a source of 21 tokens is longer than the model's 20; shorten it"):
        model.encode(torch.zeros(1, 21, dtype=torch.long))
    with pytest.raises(UserError, match="a target of 25 tokens is longer"):
        model.decode(torch.zeros(1, 3, 32), None, torch.zeros(1, 25, dtype=torch.long))
    with pytest.raises(UserError, match="25 tokens are more than the model's 24"):
        GPT(TINY_GPT)(torch.zeros(1, 25, dtype=torch.long))


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("config", [SMALL, replace(SMALL, positions="rotary", norm_first=True, kv_heads=2)])
@torch.no_grad()
def test_cached_decoding_of_the_encoder_decoder_equals_uncached(config: TransformerConfig, static: bool) -> None:
    model = Transformer(config).eval()
    src, src_mask = padded_source()
    memory = model.encode(src, src_mask)
    cache: KVCache = model.make_static_cache(2, 7, 12) if static else model.make_cache(7, 12)
    tokens = torch.randint(60, (2, 3))  # the first step takes three at once
    given = tokens
    for _ in range(9):
        cached = model.project(model.decode(memory, src_mask, given, cache=cache))[:, -1]
        whole = model.project(model.decode(memory, src_mask, tokens))[:, -1]
        torch.testing.assert_close(cached, whole, atol=1e-5, rtol=0)
        assert torch.equal(cached.argmax(-1), whole.argmax(-1))
        given = whole.argmax(-1, keepdim=True)
        tokens = torch.cat([tokens, given], dim=1)


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("config", GPTS)
@torch.no_grad()
def test_cached_decoding_of_the_gpt_equals_uncached(config: GPTConfig, static: bool) -> None:
    model = GPT(config).eval()
    cache: KVCache = model.make_static_cache(2, 12) if static else model.make_cache(12)
    tokens = torch.randint(50, (2, 3))
    given = tokens
    for _ in range(9):
        cached, whole = model(given, cache)[:, -1], model(tokens)[:, -1]
        torch.testing.assert_close(cached, whole, atol=1e-5, rtol=0)
        assert torch.equal(cached.argmax(-1), whole.argmax(-1))
        given = whole.argmax(-1, keepdim=True)
        tokens = torch.cat([tokens, given], dim=1)


@pytest.mark.parametrize("static", [False, True])
@torch.no_grad()
def test_left_padding_in_the_cache_changes_nothing(static: bool) -> None:
    model = GPT(TINY_GPT).eval()
    long, short = torch.randint(50, (1, 6)), torch.randint(50, (1, 4))
    both = torch.cat([long, torch.cat([torch.zeros(1, 2, dtype=torch.long), short], dim=1)])
    padding = torch.tensor([0, 2])
    cache: KVCache = model.make_static_cache(2, 10, padding) if static else model.make_cache(10, padding)
    logits = model(both, cache)
    torch.testing.assert_close(logits[0, -1], model(long)[0, -1], atol=1e-5, rtol=0)
    torch.testing.assert_close(logits[1, -1], model(short)[0, -1], atol=1e-5, rtol=0)
    following = torch.tensor([[7], [9]])
    logits = model(following, cache)
    torch.testing.assert_close(logits[1, 0], model(torch.cat([short, following[1:]], 1))[0, -1], atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_static_cache_is_captured_as_one_graph() -> None:
    model = GPT(GPTS[1]).eval()
    graphs = []

    def count(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    step = torch.compile(model.forward, backend=count, fullgraph=True, dynamic=False)
    cache = model.make_static_cache(1, 12)
    tokens = torch.randint(50, (1, 10))
    model(tokens[:, :3], cache)
    for t in range(3, 10):
        logits = step(tokens[:, t : t + 1], cache)
        torch.testing.assert_close(logits[:, -1], model(tokens[:, : t + 1])[:, -1], atol=1e-5, rtol=0)
    assert len(graphs) == 1


def test_gpt_loads_gpt2_s_layout(tmp_path: Path) -> None:
    theirs_config = GPT2Config(vocab_size=50, n_positions=24, n_embd=32, n_layer=2, n_head=4)
    theirs = GPT2LMHeadModel(theirs_config).eval()
    for parameter in theirs.parameters():  # biases and norms start at 0 and 1, which would hide a mix-up
        nn.init.normal_(parameter, std=0.2)
    tokens = torch.randint(50, (2, 9))
    expected = theirs(tokens).logits
    ours = gpt2_from_weights(TINY_GPT, theirs.state_dict()).eval()
    torch.testing.assert_close(ours(tokens), expected, atol=1e-5, rtol=1e-5)
    theirs.save_pretrained(tmp_path)
    torch.testing.assert_close(load_gpt2(tmp_path).eval()(tokens), expected, atol=1e-5, rtol=1e-5)
    stored = json.loads((tmp_path / "config.json").read_text())
    for changed, told in (
        ({"n_embd": None}, "has n_embd None"),
        ({"n_layer": 10**9}, "do not fit the weights beside it"),
        ({"vocab_size": 51}, "do not fit the weights beside it"),
        ({"n_positions": 25}, "does not fit its config.json"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(stored | changed))
        with pytest.raises(UserError, match=told):
            load_gpt2(tmp_path)
    weights = theirs.state_dict()
    del weights["transformer.h.1.mlp.c_fc.bias"]
    with pytest.raises(UserError, match=r"h.1.mlp.c_fc.bias is missing"):
        gpt2_from_weights(TINY_GPT, weights)


def test_the_bigram_table_is_what_gradient_descent_approaches() -> None:
    tokens = torch.randint(4, (400,)).cumsum(0) % 4
    fitted, trained = Bigram(4), Bigram(4)
    fitted.fit(tokens)
    optimizer = torch.optim.Adam(trained.parameters(), lr=0.1)
    for _ in range(200):
        loss = nn.functional.cross_entropy(trained(tokens[None, :-1])[0], tokens[1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    expected = nn.functional.cross_entropy(fitted(tokens[None, :-1])[0], tokens[1:])
    assert loss.item() == pytest.approx(expected.item(), abs=1e-3)
