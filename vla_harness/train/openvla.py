"""``python -m vla_harness.train openvla``: fine-tune OpenVLA by low-rank changes on a dataset of LIBERO's actions.

Optimizer, labels, augmentation and what learns are those of openvla/openvla ``vla-scripts/finetune.py``.
"""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys

    from vla_harness.launch import launch

    sys.exit(launch("vla_harness.train.openvla"))

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
from tyro.conf import Suppress, arg

from tformer.lora import apply_lora, lora_layers
from tformer.training import TrainOptions, leads, train
from tformer.values import Decay, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Seed

from ..checkpoints import find_checkpoint
from ..command import check_options
from ..data.conventions import check_gripper
from ..data.opening import ReadingOptions, open_dataset
from ..data.validation import require_valid
from ..errors import UserError
from ..policies.openvla.actions import read_statistics
from ..policies.openvla.loading import open_openvla
from ..policies.openvla.model import OpenVLA
from ..policies.openvla.weights import load_model
from . import memory
from .openvla_export import export
from .openvla_task import OpenVLATask, action_statistics
from .running import EXPORT, run_training


@dataclass(frozen=True, kw_only=True)
class OpenVLAOptions(ReadingOptions, TrainOptions):
    """Fine-tune OpenVLA by low-rank changes on a dataset of end-effector actions as LIBERO takes them."""

    dataset: Annotated[Path, arg(metavar="DATASET")]
    """Folder of a LeRobot dataset, LIBERO's .hdf5 file or a folder of these, or one of these on the hub: ORG/NAME or
    ORG/NAME/FOLDER."""
    checkpoint: str = "openvla/openvla-7b"
    """What to start from: a folder or hub id."""
    unnorm_key: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: the dataset's folder)")] = None
    """Name that the dataset's statistics get in the export."""
    camera: str = "agentview"
    """Camera of the dataset, by its short name, whose frames the network reads."""
    out: Path = Path("runs/openvla")
    """Folder for checkpoints, curve.json, TensorBoard events and the export."""
    lora_rank: PositiveInt = 32
    """Rank of the low-rank changes of every linear layer but the last."""
    augmentation: bool = True
    """Crop, brightness, contrast, saturation and hue at random."""
    batch_size: PositiveInt = 16
    """Examples in a step, over all processes together."""
    steps_per_epoch: PositiveInt = 5000
    """Steps in an epoch; each epoch ends with a validation and a checkpoint."""
    epochs: PositiveInt = 10
    """Epochs."""
    learning_rate: PositiveFloat = 5e-4
    """Learning rate, the same at every step."""
    min_learning_rate: Suppress[NonNegativeFloat] = 0.0
    warmup_steps: NonNegativeInt = 0
    """Steps of linear warm-up."""
    weight_decay: NonNegativeFloat = 0.01
    """AdamW's decay."""
    beta2: Decay = 0.999
    """AdamW's second momentum."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """Number format of the frozen weights and of matrix products; what learns stays float32."""
    four_bit: bool = False
    """Keep the frozen weights in 4 bits (NF4), which take a quarter of bf16's memory; needs bitsandbytes. The export
    holds the checkpoint's own weights with the changes, not rounded ones."""
    ema: Suppress[Decay] = 0.0
    evaluate_examples: PositiveInt = 64
    """Rows, spread over the dataset and not augmented, of the validation at each epoch's end."""
    seed: Seed = 7
    """Seed of data order, augmentation and low-rank changes."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit code."""
    return run_training(OpenVLAOptions, arguments, "openvla", finetune)


def finetune(options: OpenVLAOptions) -> Path:
    """Train as ``options`` say, and write and return the export: a checkpoint in the original layout."""
    check_options(options)
    if options.four_bit and options.precision == "fp32":
        raise UserError("--four-bit computes in bf16: leave out --precision fp32.")
    options = replace(options, min_learning_rate=options.learning_rate)
    dataset = open_dataset(options.dataset, options.convention, options.image_orientation, options.shift_observations)
    require_valid(dataset, needs_instructions=True)
    statistics = {options.unnorm_key or Path(dataset.name).stem: action_statistics(dataset)}
    check_gripper(dataset)
    device = options.device
    if device in ("auto", "cuda") and torch.cuda.is_available():
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    key = next(iter(read_statistics(find_checkpoint(options.checkpoint))))  # any: the dataset's own come in its place
    precision = "4bit" if options.four_bit else options.precision
    stored = open_openvla(options.checkpoint, precision, device, key, None, "sdpa")
    parts = replace(stored, statistics=statistics, unnorm_key=next(iter(statistics)))
    model = load_model(parts.checkpoint, parts.config, parts.precision, parts.device)
    torch.manual_seed(options.seed)
    learning = add_low_rank_changes(model, options.lora_rank)
    task = OpenVLATask(options, parts, model, dataset)
    if leads():
        steps = options.epochs * options.steps_per_epoch
        rows = -(-options.batch_size // int(os.environ.get("WORLD_SIZE", "1")))
        text = parts.config.language
        layers = {"language": (text.depth, rows * (parts.config.siglip.patches + 40), text.width)}
        for vit in (parts.config.dino, parts.config.siglip):
            layers[f"vision {vit.width}"] = (vit.depth, rows * vit.patches, vit.width)
        share = memory.estimate(model, layers, options.precision == "fp32")
        print(f"dataset    {dataset.path}: {len(dataset.episodes)} episodes, {dataset.frames:,} frames")
        for notice in dataset.notices:
            print(f"note       {notice}")
        print(f"learning   {learning:,} weights, low-rank changes of rank {options.lora_rank}")
        print(f"steps      {steps:,} of {options.batch_size} examples")
        print(f"memory     {memory.describe(share, memory.available(parts.device))}", flush=True)
    try:
        train(task, options)
    finally:
        task.close()
    folder = options.out / EXPORT
    if leads():
        export(parts, model, folder)
        print(f"export     {folder}: load_policy('openvla', checkpoint={str(folder)!r})")
    return folder


def add_low_rank_changes(model: OpenVLA, rank: int) -> int:
    """Add changes of scale min(rank, 16) / rank to every linear layer but the last; return how many weights learn."""
    count = apply_lora(model, rank, float(min(rank, 16)), lambda name: name != "language_model.lm_head")
    for _, layer in lora_layers(model):
        layer.a.data, layer.b.data = layer.a.data.float(), layer.b.data.float()  # small steps vanish in bfloat16
    return count
