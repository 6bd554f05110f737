"""OpenVLA-OFT against the reference: L1 head, discrete tokens, FiLM; diffusion against diffusers; the policy."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from safetensors.torch import load_file, save_file

from tests.vla_harness.openvla.tiny_checkpoint import DATA, tiny_tensors, write_tiny_oft
from vla_harness import Observation, UserError, load_policy
from vla_harness.checkpoints import PRECISIONS, find_checkpoint
from vla_harness.errors import CheckpointError
from vla_harness.policies.openvla.configuration import read_config
from vla_harness.policies.openvla.decoding import padded_prompts
from vla_harness.policies.openvla.oft import OFT, ActionHead, Embedder
from vla_harness.policies.openvla.oft_policy import OFTPolicy
from vla_harness.policies.openvla.oft_weights import load_oft

Arrays = Mapping[str, np.ndarray]
CPU = torch.device("cpu")
FILES = DATA / "oft"
RANK = 32


@pytest.fixture(scope="module")
def numbers() -> Arrays:
    return dict(np.load(FILES / "goldens.npz"))


@pytest.fixture(scope="session")
def l1_checkpoint(tiny: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the tiny checkpoint with an L1 head and a state projector, in the published layout."""
    return write_tiny_oft(tiny, tmp_path_factory.mktemp("oft") / "l1")


