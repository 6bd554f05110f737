"""Images, prompts, normalisation, rotations and data configurations against NVIDIA's, and what they refuse."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.vla_harness.groot.goldens import CHECKPOINT, DATA, TOKENIZER, Goldens, observation
from vla_harness.checkpoints import find_checkpoint
from vla_harness.errors import CheckpointError, UserError
from vla_harness.policies.groot.assembly import GrootParts, open_groot
from vla_harness.policies.groot.embodiments import data_config, embodiment_slot
from vla_harness.policies.groot.images import as_pixels, crop_and_resize, crop_corner, middle_crop, whole_frame
from vla_harness.policies.groot.normalizers import Normalizer
from vla_harness.policies.groot.prompts import Prompts, prompt
from vla_harness.policies.groot.rotations import convert_rotation
from vla_harness.policies.groot.transforms import Transforms

Opened = Callable[[str], GrootParts]
PROMPTS = json.loads((DATA / "prompts.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("size", ["171x213", "240x320"])
def test_images_equal_the_reference_in_every_byte(size: str) -> None:
    goldens = Goldens("images")
    frame = goldens.tensor(f"in_{size}")[None]
    wanted = goldens.tensor(f"out_{size}").permute(2, 0, 1)[None]
    assert torch.equal((crop_and_resize(frame) * 255).to(torch.uint8), wanted)
    assert torch.equal(middle_crop(frame), (wanted.float() - 127.5) / 127.5)


def test_pixels_equal_the_reference(cases: Goldens, opened: Opened) -> None:
    for case in ("a", "b"):
        inputs = opened(case).transforms.inputs(observation(cases, case))
        torch.testing.assert_close(inputs.pixels[:, :, ::8, ::8], cases.tensor(f"{case}.pixels"), rtol=0, atol=1e-6)


def test_whole_frames_equal_lerobots() -> None:
    goldens = Goldens("images")
    pixels = whole_frame(goldens["in_240x320"][None])
    torch.testing.assert_close(pixels[:, :, ::2, ::2], goldens.tensor("direct_240x320"), rtol=0, atol=1e-6)


def test_a_crop_can_lie_elsewhere() -> None:
    frame = torch.randint(0, 256, (1, 100, 100, 3), dtype=torch.uint8)
    moved = torch.roll(frame, (-2, 2), dims=(1, 2))  # the middle begins at 2; the moved frame's middle is at (4, 0)
    assert crop_corner(100, 100) == (2, 2)
    assert torch.equal(as_pixels(crop_and_resize(frame, corner=(4, 0)))[..., 5:-5], middle_crop(moved)[..., 5:-5])


def test_prompts_equal_the_reference() -> None:
    prompts = Prompts(find_checkpoint(TOKENIZER), image_token=1989)
    assert len(PROMPTS["prompts"]) == 42
    for item in PROMPTS["prompts"]:
        tokens = prompts(item["instruction"], item["n_images"], item["style"])
        collapsed = [t for i, t in enumerate(tokens) if t != 1989 or tokens[i - 1] != 1989]
        assert collapsed == item["ids"], item["instruction"]
        assert len(tokens) == item["tiny_len"]
    quoted = prompt("don't", 1, "policy")
    assert quoted.endswith('</img>["don\'t"]<|im_end|>\n<|im_start|>assistant\n')


def test_tokenizers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no tokenizer"):
        Prompts(find_checkpoint(str(tmp_path)), image_token=1989)
    with pytest.raises(CheckpointError, match="image token of the tokenizer"):
        Prompts(find_checkpoint(TOKENIZER), image_token=151669)


@pytest.mark.parametrize("mode", ["min_max", "q99", "mean_std", "binary"])
def test_normalisation_and_back(mode: str) -> None:
    goldens = Goldens("normalizers")
    normalizer = Normalizer(mode, {name: array.tolist() for name, array in goldens.under("stat.").items()})
    x = goldens["x"]
    np.testing.assert_allclose(normalizer.normalise(x), goldens[f"{mode}.fwd"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(normalizer.restore(goldens[f"{mode}.fwd"]), goldens[f"{mode}.inv_of_fwd"], atol=1e-6)
    np.testing.assert_allclose(normalizer.restore(x), goldens[f"{mode}.inv_of_x"], rtol=0, atol=1e-6)
    assert normalizer.normalise(x).dtype == normalizer.restore(x).dtype == np.float32


def test_scaling_has_no_way_back() -> None:
    goldens = Goldens("normalizers")
    normalizer = Normalizer("scale", {name: array.tolist() for name, array in goldens.under("stat.").items()})
    np.testing.assert_allclose(normalizer.normalise(goldens["x"]), goldens["scale.fwd"], rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="no inverse"):
        normalizer.restore(goldens["x"])


ROTATIONS = Goldens("rotations")
PAIRS = sorted(name for name in ROTATIONS.arrays if "->" in name and not name.endswith(".inverse"))


@pytest.mark.parametrize("pair", PAIRS)
def test_rotations(pair: str) -> None:
    source, target = pair.split("->")
    converted = convert_rotation(ROTATIONS[f"{source}.in"], source, target)
    np.testing.assert_allclose(converted, ROTATIONS[pair], rtol=0, atol=1e-6)
    if f"{pair}.inverse" in ROTATIONS.arrays:
        back = convert_rotation(converted, target, source)
        np.testing.assert_allclose(back, ROTATIONS[f"{pair}.inverse"], rtol=0, atol=1e-6)


def test_rotations_keep_leading_axes_and_refuse_unknown_names() -> None:
    batch = np.tile(ROTATIONS["quaternion.in"], (2, 3, 1, 1))
    assert convert_rotation(batch, "quaternion", "matrix").shape == (2, 3, 6, 3, 3)
    with pytest.raises(ValueError, match="no representation"):
        convert_rotation(batch, "quaternion", "euler_angles_xyz")


def test_states_and_tokens_equal_the_reference(cases: Goldens, opened: Opened) -> None:
    for case in ("a", "b", "c"):
        inputs = opened(case).transforms.inputs(observation(cases, case))
        torch.testing.assert_close(inputs.state[None], cases.tensor(f"{case}.in.state").float(), rtol=0, atol=1e-6)
        assert list(inputs.tokens) == cases[f"{case}.in.eagle_input_ids"][0].tolist()


def test_training_pads_on_the_left_and_writes_plain_words(cases: Goldens, opened: Opened) -> None:
    transforms = opened("a").transforms
    action = {"action.single_arm": np.zeros((16, 5)), "action.gripper": np.zeros((16, 1))}
    batch = transforms.training_batch([observation(cases, case) | action for case in ("a", "c")])
    assert batch["tokens"].shape == (2, 557)
    assert batch["attention_mask"].sum(1).tolist() == [557, 550]
    assert batch["tokens"][1, :7].tolist() == [transforms.prompts.padding] * 7
    assert batch["embodiment"].tolist() == [31, 31]
    assert batch["action_mask"].sum().item() == 2 * 16 * 6


def test_actions_go_there_and_back(opened: Opened) -> None:
    transforms = opened("b").transforms
    generator = np.random.default_rng(0)
    wanted = {f"action.{key}": generator.normal(size=(16, width)) for key, width in transforms.action_widths.items()}
    normalised, mask = transforms.normalised_action(wanted)
    restored = transforms.actions(normalised.numpy())
    assert list(restored) == list(wanted) and int(mask[0].sum()) == 29
    for name, array in wanted.items():
        statistics = transforms.metadata["statistics"]["action"][name.removeprefix("action.")]
        varying = np.asarray(statistics["max"]) != np.asarray(statistics["min"])
        np.testing.assert_allclose(restored[name][:, varying], array[:, varying], rtol=1e-5, atol=1e-5)


def droid_metadata() -> dict[str, Any]:
    def cards(widths: dict[str, tuple[int, str | None]]) -> dict[str, Any]:
        return {
            key: {"absolute": "delta" not in key, "rotation_type": rotation, "shape": [width], "continuous": True}
            for key, (width, rotation) in widths.items()
        }

    state = cards({"eef_position": (3, None), "eef_rotation": (3, "euler_angles_rpy"), "gripper_position": (1, None)})
    action = cards(
        {
            "eef_position_delta": (3, None),
            "eef_rotation_delta": (3, "euler_angles_rpy"),
            "gripper_position": (1, None),
        }
    )
    numbers = {"min": -2.0, "max": 2.0}
    statistics = {
        modality: {key: {name: [n] * card["shape"][0] for name, n in numbers.items()} for key, card in keys.items()}
        for modality, keys in (("state", state), ("action", action))
    }
    return {"statistics": statistics, "modalities": {"state": state, "action": action}}


def test_droid_turns_its_rotations(opened: Opened) -> None:
    """Six numbers enter the network for three angles; what it writes as axis and angle comes out as angles."""
    parts = opened("a")
    transforms = Transforms(
        data_config("oxe_droid"), droid_metadata(), embodiment_slot("oxe_droid"), parts.transforms.prompts,
        parts.model.config.head,
    )  # fmt: skip
    angles = ROTATIONS["euler_angles_rpy.in"]
    example: dict[str, Any] = {f"video.{key}": np.zeros((1, 64, 64, 3), np.uint8) for key in transforms.config.video}
    example |= {
        "state.eef_position": np.ones((1, 3)),
        "state.eef_rotation": angles[:1],
        "state.gripper_position": np.zeros((1, 1)),
        "annotation.language.language_instruction": "move",
    }
    state = transforms.inputs(example).state[0]
    np.testing.assert_allclose(state[:3], 0.5)
    np.testing.assert_allclose(state[3:9], ROTATIONS["euler_angles_rpy->rotation_6d"][0], rtol=0, atol=1e-6)
    normalised = np.zeros((6, 32), np.float32)
    normalised[:, 3:6] = ROTATIONS["euler_angles_rpy->axis_angle"]
    normalised[:3, 6] = 0.9
    actions = transforms.actions(normalised)
    np.testing.assert_allclose(actions["action.eef_rotation_delta"], angles, rtol=0, atol=1e-5)
    assert actions["action.gripper_position"][:, 0].tolist() == [1, 1, 1, 0, 0, 0]


def test_a_relative_rotation_is_not_normalised_after_its_change(opened: Opened) -> None:
    parts, metadata = opened("a"), droid_metadata()
    metadata["modalities"]["state"]["eef_rotation"]["absolute"] = False
    config = dataclasses.replace(data_config("oxe_droid"), state_modes={"eef_rotation": "min_max"})
    with pytest.raises(UserError, match="only absolute rotations"):
        Transforms(config, metadata, 17, parts.transforms.prompts, parts.model.config.head)


def test_missing_and_misshaped_entries_are_named(cases: Goldens, opened: Opened) -> None:
    transforms, example = opened("a").transforms, observation(cases, "a")
    without = {name: value for name, value in example.items() if name != "state.gripper"}
    with pytest.raises(UserError, match=r"has no 'state\.gripper'"):
        transforms.inputs(without)
    with pytest.raises(UserError, match=r"state\.gripper has 2 entries, and the statistics are of 1"):
        transforms.inputs(example | {"state.gripper": np.zeros((1, 2))})
    wordless = {name: value for name, value in example.items() if not name.startswith("annotation")}
    with pytest.raises(UserError, match="has no instruction"):
        transforms.inputs(wordless)


def test_own_data_configurations_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[mine]\nlike = "so100"\nvideo = ["top", "side"]\naction_modes = {single_arm = "mean_std"}\n')
    config = data_config(str(file))
    assert (config.name, config.video, config.state) == ("mine", ("top", "side"), ("single_arm", "gripper"))
    assert config.action_modes == {"single_arm": "mean_std"} and config.state_modes["gripper"] == "min_max"
    assert config.modality_config["video"]["modality_keys"] == ["video.top", "video.side"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[mine]\nvideo = ["a"]', "needs the entry 'state'"),
        ('[mine]\nlike = "so100"\nteeth = 3', "has an entry 'teeth'"),
        ('[mine]\nlike = "teeth"', "like 'teeth', which there is not"),
        ('[mine]\nlike = "so100"\naction_modes = "loud"', "choose one of min_max"),
        ('[mine]\nlike = "so100"\nstate_modes = {tooth = "q99"}', "none of its state keys"),
        ('[mine]\nlike = "so100"\n[mine.robot]\ncameras = ["a"]', "robot of the data configuration mine is incomplete"),
        ("x = 1", "holds no data configuration"),
        ("[mine", "cannot be read"),
    ],
)
def test_wrong_data_configurations_are_refused(text: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(UserError, match=complaint):
        data_config(str(tmp_path / "mine.toml"))


def test_unknown_names_are_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="choose one of so100, so100_dualcam"):
        data_config("so1000")
    with pytest.raises(UserError, match="choose one of gr1, oxe_droid"):
        open_groot(CHECKPOINT, TOKENIZER, "toaster", "so100")
    with pytest.raises(UserError, match="no statistics for the embodiment 'oxe_droid', only for new_embodiment, gr1"):
        open_groot(CHECKPOINT, TOKENIZER, "oxe_droid", "oxe_droid")
    with pytest.raises(UserError, match="speak of no state key 'x'"):
        open_groot(CHECKPOINT, TOKENIZER, "new_embodiment", "libero")
    with pytest.raises(UserError, match=r"metadata .* cannot be read"):
        open_groot(CHECKPOINT, TOKENIZER, config="so100", metadata=str(tmp_path / "absent.json"))
