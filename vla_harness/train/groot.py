"""``python -m vla_harness.train groot``: fine-tune GR00T N1.5 on a LeRobot dataset.

Optimizer, schedule, augmentation and what learns are those of NVIDIA/Isaac-GR00T N1.5 ``scripts/gr00t_finetune.py``;
the loop, checkpoints and resume are ``tformer.training``'s.
"""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys

    from vla_harness.launch import launch

    sys.exit(launch("vla_harness.train.groot"))

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
from tyro.conf import Suppress, arg

from tformer.training import TrainOptions, leads, train
from tformer.values import Decay, Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Seed

from ..command import check_options
from ..data import Dataset, ModalityReader
from ..data.conventions import TranslatedStorage
from ..data.lerobot_storage import LeRobotStorage
from ..data.opening import ReadingOptions, open_dataset
from ..data.storage import Storage
from ..data.validation import require_valid
from ..policies.groot.assembly import GROOT_3B, GrootParts, open_groot
from ..policies.groot.embodiments import data_config
from . import memory
from .groot_data import dataset_for, reading_note
from .groot_task import GrootTask, choose_what_learns, export
from .running import EXPORT, run_training

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class GrootOptions(ReadingOptions, TrainOptions):
    """Fine-tune GR00T N1.5 on a dataset; `torchrun` shares the batch over GPUs.

    A dataset is read by the parts of its meta/modality.json, which the data configuration names. For libero and other
    configurations that an environment serves, demonstrations of LIBERO (recorded here, HDF5, or read by --convention)
    are turned into what the configuration states: how frames lie, and the gripper's values.
    """

    dataset: Annotated[Path, arg(metavar="DATASET")]
    """Folder of a LeRobot dataset, LIBERO's .hdf5 file or a folder of these, or one of these on the hub: ORG/NAME or
    ORG/NAME/FOLDER."""
    checkpoint: str = GROOT_3B
    """What to start from: a folder or hub id."""
    tokenizer: Annotated[
        str | None, arg(metavar="DIR", help_behavior_hint="(default: the checkpoint's, or the hub's)")
    ] = None
    """Where the Eagle tokenizer's files are."""
    embodiment: str = "new_embodiment"
    """Embodiment whose encoders and decoder learn, such as new_embodiment or gr1."""
    data_config: Annotated[str, arg(metavar="NAME|FILE")] = "so100_dualcam"
    """Which parts of the dataset are read, and how: a built-in data configuration or a .toml file."""
    out: Path = Path("runs/groot")
    """Folder for checkpoints, curve.json, TensorBoard events and the export."""
    tune_visual: bool = False
    """Train the vision tower and the connector too."""
    tune_llm: bool = False
    """Train the language model too."""
    tune_projector: bool = True
    """Train the encoders and the decoder of state and actions."""
    tune_diffusion_model: bool = True
    """Train the diffusion transformer."""
    lora_rank: NonNegativeInt = 0
    """Rank of low-rank changes of the attention in adapter and DiT, which learn in place of their weights; 0: none."""
    lora_alpha: PositiveFloat = 16.0
    """Scale of the low-rank changes, over the rank."""
    batch_size: PositiveInt = 32
    """Examples in a step, over all processes together."""
    steps_per_epoch: PositiveInt = 1000
    """Steps in an epoch; each epoch ends with an offline evaluation and a checkpoint."""
    epochs: PositiveInt = 10
    """Epochs."""
    learning_rate: PositiveFloat = 1e-4
    """Highest learning rate, reached at the end of the warm-up."""
    min_learning_rate: NonNegativeFloat = 0.0
    """Learning rate that the cosine reaches at the last step."""
    warmup_ratio: Fraction = 0.05
    """Share of all steps that warm up."""
    warmup_steps: Suppress[NonNegativeInt] = 0
    weight_decay: NonNegativeFloat = 1e-5
    """AdamW's decay of matrices; vectors (norms, biases) do not decay."""
    beta1: Decay = 0.95
    """AdamW's first momentum."""
    beta2: Decay = 0.999
    """AdamW's second momentum."""
    ema: Suppress[Decay] = 0.0
    precision: Literal["fp32", "bf16"] = "bf16"
    """bf16 computes matrix products in bfloat16 by autocast; weights stay float32."""
    seed: Seed = 42
    """Seed of data order, augmentation, noise, dropout and low-rank changes."""
    evaluate_episodes: NonNegativeInt = 1
    """Episodes, the dataset's first ones, of the offline evaluation at each epoch's end; 0 for none."""
    evaluate_steps: PositiveInt = 150
    """Most steps of each of these episodes."""
    data_threads: PositiveInt = 4
    """Threads that read and decode examples, in each process."""
    frame_cache_gib: NonNegativeFloat = 4.0
    """Decoded videos kept in memory, in each process, in GiB."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit code."""
    return run_training(GrootOptions, arguments, "groot", finetune)


