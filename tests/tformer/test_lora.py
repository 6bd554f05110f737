"""LoRA: it starts as the model, learns alone, merges, and is stored apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tformer import GPT, GPTConfig, Transformer, TransformerConfig, UserError
from tformer.lora import apply_lora, load_lora, lora_layers, merge_lora, save_lora

CONFIG = GPTConfig(vocab_size=20, block_size=16, d_model=32, layers=2, heads=4)


@pytest.fixture
def tokens() -> Tensor:
    torch.manual_seed(0)
    return torch.randint(20, (2, 8))


def adapted(seed: int = 0) -> GPT:
    """Return a GPT with LoRA whose change is not zero."""
    torch.manual_seed(seed)
    model = GPT(CONFIG)
    apply_lora(model, rank=4)
    for _, layer in lora_layers(model):
        nn.init.normal_(layer.b, std=0.1)
    return model


def test_it_starts_unchanged_and_freezes_the_model(tokens: Tensor) -> None:
    model = GPT(CONFIG)
    before = model(tokens)
    learning = apply_lora(model, rank=4)
    torch.testing.assert_close(model(tokens), before)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert names and all(name.endswith((".a", ".b")) for name in names)
    # qkv 32 to 96, out 32 to 32, up 32 to 128, down 128 to 32, twice; the projection is the embedding's table.
    assert learning == 2 * 4 * ((32 + 96) + (32 + 32) + (32 + 128) + (128 + 32))


def test_only_it_learns(tokens: Tensor) -> None:
    model = GPT(CONFIG)
    apply_lora(model, rank=4, choose=lambda name: "qkv" in name)
    frozen = {name: value.clone() for name, value in model.named_parameters() if not value.requires_grad}
    optimizer = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=0.05)
    losses = []
    for _ in range(30):
        loss = nn.functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.05
    assert all(torch.equal(value, frozen[name]) for name, value in model.named_parameters() if name in frozen)
    assert len(list(lora_layers(model))) == 2


def test_merged_equals_unmerged(tokens: Tensor) -> None:
    model = adapted()
    expected = model(tokens)
    merge_lora(model)
    torch.testing.assert_close(model(tokens), expected, atol=1e-5, rtol=0)
    assert not list(lora_layers(model))
    assert model.state_dict().keys() == GPT(CONFIG).state_dict().keys()


def test_it_adapts_cross_attention_too() -> None:
    torch.manual_seed(0)
    model = Transformer(TransformerConfig(20, 20, 8, 8, d_model=32, layers=1, heads=4, d_ff=64)).eval()
    src, tgt = torch.randint(20, (1, 5)), torch.randint(20, (1, 4))
    before = model(src, None, tgt)
    apply_lora(model, rank=2, choose=lambda name: "cross_attention.kv" in name)
    for _, layer in lora_layers(model):
        nn.init.normal_(layer.b)
    changed = model(src, None, tgt)
    assert (changed - before).abs().max() > 1e-3
    merge_lora(model)
    torch.testing.assert_close(model(src, None, tgt), changed, atol=1e-5, rtol=0)


def test_it_is_stored_apart(tmp_path: Path, tokens: Tensor) -> None:
    model = adapted()
    save_lora(model, tmp_path / "lora.safetensors")
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert (tmp_path / "lora.safetensors").stat().st_size < 4 * learning + 4000
    torch.manual_seed(0)
    plain = GPT(CONFIG)
    load_lora(plain, tmp_path / "lora.safetensors")
    assert torch.equal(plain(tokens), model(tokens))


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    save_lora(adapted(), tmp_path / "lora.safetensors")
    wider = GPT(GPTConfig(vocab_size=20, block_size=16, d_model=64, layers=2, heads=4))
    with pytest.raises(UserError, match="made for another model"):
        load_lora(wider, tmp_path / "lora.safetensors")
    assert not list(lora_layers(wider))
    with pytest.raises(UserError, match="no readable LoRA file"):
        load_lora(wider, tmp_path / "none.safetensors")
    with pytest.raises(UserError, match="no Linear of the model was chosen"):
        apply_lora(wider, choose=lambda name: False)
    with pytest.raises(UserError, match="rank 100 does not fit"):
        apply_lora(wider, rank=100)


def test_numbers_that_are_none_and_other_tensors_are_refused(tmp_path: Path) -> None:
    model = adapted()
    path = tmp_path / "lora.safetensors"
    save_lora(model, path)
    stored = load_file(path)
    name = next(name for name in stored if name.endswith(".b"))
    for changed, told in (
        (stored | {name: torch.full_like(stored[name], float("nan"))}, "holds NaN or infinite numbers"),
        ({key: value for key, value in stored.items() if key != name}, "holds other tensors than"),
        (stored | {name: stored[name][0].clone()}, "was made for another model"),
    ):
        save_file(changed, path)
        with pytest.raises(UserError, match=told):
            load_lora(GPT(CONFIG), path)
