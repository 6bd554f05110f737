"""What is wrong with a GR00T checkpoint's config and statistics is one sentence when it is opened."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.vla_harness.groot.goldens import CHECKPOINT, TOKENIZER
from tests.vla_harness.openvla.tiny_checkpoint import write_tiny_checkpoint
from vla_harness.errors import CheckpointError, UserError
from vla_harness.eval.offline import main as offline
from vla_harness.policies.groot.assembly import open_groot

Change = Callable[[Any], None]
METADATA = "experiment_cfg/metadata.json"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A copy whose JSON files may be changed; the weights are links."""
    folder = tmp_path / "checkpoint"
    (folder / "experiment_cfg").mkdir(parents=True)
    for file in Path(CHECKPOINT).iterdir():
        if file.suffix == ".safetensors":
            (folder / file.name).symlink_to(file.resolve())
        elif file.is_file():
            shutil.copyfile(file, folder / file.name)
    shutil.copyfile(Path(CHECKPOINT) / METADATA, folder / METADATA)
    return folder


def change(file: Path, path: str, value: Any) -> None:
    """Set the value at the dotted ``path``; ``...`` takes the key away."""
    content = json.loads(file.read_text())
    *above, key = path.split(".")
    place = content
    for name in above:
        place = place[name]
    if value is ...:
        del place[key]
    else:
        place[key] = value
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("action_head_cfg", 3, r"has action_head_cfg 3, and an object"),
        ("backbone_cfg", [], r"has backbone_cfg \[\], and an object"),
        ("backbone_cfg.select_layer", ..., r"lacks backbone_cfg\.select_layer"),
        ("backbone_cfg.select_layer", "two", r"has backbone_cfg\.select_layer 'two'"),
        ("backbone_cfg.select_layer", 10**9, r"has backbone_cfg\.select_layer 1000000000, and a whole number"),
        ("backbone_cfg.project_to_dim", 1536, r"has backbone_cfg\.project_to_dim 1536, and only null is implemented"),
        ("action_head_cfg.diffusion_model_cfg", ..., r"lacks action_head_cfg\.diffusion_model_cfg"),
        ("action_head_cfg.diffusion_model_cfg.num_layers", ..., r"lacks action_head_cfg\.diffusion_model_cfg\.num_l"),
        ("action_head_cfg.diffusion_model_cfg.num_layers", 10**6, r"num_layers 1000000, and a whole number"),
        ("action_head_cfg.diffusion_model_cfg.output_dim", ..., r"diffusion_model_cfg\.output_dim null"),
        ("action_head_cfg.diffusion_model_cfg.num_attention_heads", 0, r"num_attention_heads 0"),
        ("action_head_cfg.vl_self_attention_cfg", {}, r"lacks action_head_cfg\.vl_self_attention_cfg\.num_layers"),
        ("action_head_cfg.action_horizon", -16, r"has action_head_cfg\.action_horizon -16"),
        ("action_head_cfg.action_horizon", True, r"has action_head_cfg\.action_horizon True"),
        ("action_head_cfg.hidden_size", "wide", r"has action_head_cfg\.hidden_size 'wide'"),
        ("action_head_cfg.noise_s", "big", r"has action_head_cfg\.noise_s 'big'"),
        ("action_head_cfg.num_inference_timesteps", 0, r"num_inference_timesteps 0"),
        ("action_head_cfg.use_vlln", False, r"has action_head_cfg\.use_vlln False, and only True"),
        ("action_head_cfg.hidden_size", ..., "has the shape"),  # the 3B model's, which the weights are not
    ],
)
def test_keys_of_config_json(path: str, value: Any, sentence: str, checkpoint: Path) -> None:
    change(checkpoint / "config.json", path, value)
    with pytest.raises(CheckpointError, match=sentence):
        open_groot(str(checkpoint), TOKENIZER, config="so100_dualcam")


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("image_token_index", ..., "lacks image_token_index"),
        ("vision_config.hidden_size", "48", r"has vision_config\.hidden_size '48'"),
        ("vision_config.num_attention_heads", 5, r"has vision_config\.num_attention_heads 5, and a divisor"),
        ("vision_config.image_size", 448, r"has vision_config\.image_size 448, and only 224 is implemented"),
        ("text_config.rms_norm_eps", None, r"has text_config\.rms_norm_eps null"),
        ("text_config", 7, "has text_config 7, and an object"),
        ("text_config.num_key_value_heads", 3, r"has text_config\.num_key_value_heads 3, and a divisor"),
    ],
)
def test_sizes_of_the_backbone(path: str, value: Any, sentence: str, tmp_path: Path) -> None:
    shutil.copytree(TOKENIZER, tmp_path / "tokenizer")
    change(tmp_path / "tokenizer/config.json", path, value)
    with pytest.raises(CheckpointError, match=sentence):
        open_groot(CHECKPOINT, str(tmp_path / "tokenizer"), config="so100_dualcam")


STATE = "new_embodiment.statistics.state.single_arm"


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("new_embodiment", [], "holds no object for new_embodiment"),
        ("new_embodiment.statistics", ..., "lacks statistics"),
        ("new_embodiment.modalities.state", None, r"has modalities\.state null"),
        ("new_embodiment.modalities.state.single_arm.shape", [], r"single_arm\.shape \[\], and a list of 1"),
        ("new_embodiment.modalities.state.single_arm.shape", ["5"], r"single_arm\.shape \['5'\]"),
        ("new_embodiment.modalities.state.single_arm.shape", [0], r"single_arm\.shape \[0\]"),
        (f"{STATE}.min", [0.0] * 4, r"statistics\.state\.single_arm\.min a list of 4|single_arm\.min \[0\.0"),
        (f"{STATE}.min", [0.0, 0.0, float("nan"), 0.0, 0.0], r"single_arm\.min \[.*and a list of 5 finite numbers"),
        (f"{STATE}.min", [99.0] * 5, r"single_arm\.min .* not above max"),
        (f"{STATE}.min", ..., "The statistics of 'single_arm' lack min, which min_max needs"),
        (f"{STATE}.max", "much", r"single_arm\.max 'much'"),
        ("new_embodiment.statistics.action.gripper", 1, r"has statistics\.action\.gripper 1, and an object"),
    ],
)
def test_statistics(path: str, value: Any, sentence: str, checkpoint: Path) -> None:
    change(checkpoint / METADATA, path, value)
    with pytest.raises(UserError, match=sentence):
        open_groot(str(checkpoint), TOKENIZER, config="so100_dualcam")


def test_checkpoints_of_other_kinds_say_what_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tiny_checkpoint(tmp_path / "openvla")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/episodes.sqlite").touch()
    for folder, sentence in (("openvla", "an OpenVLA checkpoint: give --policy openvla"), ("run", "results of a run")):
        options = ["--policy", "groot", "--checkpoint", str(tmp_path / folder), "--dataset", str(tmp_path)]
        with pytest.raises(CheckpointError, match=sentence):
            open_groot(str(tmp_path / folder))
        assert offline(options) == 2
        assert "Traceback" not in capsys.readouterr().err