@pytest.fixture(scope="session")
def film_checkpoint(l1_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the same with a FiLM backbone whose LoRA is not merged, as the reference stores it."""
    folder = tmp_path_factory.mktemp("oft") / "film"
    shutil.copytree(l1_checkpoint, folder)
    generator = torch.Generator().manual_seed(0)
    stored: dict[str, torch.Tensor] = {}
    for name, tensor in tiny_tensors().items():
        if not name.startswith("vision_backbone."):
            continue
        wrapped = re.sub(r"(\.blocks\.\d+\.)", r"\1block.", name)
        linear = re.search(r"\.(qkv|proj|fc1|fc2|q|kv)\.(weight|bias)$", name) and "patch_embed" not in name
        layer, _, leaf = wrapped.rpartition(".")
        if linear and leaf == "weight":
            down = torch.randn(RANK, tensor.shape[1], generator=generator) * 0.05
            up = torch.randn(tensor.shape[0], RANK, generator=generator) * 0.05
            stored[f"{layer}.base_layer.weight"] = tensor.float() - 0.5 * up @ down  # alpha 16 of rank 32
            stored |= {f"{layer}.lora_A.default.weight": down, f"{layer}.lora_B.default.weight": up}
        else:
            stored[f"{layer}.base_layer.bias" if linear else wrapped] = tensor.float()
    stored |= load_file(FILES / "film_layers.safetensors")
    torch.save(
        {f"module.{name}": tensor for name, tensor in stored.items()}, folder / "vision_backbone--7_checkpoint.pt"
    )
    return folder


def loaded(folder: Path, precision: str) -> OFT:
    checkpoint = find_checkpoint(str(folder))
    return load_oft(checkpoint, read_config(checkpoint.json("config.json"), "tiny"), PRECISIONS[precision], CPU)


def two_images(pixels: torch.Tensor) -> torch.Tensor:
    return torch.cat([pixels, pixels.roll(-1, dims=0)], dim=1)


@pytest.mark.parametrize("kind", ["l1", "l1_film"])
@pytest.mark.parametrize(("precision", "bound"), [("fp32", 2e-5), ("bf16", 0.15)])
@torch.inference_mode()
def test_the_l1_head_writes_the_reference_s_actions(
    request: pytest.FixtureRequest,
    kind: str,
    precision: str,
    bound: float,
    pixels: torch.Tensor,
    prompts: list[list[int]],
    numbers: Arrays,
) -> None:
    oft = loaded(request.getfixturevalue(f"{'film' if 'film' in kind else 'l1'}_checkpoint"), precision)
    state = torch.from_numpy(numbers["proprio"])
    inputs = oft.inputs(two_images(pixels), *padded_prompts(prompts, CPU, False), state)
    actions = oft.regress(inputs)
    np.testing.assert_allclose(actions, numbers[f"{kind}_normalized_{precision}"], rtol=0, atol=bound)
    if precision == "fp32":
        hidden = oft.hidden(inputs)
        np.testing.assert_allclose(hidden[:, ::8], numbers[f"{kind}_hidden_fp32"], rtol=0, atol=bound)
        alone = oft.inputs(two_images(pixels)[:1], *padded_prompts(prompts[:1], CPU, False), state[:1])
        np.testing.assert_allclose(actions[:1], oft.regress(alone), rtol=0, atol=bound)


@torch.inference_mode()
def test_tokens_in_parallel_are_the_reference_s(
    l1_checkpoint: Path, pixels: torch.Tensor, prompts: list[list[int]], numbers: Arrays
) -> None:
    oft = loaded(l1_checkpoint, "fp32")
    tokens = oft.tokens(oft.inputs(pixels, *padded_prompts(prompts, CPU, False), None))
    np.testing.assert_array_equal(tokens.reshape(4, 56), numbers["discrete_ids_fp32"])


@torch.inference_mode()
def test_diffusion_takes_the_steps_of_diffusers(
    l1_checkpoint: Path, pixels: torch.Tensor, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = loaded(l1_checkpoint, "fp32")
    torch.manual_seed(0)
    oft = OFT(base.model, ActionHead(128).eval(), base.state, Embedder(1, 128))
    assert oft.head is not None and oft.noisy_action is not None
    inputs = oft.inputs(pixels[:1], *padded_prompts(prompts[:1], CPU, False), torch.zeros(1, 8))
    noise = torch.randn(1, 8, 7)
    seen: list[tuple[int, torch.Tensor]] = []

    def cheap(passed: Any, actions: torch.Tensor) -> torch.Tensor:
        """Stand for the network, which is tested above: hidden states that follow from what it would read."""
        time, embedded = passed.prefix[:, -1], actions
        seen.append((passed.prefix.shape[1], time))
        return torch.tanh(embedded + time[:, None])

    monkeypatch.setattr(oft, "hidden", cheap)
    actions = oft.denoise(inputs, noise)
    scheduler: Any = DDIMScheduler(num_train_timesteps=50, beta_schedule="squaredcos_cap_v2")
    scheduler.set_timesteps(50)
    x = noise
    for t in scheduler.timesteps.tolist():
        half = torch.exp(torch.arange(64) * -np.log(10000) / 63) * t
        time = torch.cat([half.sin(), half.cos()])[None]
        epsilon = oft.head(torch.tanh(oft.noisy_action(x.reshape(1, 56, 1)) + time[:, None]))
        x = scheduler.step(epsilon, t, x).prev_sample
    np.testing.assert_allclose(actions, x, rtol=0, atol=2e-5)
    assert len(seen) == 50 and all(length == 256 + 1 + 1 for length, _ in seen)  # patches, state, time


def test_the_policy_gives_the_reference_s_chunk(
    l1_checkpoint: Path, goldens: Arrays, numbers: Arrays, facts: Mapping[str, Any]
) -> None:
    policy = load_policy("openvla", checkpoint=str(l1_checkpoint), device="cpu", unnorm_key="libero_spatial")
    assert isinstance(policy, OFTPolicy)
    images = goldens["images"]
    chunk = policy.predict_actions([images[0], images[1]], facts["instructions"][0], numbers["proprio"][0])
    np.testing.assert_allclose(chunk, numbers["l1_actions_fp32"][0], rtol=0, atol=2e-5)
    spec = policy.spec
    assert (spec.cameras, spec.horizon) == (("agentview", "wrist"), 8)
    seen = [
        Observation({"agentview": a, "wrist": b}, np.full(8, 0.1, np.float32), words, str(row), 0)
        for row, (a, b, words) in enumerate(zip(images, images[::-1], facts["instructions"], strict=True))
    ]
    actions = policy.act(seen)
    assert actions.shape == (4, 8, 7) and set(np.unique(actions[..., 6])) <= {-1.0, 1.0}
    np.testing.assert_allclose(actions, np.concatenate([policy.act([one]) for one in seen]), rtol=0, atol=2e-5)
    assert policy.provenance["action_head"] == "l1"


def test_heads_are_read_from_safetensors_too(l1_checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(l1_checkpoint, tmp_path / "c")
    (pickle,) = (tmp_path / "c").glob("action_head*.pt")
    tensors = {name.removeprefix("module."): t for name, t in torch.load(pickle, weights_only=True).items()}
    save_file(tensors, tmp_path / "c" / "action_head.safetensors")
    with pytest.raises(CheckpointError, match="several files of its action_head"):
        loaded(tmp_path / "c", "fp32")
    pickle.unlink()
    stored, read = loaded(l1_checkpoint, "fp32").head, loaded(tmp_path / "c", "fp32").head
    assert stored is not None and read is not None
    assert all(torch.equal(a, b) for a, b in zip(stored.parameters(), read.parameters(), strict=True))


def test_statistics_without_the_state_are_refused(l1_checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(l1_checkpoint, tmp_path / "c")
    statistics = json.loads((tmp_path / "c" / "dataset_statistics.json").read_text())
    del statistics["libero_spatial"]["proprio"]
    (tmp_path / "c" / "dataset_statistics.json").write_text(json.dumps(statistics))
    with pytest.raises(UserError, match=r"'libero_spatial' of .* say nothing of proprio"):
        load_policy("openvla", checkpoint=str(tmp_path / "c"), device="cpu", unnorm_key="libero_spatial")


def test_a_folder_that_lost_its_heads_is_not_taken_for_plain_openvla(l1_checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    shutil.copytree(l1_checkpoint, folder, ignore=shutil.ignore_patterns("*_checkpoint.pt"))

    def load(**options: Any) -> Any:
        return load_policy(
            "openvla", checkpoint=str(folder), precision="fp32", device="cpu", unnorm_key="libero_spatial", **options
        )

    with pytest.raises(CheckpointError, match=r"statistics of the robot's state, .* and none of OFT's files .*: fetch"):
        load()
    by_tokens = load(variant="oft")
    assert by_tokens.provenance["action_head"] == "tokens" and by_tokens.spec.horizon == 8
    assert load(variant="openvla").spec.horizon == 1
    statistics = json.loads((folder / "dataset_statistics.json").read_text())
    for entry in statistics.values():  # as plain OpenVLA's training writes them
        entry["proprio"] = {"q01": [0.0] * 7, "q99": [0.0] * 7, "mask": [True] * 7}
    (folder / "dataset_statistics.json").write_text(json.dumps(statistics))
    assert load().spec.horizon == 1


@pytest.mark.parametrize(("kind", "precision"), [("plain", "bf16"), ("oft", "fp32")])
def test_an_action_does_not_depend_on_the_rows_around_it(
    l1_checkpoint: Path, tiny: str, kind: str, precision: str
) -> None:
    folder = l1_checkpoint if kind == "oft" else tiny
    policy = load_policy(
        "openvla", checkpoint=str(folder), precision=precision, device="cpu", unnorm_key="libero_spatial"
    )
    generator = np.random.default_rng(0)
    seen = [
        Observation(
            {name: generator.integers(0, 256, (64, 64, 3), np.uint8) for name in ("agentview", "wrist")},
            generator.uniform(-1, 1, 8).astype(np.float32),
            words,
            f"e{i}",
            i,
        )
        for i, words in enumerate(("open the middle drawer of the cabinet", "push it", "push it"))
    ]
    assert policy.spec.max_batch == 1
    np.testing.assert_array_equal(policy.act(seen), np.concatenate([policy.act([one]) for one in seen]))
