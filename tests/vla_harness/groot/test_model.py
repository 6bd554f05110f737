"""The network against NVIDIA's: every layer's output, every denoising step, the training loss and its gradients."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.vla_harness.groot.goldens import CHECKPOINT, DATA, LONG_STEP, TOKENIZER, Goldens, observation, summary
from vla_harness.errors import CheckpointError
from vla_harness.policies.groot.action_head import Sampler
from vla_harness.policies.groot.assembly import GrootParts, open_groot
from vla_harness.policies.groot.model import Groot, original_name, save_checkpoint

Opened = Callable[[str], GrootParts]

LAYERS = {  # the reference's name of an output -> our module; those with a step axis run once per denoising step
    "vision_embeddings": "backbone.vision.embeddings",
    "vision_layer0": "backbone.vision.encoder.layers.0",
    "vision_layer1": "backbone.vision.encoder.layers.1",
    "vision_last_hidden_state": "backbone.vision.post_layernorm",
    "mlp1_out": "backbone.connector",
    "llm_layer0": "backbone.language.layers.0",
    "llm_layer1": "backbone.language.layers.1",
    "llm_norm": "backbone.language.norm",
    "backbone_features": "backbone",
    "vlln_out": "head.vlln",
    "vl_self_attn_block0": "head.vl_self_attention.transformer_blocks.0",
    "vl_self_attn_block1": "head.vl_self_attention.transformer_blocks.1",
    "vl_features": "head.vl_self_attention",
    "state_features": "head.state_encoder",
}
STEP_LAYERS = {
    "action_encoder_out": "head.action_encoder",
    "dit_block0": "head.model.transformer_blocks.0",
    "dit_block1": "head.model.transformer_blocks.1",
    "dit_block2": "head.model.transformer_blocks.2",
    "dit_block3": "head.model.transformer_blocks.3",
    "dit_out": "head.model",
    "pred_velocity": "head.action_decoder",
}
LONG = ("vision", "mlp1", "llm", "backbone", "vlln", "vl_")


def run_with_hooks(parts: GrootParts, pixels: Tensor, tokens: Tensor, state: Tensor, noise: Tensor) -> dict[str, Any]:
    """Return module name -> outputs in the order of the calls, "in" -> inputs of the DiT, "actions" -> the result."""
    seen: dict[str, Any] = {"in": []}
    hooks = []
    for name in [*LAYERS.values(), *STEP_LAYERS.values()]:
        module: nn.Module = parts.model.get_submodule(name)
        seen[name] = []

        def keep(_: nn.Module, __: Any, output: Tensor, name: str = name) -> None:
            seen[name].append(output)

        hooks.append(module.register_forward_hook(keep))
    hooks.append(parts.model.head.model.register_forward_pre_hook(lambda _, inputs: seen["in"].append(inputs[0])))
    with torch.no_grad():
        features = parts.model.backbone(pixels, tokens)
        seen["actions"] = Sampler(parts.model.head)(features, state, noise, parts.transforms.slot)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("case", ["a", "b"])
def test_every_layer_and_step_equals_the_reference(case: str, cases: Goldens, opened: Opened) -> None:
    parts = opened(case)
    inputs = parts.transforms.inputs(observation(cases, case))
    noise = cases.tensor(f"{case}.noise")
    seen = run_with_hooks(parts, inputs.pixels, torch.tensor([inputs.tokens]), inputs.state[None], noise)
    for golden, name in LAYERS.items():
        (output,) = seen[name]
        output = output[:, ::LONG_STEP] if golden.startswith(LONG) else output
        torch.testing.assert_close(output, cases.tensor(f"{case}.cap.{golden}"), rtol=0, atol=1e-5, msg=golden)
    for golden, name in STEP_LAYERS.items():
        output, wanted = torch.stack(seen[name]), cases.tensor(f"{case}.cap.{golden}")
        torch.testing.assert_close(output, wanted, rtol=0, atol=1e-5, msg=golden)
    torch.testing.assert_close(torch.stack(seen["in"]), cases.tensor(f"{case}.cap.dit_in"), rtol=0, atol=1e-5)
    steps = noise + torch.cumsum(torch.stack(seen["head.action_decoder"]), dim=0) / 4
    torch.testing.assert_close(steps, cases.tensor(f"{case}.cap.actions_per_step")[1:], rtol=0, atol=1e-5)
    torch.testing.assert_close(seen["actions"], cases.tensor(f"{case}.normalized_action"), rtol=0, atol=1e-5)


def test_fp32_is_as_near_to_fp64_as_the_reference_is(cases: Goldens, opened: Opened) -> None:
    parts = opened("a")
    inputs = parts.transforms.inputs(observation(cases, "a"))
    with torch.no_grad():
        features = parts.model.backbone(inputs.pixels, torch.tensor([inputs.tokens]))
        actions = Sampler(parts.model.head)(features, inputs.state[None], cases.tensor("a.noise"), 31)
    assert (actions.double() - cases.tensor("a.fp64")).abs().max() < 2e-6


def test_a_padded_batch_equals_the_reference(cases: Goldens, opened: Opened) -> None:
    """Padding is not masked behind the language model, so what the padded tokens see there decides the actions."""
    parts = opened("a")
    rows = [parts.transforms.inputs(observation(cases, case)) for case in ("a", "c")]
    mask = cases.tensor("padded.in.eagle_attention_mask")
    state = torch.stack([row.state for row in rows])
    with torch.no_grad():
        features = parts.model.backbone(
            torch.cat([row.pixels for row in rows]), cases.tensor("padded.in.eagle_input_ids"), mask
        )
        adapted = parts.model.head.adapt(features)
        embodiments = torch.tensor([31, 31])
        actions = Sampler(parts.model.head)(features, state, cases.tensor("padded.noise"), embodiments)
    for output, golden in ((features, "backbone_features"), (adapted, "vl_features")):
        wanted = cases.tensor(f"padded.cap.{golden}")
        torch.testing.assert_close(output[:, ::LONG_STEP], wanted, rtol=0, atol=1e-5)
    torch.testing.assert_close(actions, cases.tensor("padded.normalized_action"), rtol=0, atol=1e-5)


def test_training_loss_and_all_gradients_equal_the_reference(cases: Goldens) -> None:
    parts, golden, known = open_groot(CHECKPOINT, TOKENIZER, config="so100_dualcam"), Goldens("train"), summary()
    parts.model.set_trainable(visual=True, llm=False, projector=True, diffusion=True)
    examples = []
    for raw in golden["raw_action"]:
        examples.append(observation(cases, "a") | {"action.single_arm": raw[:, :5], "action.gripper": raw[:, 5:]})
    batch = parts.transforms.training_batch(examples, style="policy")
    torch.testing.assert_close(batch["state"][0], golden.tensor("in.state")[0].float(), rtol=0, atol=1e-6)
    batch["state"] = golden.tensor("in.state").float()  # the second row's is half the first's, after normalisation
    for ours, theirs in (("tokens", "in.eagle_input_ids"), ("action_mask", "in.action_mask")):
        assert torch.equal(batch[ours], golden.tensor(theirs))
    torch.testing.assert_close(batch["action"], golden.tensor("in.action"), rtol=0, atol=1e-6)
    loss = parts.model.loss(batch, golden.tensor("noise"), golden.tensor("t"))
    assert loss.item() == pytest.approx(2.311529, abs=1e-5)
    loss.backward()
    for name, parameter in parts.model.named_parameters():
        theirs = original_name(name)
        if theirs in known["no_gradient"]:
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name
            norm = known["gradient_norms"][theirs]
            assert parameter.grad.norm().item() == pytest.approx(norm, rel=1e-4, abs=1e-7), name
    slots: dict[str, Any] = {"grad31.": 31, "grad16.": slice(16), "grad.": slice(None)}
    for prefix, slot in slots.items():
        for theirs, wanted in golden.under(prefix).items():
            (gradient,) = [p.grad for name, p in parts.model.named_parameters() if original_name(name) == theirs]
            assert gradient is not None
            difference = gradient[slot] - torch.from_numpy(wanted)
            assert difference.norm() < 1e-4 * np.linalg.norm(wanted), theirs


def test_what_is_frozen_gets_no_gradient(opened: Opened) -> None:
    model = open_groot(CHECKPOINT, TOKENIZER, config="so100_dualcam").model
    count = model.set_trainable(visual=False, llm=False, projector=False, diffusion=False)
    learning = {name.split(".")[1] for name, p in model.named_parameters() if p.requires_grad}
    assert learning == {"vlln", "vl_self_attention", "future_tokens"}
    assert count == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert model.set_trainable(visual=True, llm=True, projector=True, diffusion=True) == sum(
        p.numel() for p in model.parameters()
    )


def test_sampled_times_have_the_reference_distribution(opened: Opened) -> None:
    times = opened("a").model.head.sample_time(20000, torch.Generator().manual_seed(0))
    beta = 0.999 - 0.999 * times  # Beta(1.5, 1) has mean 0.6 and the distribution function x^1.5
    assert beta.min() >= 0 and beta.max() <= 1
    assert beta.mean().item() == pytest.approx(0.6, abs=0.01)
    assert (beta < 0.5).float().mean().item() == pytest.approx(0.5**1.5, abs=0.01)


def same_weights(one: Groot, other: Groot) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def stored_tensors() -> dict[str, Tensor]:
    return {k: v for file in sorted((DATA / "checkpoint").glob("*.safetensors")) for k, v in load_file(file).items()}


def write_checkpoint(folder: Path, tensors: dict[str, Tensor], config: bool = True) -> str:
    (folder / "experiment_cfg").mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors")
    if config:
        (folder / "config.json").write_bytes((DATA / "checkpoint/config.json").read_bytes())
        metadata = (DATA / "checkpoint/experiment_cfg/metadata.json").read_bytes()
        (folder / "experiment_cfg/metadata.json").write_bytes(metadata)
    return str(folder)


def test_mixed_precision_and_a_separate_lm_head_load(tmp_path: Path, opened: Opened) -> None:
    mixed = {name: t.float() if i % 2 else t for i, (name, t) in enumerate(stored_tensors().items())}
    embedding = "backbone.eagle_model.language_model.model.embed_tokens.weight"
    head = "backbone.eagle_model.language_model.lm_head.weight"
    both = write_checkpoint(tmp_path / "both", mixed | {head: mixed[embedding].clone()})
    only_head = {name: t for name, t in mixed.items() if name != embedding} | {head: mixed[embedding]}
    only = write_checkpoint(tmp_path / "only", only_head)
    for folder in (both, only):
        loaded = open_groot(folder, TOKENIZER, config="so100_dualcam", precision="fp32", device="cpu").model
        assert same_weights(loaded, opened("a").model)


def test_lerobots_layout_loads(tmp_path: Path, opened: Opened) -> None:
    prefixed = {f"_groot_model.{name}": t for name, t in stored_tensors().items()}
    folder = Path(write_checkpoint(tmp_path / "lerobot", prefixed, config=False))
    (folder / "config.json").write_text(json.dumps({"type": "groot", "base_model_path": CHECKPOINT}))
    by_its_own_word = open_groot(str(folder), TOKENIZER, config="so100_dualcam", precision="fp32")
    assert same_weights(by_its_own_word.model, opened("a").model)
    (folder / "config.json").unlink()
    by_option = open_groot(str(folder), TOKENIZER, config="so100_dualcam", precision="fp32", base=CHECKPOINT)
    assert same_weights(by_option.model, opened("a").model)


def test_an_export_holds_all_and_opens_again_alone(tmp_path: Path) -> None:
    parts = open_groot(CHECKPOINT, TOKENIZER, config="so100_dualcam", precision="fp32", device="cpu")
    parts.model.set_trainable(visual=True, llm=True, projector=True, diffusion=True)
    with torch.no_grad():
        for parameter in parts.model.parameters():
            parameter.add_(0.001)
    new = tmp_path / "new"
    save_checkpoint(new, parts.model, parts.metadata, parts.checkpoint, parts.tokenizer, shard_bytes=2_000_000)
    index = json.loads((new / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(stored_tensors())
    assert len(set(index["weight_map"].values())) >= 2
    again = open_groot(str(new), config="so100_dualcam", precision="fp32", device="cpu")
    assert same_weights(again.model, parts.model)
    assert again.metadata == parts.metadata
    assert again.model.config == parts.model.config
    pooling = "backbone.eagle_model.vision_model.vision_model.head.probe"
    exported = load_file(new / index["weight_map"][pooling])[pooling]
    assert torch.equal(exported, stored_tensors()[pooling])


def test_missing_and_foreign_tensors_are_named(tmp_path: Path) -> None:
    tensors = stored_tensors()
    lacking = {name: t for name, t in tensors.items() if name != "action_head.vlln.weight"}
    with pytest.raises(CheckpointError, match=r"lacks head\.vlln\.weight"):
        open_groot(write_checkpoint(tmp_path / "lacking", lacking), TOKENIZER, config="so100_dualcam")
    foreign = tensors | {"action_head.teeth.weight": torch.zeros(2)}
    with pytest.raises(CheckpointError, match=r"action_head\.teeth\.weight"):
        open_groot(write_checkpoint(tmp_path / "foreign", foreign), TOKENIZER, config="so100_dualcam")


def test_a_checkpoint_of_another_kind_is_refused(tmp_path: Path) -> None:
    folder = Path(write_checkpoint(tmp_path / "other", {"x": torch.zeros(1)}))
    (folder / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CheckpointError, match="states no action_head_cfg"):
        open_groot(str(folder), TOKENIZER, config="so100_dualcam", base=str(folder))
