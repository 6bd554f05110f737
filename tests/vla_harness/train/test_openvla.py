"""Fine-tuning OpenVLA on the tiny checkpoint and a few toy demonstrations."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.vla_harness.openvla.tiny_checkpoint import write_tiny_checkpoint
from vla_harness.checkpoints.precision import is_quantised
from vla_harness.data import DatasetWriter, Feature, open_dataset
from vla_harness.errors import UserError
from vla_harness.policies.openvla.actions import token_values
from vla_harness.policies.openvla.language import Cache
from vla_harness.policies.openvla.loading import open_openvla
from vla_harness.policies.openvla.model import OpenVLA
from vla_harness.policies.openvla.policy import OpenVLAPolicy
from vla_harness.policies.openvla.weights import load_model
from vla_harness.registry import load_policy
from vla_harness.train.augmentation import TensorflowJitter, crop_and_stretch
from vla_harness.train.openvla import OpenVLAOptions, add_low_rank_changes, finetune, main
from vla_harness.train.openvla_task import END, OpenVLATask, Trainee, action_statistics, recorded_actions

CAMERA = "observation.images.agentview"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_checkpoint(tmp_path_factory.mktemp("openvla")))


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six rows: left in dark scenes, right in bright ones; the gripper closes in the second half."""
    path = tmp_path_factory.mktemp("demos") / "toy_demos"
    features = {CAMERA: Feature("image", (64, 64, 3)), "action": Feature("float32", (7,))}
    with DatasetWriter(path, 20, features, "panda") as writer:
        for bright in (0, 1):
            with writer.episode(("Go left", "Go right and take the bowl")[bright]) as episode:
                for row in range(3):
                    image = np.full((64, 64, 3), 40 + 170 * bright, np.uint8)
                    action = np.array([2 * bright - 1, 0.1 * row, 0, 0, 0, 0.2, 1 if row == 2 else -1], np.float32)
                    episode.add({CAMERA: image, "action": action})
    return path


