"""The network against the reference's: features, logits and tokens in fp32 and bf16."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from vla_harness import UserError
from vla_harness.checkpoints import PRECISIONS, find_checkpoint
from vla_harness.policies.openvla.attention import Attend, use_attention
from vla_harness.policies.openvla.configuration import read_config
from vla_harness.policies.openvla.decoding import Decoder
from vla_harness.policies.openvla.model import OpenVLA
from vla_harness.policies.openvla.weights import load_model, parameter_name

Arrays = Mapping[str, np.ndarray]
CPU = torch.device("cpu")
KEPT = np.r_[0:1697, 31744:32064]  # words whose logits are stored: those in use
# fp32: the reference's own arithmetic in another order. bf16: what its two attention implementations differ by.
TOLERANCE = {"fp32": (1e-5, 2e-5, 2e-5), "bf16": (0.1, 0.15, 0.2)}


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def loaded(request: pytest.FixtureRequest, tiny: str) -> tuple[str, OpenVLA]:
    checkpoint = find_checkpoint(tiny)
    config = read_config(checkpoint.json("config.json"), tiny)
    return request.param, load_model(checkpoint, config, PRECISIONS[request.param], CPU)


@torch.inference_mode()
def test_features_are_the_reference_s(loaded: tuple[str, OpenVLA], pixels: torch.Tensor, goldens: Arrays) -> None:
    name, model = loaded
    rows = slice(None) if name == "fp32" else slice(None, None, 8)
    image = pixels[:1].to(model.dtype)
    backbone = model.vision_backbone
    features, projected, _ = TOLERANCE[name]
    for part, output, bound in (
        ("dino_features", backbone.featurizer(image[:, :3]), features),
        ("siglip_features", backbone.fused_featurizer(image[:, 3:]), features),
        ("projected", model.patches(image), projected),
    ):
        np.testing.assert_allclose(output[0, rows].float(), goldens[f"{part}_{name}"], rtol=0, atol=bound, err_msg=part)


@torch.inference_mode()
def test_logits_after_the_prompt_are_the_reference_s(
    loaded: tuple[str, OpenVLA], pixels: torch.Tensor, prompts: list[list[int]], goldens: Arrays
) -> None:
    name, model = loaded
    decoder = Decoder(model, steps=1)
    for row, prompt in enumerate(prompts):
        tokens = torch.tensor([prompt])
        logits, places = model.prefill(
            pixels[row : row + 1], tokens, torch.tensor([len(prompt)]), decoder.cache(tokens)
        )
        assert places.tolist() == [256 + len(prompt)]
        np.testing.assert_allclose(
            logits[0, KEPT], goldens[f"prefill_logits_{name}"][row], rtol=0, atol=TOLERANCE[name][2]
        )


def test_a_batch_gives_the_reference_s_tokens_and_those_of_its_rows(
    loaded: tuple[str, OpenVLA], pixels: torch.Tensor, prompts: list[list[int]], goldens: Arrays
) -> None:
    name, model = loaded
    decoder = Decoder(model, steps=7)
    together = decoder(pixels, prompts)
    # in bf16 only where the reference's choice was no close call: after one that was, the rest may differ
    clear = np.minimum.accumulate(goldens[f"step_margin_{name}"] > (0.0 if name == "fp32" else 0.25), axis=1)
    assert clear.sum() >= 19
    np.testing.assert_array_equal(together[clear], goldens[f"tokens_{name}"][clear])
    if name == "fp32":
        alone = [decoder(pixels[row : row + 1], [prompt])[0] for row, prompt in enumerate(prompts)]
        np.testing.assert_array_equal(together, alone)
        crossed = decoder(pixels, prompts[1:] + prompts[:1])
        np.testing.assert_array_equal(crossed, goldens["cross_tokens_fp32"])


def test_a_row_that_ends_early_takes_the_end_of_its_prompt(
    loaded: tuple[str, OpenVLA], pixels: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, model = loaded
    decoder = Decoder(model, steps=7)
    answer = torch.tensor([[31800, 31801, 2, 31802, 31803, 31804, 31805]])
    monkeypatch.setattr(decoder, "_generate", lambda *inputs: answer)
    assert decoder(pixels[:1], [[1, 11, 12, 13, 14, 15]]).tolist() == [[12, 13, 14, 15, 31800, 31801, 2]]


def test_only_action_tokens_are_chosen_when_that_is_asked_for(
    loaded: tuple[str, OpenVLA], pixels: torch.Tensor, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, model = loaded
    favourite = torch.zeros(model.config.language.vocabulary)
    favourite[5] = 1000.0
    logits = model.logits
    monkeypatch.setattr(model, "logits", lambda hidden: logits(hidden) + favourite)
    free, bound = (Decoder(model, 7, only_actions)(pixels[:1], prompts[:1]) for only_actions in (False, True))
    assert (free == 5).all()
    assert (bound >= 31744).all() and (bound < 32000).all()


def test_every_tensor_of_the_published_layout_has_a_place(tiny: str) -> None:
    checkpoint = find_checkpoint(tiny)
    config = read_config(checkpoint.json("config.json"), tiny)
    names = {tensor: parameter_name(config, tensor) for tensor in checkpoint.tensors().shapes}
    unused = {tensor.removeprefix("vision_backbone.") for tensor, name in names.items() if name is None}
    parts = "featurizer.blocks.3.", "featurizer.norm.", "fused_featurizer.blocks.2.", "fused_featurizer.norm."
    assert all(tensor.startswith((*parts, "fused_featurizer.attn_pool.")) for tensor in unused)
    assert len(unused) == 14 + 2 + 12 + 2 + 13
    assert names["vision_backbone.featurizer.blocks.0.ls1.scale_factor"] == "vision_backbone.featurizer.blocks.0.ls1"
    assert names["language_model.model.norm.weight"] == "language_model.norm.weight"
    assert names["language_model.lm_head.weight"] == "language_model.lm_head.weight"


@torch.inference_mode()
def test_flash_attention_takes_the_same_places(
    loaded: tuple[str, OpenVLA], pixels: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, model = loaded
    before = model.patches(pixels[:1])
    calls = []

    def flash(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool) -> torch.Tensor:
        """Stand for flash-attn's function, whose tensors are (B, T, H, d), without its kernel."""
        calls.append(causal)
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2)

    assert use_attention(model, "auto", CPU, torch.float32) == "sdpa"
    for module in model.modules():
        if isinstance(module, Attend):
            monkeypatch.setattr(module, "flash", flash)
    assert torch.equal(model.patches(pixels[:1]), before)
    assert calls == [False] * 5  # the blocks of both transformers
    words = model.language_model.embed_tokens(torch.tensor([[1, 5, 9]]))
    model.language_model(words)
    assert calls[5:] == [True] * 3
    model.language_model(words, mask=torch.ones(1, 1, 3, 3, dtype=torch.bool))  # a mask is torch's
    assert len(calls) == 8


def test_an_attention_that_cannot_serve_is_refused(loaded: tuple[str, OpenVLA]) -> None:
    _, model = loaded
    with pytest.raises(UserError, match="no attention 'fast': choose one of auto, sdpa, flash"):
        use_attention(model, "fast", CPU, torch.float32)
    with pytest.raises(UserError, match="attn='flash'"):
        use_attention(model, "flash", CPU, torch.float32)
