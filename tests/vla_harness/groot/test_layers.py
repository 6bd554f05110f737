"""The parts of the action head alone, with weights of their own, against NVIDIA's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.vla_harness.groot.goldens import Goldens
from vla_harness.policies.groot.action_head import HeadConfig
from vla_harness.policies.groot.dit import Adapter, AdaptiveNorm, DiT, DiTBlock, TimeEmbedding, TransformerConfig
from vla_harness.policies.groot.layers import ActionEncoder, CategoryMLP, action_time_waves, timestep_waves

WIDTH = TransformerConfig(num_layers=1, num_attention_heads=4, attention_head_dim=12, cross_attention_dim=64)


@pytest.fixture(scope="module")
def goldens() -> Goldens:
    return Goldens("submodules")


def with_weights(module: nn.Module, goldens: Goldens, name: str) -> nn.Module:
    module.load_state_dict({key: torch.from_numpy(w) for key, w in goldens.under(f"{name}.w.").items()})
    return module.eval()


def same(output: torch.Tensor, goldens: Goldens, name: str) -> None:
    torch.testing.assert_close(output, goldens.tensor(name), rtol=0, atol=1e-5)


def test_waves_of_the_times(goldens: Goldens) -> None:
    same(action_time_waves(goldens.tensor("sinusoidal_pos_enc.t"), 48), goldens, "sinusoidal_pos_enc.out")
    waves = timestep_waves(goldens.tensor("timestep_encoder.t"))
    # Angles near 1000 are known to 6e-5 in fp32.
    torch.testing.assert_close(waves, goldens.tensor("timestep_encoder.proj"), rtol=0, atol=1e-4)


def test_time_embedding(goldens: Goldens) -> None:
    module = with_weights(TimeEmbedding(48), goldens, "timestep_encoder")
    same(module(goldens.tensor("timestep_encoder.t")), goldens, "timestep_encoder.out")


def test_adaptive_norm(goldens: Goldens) -> None:
    module = with_weights(AdaptiveNorm(48), goldens, "ada_layer_norm")
    assert isinstance(module, AdaptiveNorm)
    modulation = module.modulation(goldens.tensor("ada_layer_norm.temb"))
    same(module(goldens.tensor("ada_layer_norm.x"), modulation), goldens, "ada_layer_norm.out")


@pytest.mark.parametrize("kind", ["cross", "self"])
def test_dit_block(kind: str, goldens: Goldens) -> None:
    name = f"dit_block_{kind}"
    block = with_weights(DiTBlock(WIDTH, cross=kind == "cross"), goldens, name)
    assert isinstance(block, DiTBlock)
    features = block.attn1.keys_values(goldens.tensor(f"{name}.enc")) if kind == "cross" else None
    modulation = block.norm1.modulation(goldens.tensor(f"{name}.temb"))
    same(block(goldens.tensor(f"{name}.x"), modulation, features), goldens, f"{name}.out")


def test_adapter(goldens: Goldens) -> None:
    config = TransformerConfig(num_layers=2, num_attention_heads=4, attention_head_dim=16)
    adapter = with_weights(Adapter(config), goldens, "vl_self_attention")
    same(adapter(goldens.tensor("vl_self_attention.x")), goldens, "vl_self_attention.out")


def test_dit_and_what_each_of_its_blocks_gives(goldens: Goldens) -> None:
    dit = with_weights(DiT(replace(WIDTH, num_layers=4, output_dim=40)), goldens, "dit")
    assert isinstance(dit, DiT)
    hidden = [goldens.tensor("dit.x")]
    for block in dit.blocks():
        block.register_forward_hook(lambda _, __, output: hidden.append(output))
    modulations = dit.modulations(goldens.tensor("dit.t"))
    out = dit(goldens.tensor("dit.x"), modulations, dit.keys_values(goldens.tensor("dit.enc")))
    same(torch.stack(hidden), goldens, "dit.hidden")
    same(out, goldens, "dit.out")


def test_layers_of_one_embodiment(goldens: Goldens) -> None:
    mlp = with_weights(CategoryMLP(6, 10, 14, 8), goldens, "category_mlp")
    x, categories = goldens.tensor("category_mlp.x"), goldens.tensor("category_mlp.cat_ids")
    same(mlp(x, categories), goldens, "category_mlp.out")
    for row, category in enumerate(categories.tolist()):
        alone = mlp(x[row : row + 1], category)
        torch.testing.assert_close(alone[0], goldens.tensor("category_mlp.out")[row], rtol=0, atol=1e-5)
    encoder = with_weights(ActionEncoder(6, 8, 12), goldens, "action_encoder")
    output = encoder(*(goldens.tensor(f"action_encoder.{name}") for name in ("x", "t", "cat_ids")))
    same(output, goldens, "action_encoder.out")


def test_sizes_that_a_config_leaves_out_are_the_3b_models() -> None:
    transformer = {"num_layers": 16, "num_attention_heads": 32, "attention_head_dim": 48, "output_dim": 1024}
    head = HeadConfig.read({"diffusion_model_cfg": transformer, "vl_self_attention_cfg": transformer, "x": 1})
    assert (head.action_horizon, head.input_embedding_dim, head.diffusion_model_cfg.width) == (16, 1536, 1536)