def options(demos: Path, checkpoint: str, out: Path) -> OpenVLAOptions:
    return OpenVLAOptions(
        dataset=demos, checkpoint=checkpoint, out=out, device="cpu", precision="fp32", lora_rank=8, batch_size=2,
        steps_per_epoch=6, epochs=2, learning_rate=5e-3, evaluate_examples=4,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(demos: Path, checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("trained") / "out"
    finetune(options(demos, checkpoint, out))
    return out


def weights(folder: Path | str) -> dict[str, torch.Tensor]:
    return {name: t for file in Path(folder).glob("*.safetensors") for name, t in load_file(file).items()}


def test_actions_and_statistics_are_as_in_the_training_data(demos: Path) -> None:
    dataset = open_dataset(demos)
    np.testing.assert_allclose(recorded_actions(dataset.episode(1))[:, 6], [1, 1, 0])  # 1 open, 0 closed
    entry = action_statistics(dataset)
    assert entry["num_transitions"] == 6 and entry["num_trajectories"] == 2
    assert entry["action"]["mask"] == [True] * 6 + [False] and entry["action"]["q99"][0] == pytest.approx(1.0)


def test_the_loss_falls_and_the_export_is_a_checkpoint_with_the_datasets_statistics(
    trained: Path, checkpoint: str, demos: Path
) -> None:
    curve = json.loads((trained / "curve.json").read_text())
    assert curve[1]["train_loss"] < 0.8 * curve[0]["train_loss"]
    assert set(curve[0]) >= {"loss", "accuracy", "l1"}
    policy = load_policy("openvla", checkpoint=str(trained / "export"), precision="fp32", device="cpu")
    assert policy.provenance["unnorm_key"] == "toy_demos"
    exported, start = weights(trained / "export"), weights(checkpoint)
    assert exported.keys() == start.keys()
    same = {name for name in start if torch.equal(exported[name], start[name].float())}
    assert "language_model.lm_head.weight" in same and "language_model.model.embed_tokens.weight" in same
    assert "language_model.model.layers.0.self_attn.q_proj.weight" not in same
    assert "projector.fc1.weight" not in same and "vision_backbone.featurizer.blocks.0.mlp.fc1.weight" not in same


def test_a_base_in_four_bits_learns_and_the_export_has_the_checkpoints_own_weights(
    demos: Path, checkpoint: str, tmp_path: Path
) -> None:
    settings = replace(options(demos, checkpoint, tmp_path / "out"), precision="bf16", four_bit=True, lora_rank=4)
    settings = replace(settings, steps_per_epoch=2, batch_size=1, evaluate_examples=1, augmentation=False)
    folder = finetune(settings)
    curve = json.loads((tmp_path / "out/curve.json").read_text())
    assert curve[1]["train_loss"] < curve[0]["train_loss"]
    exported, start = weights(folder), weights(checkpoint)
    assert exported.keys() == start.keys() and all(tensor.dtype == torch.bfloat16 for tensor in exported.values())
    kept = "language_model.model.layers.0.input_layernorm.weight", "language_model.lm_head.weight"
    assert all(torch.equal(exported[name], start[name]) for name in kept)
    name = "language_model.model.layers.0.self_attn.q_proj.weight"
    singular = torch.linalg.svdvals(exported[name].float() - start[name].float())
    assert singular[3] > 3 * singular[4]  # a change of rank 4, and the rounding to bf16
    assert singular[4:].norm() < 0.01 * start[name].float().norm()  # NF4's rounding is a tenth of the weights
    policy = load_policy("openvla", checkpoint=str(folder), precision="4bit", device="cpu")
    assert isinstance(policy, OpenVLAPolicy)
    assert np.isfinite(policy.predict_action(np.full((64, 64, 3), 40, np.uint8), "Go left")).all()


def test_quantised_layers_are_never_in_evaluation(checkpoint: str) -> None:
    """On CPUs with bfloat16 instructions bitsandbytes packs the weights of layers that it finds in evaluation."""
    stored = open_openvla(checkpoint, "4bit", "cpu", "libero_spatial", None, "sdpa")
    model = load_model(stored.checkpoint, stored.config, stored.precision, stored.device)
    assert add_low_rank_changes(model, 8) > 0
    layers = [module for module in Trainee(model).eval().modules() if is_quantised(module)]
    assert len(layers) > 20 and all(layer.training for layer in layers)


def test_labels_are_what_decoding_asks_for(demos: Path, checkpoint: str) -> None:
    task, model = opened(demos, checkpoint)
    batch = task.make_batch(range(4), augmented=False)
    assert (batch.labels[:, -1] == END).all()
    config = task.parts.config
    for i, index in enumerate(range(4)):
        episode, row = task._rows.place(index)
        wanted = task._bounds.normalise(recorded_actions(episode)[row])
        np.testing.assert_allclose(token_values(batch.labels[i, :7].numpy(), config), wanted, atol=1 / 254)
        prompt = task.parts.prompt.tokens(episode.instruction(row))
        text = batch.tokens[i, : batch.lengths[i]].tolist()
        assert text == [*prompt, *batch.labels[i].tolist()]
    # The first label is what the prefill of the policy predicts, also for rows of other lengths.
    assert len(set(batch.lengths.tolist())) == 2
    with torch.no_grad():
        ours = Trainee(model).eval()(batch.pixels, batch.tokens, batch.lengths)
        for i in range(4):
            prompt_length = int(batch.lengths[i]) - 8
            cache = Cache(config.language, 1, 400, torch.device("cpu"), torch.float32)
            lengths = torch.tensor([prompt_length])
            first, _ = model.prefill(batch.pixels[i : i + 1], batch.tokens[i : i + 1, :prompt_length], lengths, cache)
            torch.testing.assert_close(ours[i : i + 1, 0], first, rtol=0, atol=1e-4)


def opened(demos: Path, checkpoint: str) -> tuple[OpenVLATask, OpenVLA]:
    dataset = open_dataset(demos)
    stored = open_openvla(checkpoint, "fp32", "cpu", "libero_spatial", None, "sdpa")
    parts = replace(stored, statistics={"toy": action_statistics(dataset)}, unnorm_key="toy")
    model = load_model(parts.checkpoint, parts.config, parts.precision, parts.device)
    return OpenVLATask(options(demos, checkpoint, Path("unused")), parts, model, dataset), model


def test_the_crop_is_tensorflows_and_the_jitter_stays_in_range() -> None:
    ramp = torch.arange(9.0).expand(1, 3, 9, 9) / 8
    cropped = crop_and_stretch(ramp, 0.5, 0.0, 1.0)  # the right half, stretched: from the middle to the end
    torch.testing.assert_close(cropped[0, 0, 4], torch.linspace(0.5, 1.0, 9))
    images = torch.rand((2, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    for seed in range(10):
        changed = TensorflowJitter()(images, torch.Generator().manual_seed(seed))
        assert changed.shape == images.shape and float(changed.min()) >= 0 and float(changed.max()) <= 1
    torch.testing.assert_close(TensorflowJitter(1.0, 0, 0, 0, 0)(images, torch.Generator()), images, rtol=0, atol=1e-5)


def test_unfit_data_are_refused(checkpoint: str, demos: Path, capfd: pytest.CaptureFixture[str]) -> None:
    demo = Path(__file__).parents[2] / "data/lerobot/groot_demo_piece"
    with pytest.raises(UserError, match="OpenVLA writes end-effector actions of 7 numbers"):
        action_statistics(open_dataset(demo))
    words = ["--dataset", str(demos), "--checkpoint", checkpoint, "--device", "cpu", "--precision", "fp32"]
    assert main([*words, "--camera", "top"]) == 2
    assert "--camera is 'top', and" in capfd.readouterr().err
    assert main([*words, "--lora-rank", "0"]) == 2
    assert "--lora-rank is 0: give at least 1" in capfd.readouterr().err
    assert main([*words, "--four-bit"]) == 2
    assert "--four-bit computes in bf16: leave out --precision fp32" in capfd.readouterr().err