def finetune(options: GrootOptions) -> Path:
    """Train as ``options`` say, and write and return the export: a checkpoint in the original layout."""
    check_options(options)
    options = replace(options, warmup_steps=round(options.warmup_ratio * options.epochs * options.steps_per_epoch))
    opened = open_dataset(options.dataset, options.convention, options.image_orientation, options.shift_observations)
    require_valid(opened, needs_instructions=True)
    _keep_frames(opened.storage, int(options.frame_cache_gib * GIB))
    dataset = dataset_for(opened, data_config(options.data_config))
    parts = open_parts(options, dataset)
    torch.manual_seed(options.seed)  # the low-rank changes' start
    learning = choose_what_learns(parts.model, options)
    task = GrootTask(options, parts, dataset)
    if leads():
        for name, told in _description(options, parts, dataset, learning, task.tokens):
            print(f"{name:<10} {told}", flush=True)
        for notice in dataset.notices:
            print(f"note       {notice}", flush=True)
    try:
        train(task, options)
    finally:
        task.close()
    folder = options.out / EXPORT
    if leads():
        export(parts, folder, options)
        print(f"export     {folder}: load_policy('groot', checkpoint={str(folder)!r}, …)")
    return folder


def open_parts(options: GrootOptions, dataset: Dataset) -> GrootParts:
    """Open the checkpoint with the dataset's statistics, on this process's device, in fp32."""
    entry = {options.embodiment: ModalityReader(dataset).metadata(options.embodiment)}
    device = options.device
    if device in ("auto", "cuda") and torch.cuda.is_available():
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return open_groot(
        options.checkpoint, options.tokenizer, options.embodiment, options.data_config, "fp32", device, metadata=entry
    )


def _keep_frames(storage: Storage, size: int) -> None:
    """Let the files' own storage keep ``size`` bytes of decoded videos."""
    while isinstance(storage, TranslatedStorage):
        storage = storage.source
    if isinstance(storage, LeRobotStorage):
        storage.frame_cache_bytes = size


def _description(
    options: GrootOptions, parts: GrootParts, dataset: Dataset, learning: int, tokens: int
) -> list[tuple[str, str]]:
    total = sum(p.numel() for p in parts.model.parameters())
    steps = options.epochs * options.steps_per_epoch
    rank = f", low-rank changes of rank {options.lora_rank}" if options.lora_rank else ""
    share = memory.estimate(parts.model, _kept_layers(options, parts, tokens), options.precision == "fp32")
    return [
        ("dataset", f"{dataset.path}: {len(dataset.episodes)} episodes, {dataset.frames:,} frames"),
        *((("read", note),) if (note := reading_note(dataset, parts.transforms.config)) else ()),
        ("checkpoint", f"{options.checkpoint} for {options.embodiment}, data configuration {options.data_config}"),
        ("learning", f"{learning:,} of {total:,} weights{rank}"),
        (
            "steps",
            f"{steps:,} of {options.batch_size} examples: {steps * options.batch_size / dataset.frames:.1f} passes",
        ),
        ("memory", memory.describe(share, memory.available(parts.device))),
    ]


def _kept_layers(options: GrootOptions, parts: GrootParts, tokens: int) -> Mapping[str, tuple[int, int, int]]:
    """Return the stacks that keep activations of a process's share: those behind the first weight that learns."""
    config = parts.model.config
    rows = -(-options.batch_size // int(os.environ.get("WORLD_SIZE", "1")))
    vision, words = config.eagle["vision_config"], config.eagle["text_config"]
    cameras = len(parts.transforms.config.video)
    head = parts.model.head
    patches = (vision["image_size"] // vision["patch_size"]) ** 2
    width = head.vlln.normalized_shape[0]
    layers = {
        "adapter": (len(head.vl_self_attention.transformer_blocks), rows * tokens, width),
        "dit": (len(head.model.transformer_blocks), rows * 49, config.head.hidden_size),
    }
    if options.tune_visual or options.tune_llm:
        layers["llm"] = (config.layers, rows * tokens, words["hidden_size"])
    if options.tune_visual:
        layers["vision"] = (vision["num_hidden_layers"], rows * cameras * patches, vision["hidden_size"])
    return layers
