"""Fine-tuning GR00T on the tiny checkpoint and a piece of NVIDIA's demo data."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.vla_harness.groot.goldens import CHECKPOINT, TOKENIZER, Goldens
from tformer.lora import lora_layers
from tformer.training import list_checkpoints, read_checkpoint
from tformer.training.schedule import learning_rate, make_optimizer
from vla_harness.data import open_dataset
from vla_harness.offline import evaluate_trajectory, predictor_of
from vla_harness.policies.groot.assembly import open_groot
from vla_harness.registry import load_policy
from vla_harness.train import memory
from vla_harness.train.groot import GrootOptions, finetune, main, open_parts
from vla_harness.train.groot_task import GrootBatch, GrootTask, Trainee, choose_what_learns

DEMO = Path(__file__).parents[2] / "data" / "lerobot" / "groot_demo_piece"


def options(out: Path, **changes: object) -> GrootOptions:
    small = GrootOptions(
        dataset=DEMO,
        checkpoint=CHECKPOINT,
        tokenizer=TOKENIZER,
        embodiment="gr1",
        data_config="fourier_gr1_arms_waist",
        out=out,
        device="cpu",
        precision="fp32",
        batch_size=4,
        steps_per_epoch=25,
        epochs=2,
        learning_rate=3e-3,
        evaluate_steps=16,
        data_threads=1,
    )
    return replace(small, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short fine-tuning; not to be changed."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("groot") / "out"
    finetune(options(out))
    return out


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: t for file in sorted(folder.glob("*.safetensors")) for name, t in load_file(file).items()}


def test_the_loss_at_step_0_is_the_references() -> None:
    parts, golden = open_groot(CHECKPOINT, TOKENIZER, config="so100_dualcam"), Goldens("train")
    settings = options(Path("unused"), tune_visual=True)
    parts.model.set_trainable(visual=True, llm=False, projector=True, diffusion=True)
    cases = Goldens("cases")
    # The golden's batch through the Loss that the trainer divides: sum over items, and their number.
    examples = [
        {name.removeprefix("a.obs."): array for name, array in cases.under("").items() if name.startswith("a.obs.")}
        | {"annotation.human.task_description": "pick up the red cube and place it in the bin"}
        | {"action.single_arm": raw[:, :5], "action.gripper": raw[:, 5:]}
        for raw in golden["raw_action"]
    ]
    tensors = parts.transforms.training_batch(examples, style="policy")
    tensors["state"] = golden.tensor("in.state").float()
    batch = GrootBatch(tensors, golden.tensor("noise"), golden.tensor("t"))
    model = Trainee(parts.model, settings).eval()
    total, items = GrootTask.loss(None, model, batch)  # type: ignore[arg-type]
    assert int(items) == 2 * 16 * 6
    assert (total / items).item() == pytest.approx(2.311529, abs=1e-5)


def test_the_loss_falls_and_the_export_predicts_better_than_the_start(trained: Path) -> None:
    curve = json.loads((trained / "curve.json").read_text())
    assert [point["step"] for point in curve] == [25, 50]
    assert curve[1]["train_loss"] < curve[0]["train_loss"]
    dataset = open_dataset(DEMO)
    errors = []
    for folder in (CHECKPOINT, trained / "export"):
        policy = load_policy(
            "groot", checkpoint=str(folder), tokenizer=TOKENIZER, embodiment="gr1", precision="fp32", device="cpu",
            data_config="fourier_gr1_arms_waist", metadata=str(trained / "export/experiment_cfg/metadata.json"),
        )  # fmt: skip
        predictor = predictor_of(policy, dataset)
        errors.append(np.mean([evaluate_trajectory(predictor, dataset.episode(i), 40, horizon=4).mse for i in (0, 1)]))
    assert errors[1] < 0.9 * errors[0]


def test_the_export_is_a_checkpoint_of_the_original_layout(trained: Path) -> None:
    start, export = weights(Path(CHECKPOINT)), weights(trained / "export")
    config = json.loads((trained / "export/config.json").read_text())
    assert config["model_type"] == "gr00t_n1_5"
    index = json.loads((trained / "export/model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(export)
    learned = {name for name, tensor in export.items() if not torch.equal(tensor, start[name].float())}
    assert learned and all(name.startswith("action_head.") for name in learned)  # vision and words are frozen
    metadata = json.loads((trained / "export/experiment_cfg/metadata.json").read_text())
    assert set(metadata) == {"gr1", "new_embodiment"}  # the other embodiment keeps its statistics
    waist = metadata["gr1"]["statistics"]["action"]["waist"]
    np.testing.assert_allclose(waist["max"], open_dataset(DEMO).statistics["action"]["max"][41:44])
    slots = export["action_head.action_decoder.layer1.W"], start["action_head.action_decoder.layer1.W"]
    changed = [i for i in range(32) if not torch.equal(slots[0][i], slots[1][i].float())]
    assert 24 in changed  # gr1's slot
    # AdamW's decay moves the other slots too, as in the reference, by less than lr * decay * steps.
    assert float((slots[0][31] - slots[1][31].float()).abs().max()) < 1e-6


def test_checkpoints_hold_only_what_learns_and_a_resume_continues_bit_for_bit(trained: Path, tmp_path: Path) -> None:
    first, last = list_checkpoints(trained)
    stored = read_checkpoint(first)["model"]
    assert stored and all(name.startswith("network.head.") for name in stored)
    out = tmp_path / "out"
    shutil.copytree(trained, out)
    for file in (*(out / "export").glob("*.safetensors"), out / "checkpoints" / last.name):
        file.unlink()
    finetune(options(out, resume="latest"))  # from step 25
    again = weights(out / "export")
    assert all(torch.equal(tensor, again[name]) for name, tensor in weights(trained / "export").items())


def test_a_resume_with_other_settings_is_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["groot", "--dataset", str(DEMO), "--checkpoint", CHECKPOINT, "--tokenizer", TOKENIZER, "--device", "cpu"]
    words += ["--embodiment", "gr1", "--data-config", "fourier_gr1_arms_waist", "--out", str(trained)]
    assert main(words[1:]) == 2
    assert "already holds a training; add --resume latest" in capsys.readouterr().err
    assert main([*words[1:], "--resume", "latest"]) == 2
    assert "is a checkpoint of another configuration (batch_size 4 there and 32 here" in capsys.readouterr().err


def test_low_rank_changes_learn_beside_the_encoders_and_are_merged(tmp_path: Path) -> None:
    settings = options(tmp_path / "out", lora_rank=2, lora_alpha=4.0, precision="bf16", epochs=1, steps_per_epoch=2)
    folder = finetune(replace(settings, evaluate_episodes=0))
    start, exported = weights(Path(CHECKPOINT)), weights(folder)
    learned = {name for name, tensor in exported.items() if not torch.equal(tensor, start[name].float())}
    attention = {name for name in learned if re.search(r"\.to_[qkv]\.weight$", name)}
    assert attention and not any(re.search(r"\.to_out|\.ff\.|backbone", name) for name in learned)
    assert "action_head.state_encoder.layer1.W" in learned and "action_head.future_tokens.weight" in learned
    rank = torch.linalg.matrix_rank(
        exported["action_head.model.transformer_blocks.0.attn1.to_q.weight"]
        - start["action_head.model.transformer_blocks.0.attn1.to_q.weight"].float(),
        atol=1e-6,
    )
    assert int(rank) == 2


@pytest.mark.parametrize(
    ("changes", "learn", "still"),
    [
        ({}, "head.model.", "backbone.language."),
        ({"tune_visual": True}, "backbone.vision.", "backbone.language."),
        ({"tune_llm": True}, "backbone.language.", "backbone.vision."),
        ({"tune_diffusion_model": False}, "head.vl_self_attention.", "head.model."),
        ({"tune_projector": False}, "head.model.", "head.action_decoder."),
        ({"lora_rank": 2, "tune_projector": False}, "head.model.", "head.action_decoder."),
        ({"lora_rank": 2, "tune_diffusion_model": False}, "head.vl_self_attention.", "head.model."),
    ],
)
def test_flags_choose_what_learns(changes: dict[str, object], learn: str, still: str) -> None:
    settings = options(Path("unused"), **changes)
    model = open_parts(settings, open_dataset(DEMO)).model
    count = choose_what_learns(model, settings)
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert any(name.startswith(learn) for name in learning)
    assert not any(name.startswith(still) for name in learning)
    assert count == sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert bool(list(lora_layers(model))) == bool(settings.lora_rank)
    trainee = Trainee(model, settings).train()
    frozen = next(module for name, module in trainee.network.named_modules() if f"{name}." == still)
    assert not frozen.training and trainee.network.head.vl_self_attention.training


def test_optimizer_and_schedule_are_the_references(tmp_path: Path) -> None:
    settings = GrootOptions(dataset=DEMO)
    assert (settings.learning_rate, settings.weight_decay, settings.grad_clip) == (1e-4, 1e-5, 1.0)
    groups = make_optimizer(torch.nn.Linear(2, 2), settings).param_groups
    assert [group["weight_decay"] for group in groups] == [1e-5, 0.0]
    assert all(group["betas"] == (0.95, 0.999) and group["eps"] == 1e-8 for group in groups)
    total = settings.epochs * settings.steps_per_epoch
    warm = replace(settings, warmup_steps=round(settings.warmup_ratio * total))
    assert (total, warm.warmup_steps) == (10_000, 500)
    for step in (500, 2000, 5250, 9999):  # transformers' cosine schedule
        expected = 1e-4 * 0.5 * (1 + np.cos(np.pi * (step - 500) / 9500))
        assert learning_rate(step, total, warm) == pytest.approx(expected, rel=1e-6, abs=1e-12)
    assert learning_rate(249, total, warm) == pytest.approx(0.5e-4, rel=0.01)


@pytest.fixture(scope="module")
def task() -> GrootTask:
    settings = options(Path("unused"))
    dataset = open_dataset(DEMO)
    return GrootTask(settings, open_parts(settings, dataset), dataset)


def test_an_example_is_a_function_of_its_position(task: GrootTask) -> None:
    whole, part = task.make_batch(range(8, 12)), task.make_batch([10])
    for name, tensor in part.tensors.items():
        if name not in ("tokens", "attention_mask"):  # padded to the longest of their batch
            assert torch.equal(tensor[0], whole.tensors[name][2]), name
    assert torch.equal(part.noise[0], whole.noise[2]) and torch.equal(part.time[0], whole.time[2])
    assert not torch.equal(whole.noise[0], whole.noise[1])
    ahead = task.collate(range(4)), task.collate(range(4, 8)), task.collate([1])  # the last was not foreseen
    for batch, indices in zip(ahead, (range(4), range(4, 8), [1]), strict=True):
        assert torch.equal(batch.tensors["action"], task.make_batch(indices).tensors["action"])


def test_a_pass_shows_every_row_once(task: GrootTask) -> None:
    places = [task._rows.place(position) for position in range(160)]
    first = {(episode.index, row) for episode, row in places[:80]}
    assert first == {(episode, row) for episode in range(2) for row in range(40)}
    assert [p[1] for p in places[:80]] != [p[1] for p in places[80:]]  # the next pass has another order
    assert task.batches(1)[0] == range(100, 104)


def test_the_memory_estimate_counts_every_weight(task: GrootTask) -> None:
    model = task.parts.model
    model.set_trainable(visual=False, llm=False, projector=True, diffusion=True)
    found = memory.estimate(model, {"dit": (2, 49, 48)}, full_precision=False)
    total = sum(p.numel() for p in model.parameters())
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert found["weights"] * 2**30 == pytest.approx(4 * total)
    assert (found["gradients"] + found["optimizer"]) * 2**30 == pytest.approx(12 * learning)
    assert found["activations"] * 2**30 == pytest.approx(34 * 2 * 49 * 48)
    assert "expect to run out: lower --batch-size" in memory.describe({"weights": 3.0}, 2.0)
    assert memory.available(torch.device("cpu")) is None or memory.available(torch.device("cpu")) > 0  # type: ignore[operator]


def test_the_export_opens_with_its_own_tokenizer(trained: Path) -> None:
    opened = open_groot(str(trained / "export"), None, "gr1", "fourier_gr1_arms_waist", "fp32", "cpu")
    assert opened.transforms.config.language == "annotation.human.coarse_action"


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ((), "--dataset"),
        (("--dataset", "/nowhere"), "/nowhere is no dataset"),
        (("--dataset", str(DEMO), "--batch-size", "0"), "--batch-size is 0: give at least 1"),
        (("--dataset", str(DEMO), "--lora-rank", "-1"), "--lora-rank is -1"),
        (("--dataset", str(DEMO), "--warmup-ratio", "2"), "--warmup-ratio is 2"),
        (("--dataset", str(DEMO), "--checkpoint", CHECKPOINT, "--tokenizer", TOKENIZER), "single_arm"),
    ],
)
def test_bad_usage_is_one_sentence_and_exit_code_2(
    words: tuple[str, ...], advice: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(list(words)) == 2
    told = capfd.readouterr()
    assert told.err.startswith("error: ") and told.err.count("\n") == 1 and advice in told.err
