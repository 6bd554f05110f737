"""``python -m vla_harness.train tformer``: train the policy from scratch on demonstrations.

The network is ``tformer.policy``'s; the loop, checkpoints and resume are ``tformer.training``'s.
"""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys

    from vla_harness.launch import launch

    sys.exit(launch("vla_harness.train.tformer"))

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from tyro.conf import arg

from tformer.policy import HeadConfig, PolicyConfig
from tformer.training import TrainOptions, leads, train
from tformer.values import Decay, Fraction, NonNegativeFloat, NonNegativeInt, PositiveInt, Range

from ..checkpoints.files import find_checkpoint
from ..command import check_options
from ..data import Dataset, open_dataset
from ..data.conventions import ConventionName
from ..data.files import read_json
from ..errors import UserError
from ..policies.tformer.checkpoint import read_policy
from ..policies.tformer.hub import prepare_repository, push_policy
from ..types import ImageOrientation
from .running import EXPORT, run_training
from .tformer_samples import Samples, read_samples
from .tformer_task import TformerTask, make_card


@dataclass(frozen=True, kw_only=True)
class TformerOptions(TrainOptions):
    """Train the policy from scratch on demonstrations: images, state and words to chunks of actions."""

    dataset: Annotated[tuple[Path, ...], arg(metavar="DATASET [DATASET …]")]
    """Datasets: folders of LeRobot's, LIBERO's HDF5 or what vla_harness.data.record wrote, or ORG/NAME or
    ORG/NAME/FOLDER on the hub."""
    convention: Annotated[tuple[ConventionName | Literal["own"], ...], arg(metavar="NAME [NAME …]")] = ()
    """Convention that a public LIBERO dataset in LeRobot's format follows, one for all or one for each dataset: openpi
    (physical-intelligence/libero), lerobot (lerobot/libero), openx (IPEC-COMMUNITY's), or own, the harness's."""
    image_orientation: ImageOrientation | None = None
    """How the stored frames lie, where neither the convention nor the HDF5 file says so or both are wrong."""
    shift_observations: bool = False
    """Pair each action of an HDF5 file with the row before: LIBERO's own files hold in row i what was seen after action
    i, OpenVLA's regenerated ones what was seen before it. The first action, of which nothing was seen, is left out."""
    start: Annotated[str | None, arg(metavar="DIR|ORG/NAME")] = None
    """Checkpoint whose weights and normalisation it starts from, such as a policy to fine-tune; weights that do not
    fit, such as another head's, start at random."""
    out: Path = Path("runs/tformer")
    """Folder for checkpoints, curve.json, TensorBoard events and the export."""
    head: Literal["diffusion", "flow", "regression"] = "flow"
    """How actions are made: denoised by DDIM in 10 steps, by flow matching in 4, or regressed (ACT's baseline)."""
    horizon: PositiveInt = 16
    """Actions of a chunk."""
    language: bool = True
    """Read the instruction; without it, one sees what the words are worth."""
    width: Annotated[int, Range(8, multiple=8)] = 32
    """Channels of a camera's network at a quarter of the resolution, a multiple of 8."""
    d_model: Annotated[int, Range(4, multiple=4)] = 128
    """Width of a token, which four attention heads share."""
    layers: PositiveInt = 2
    """Blocks of the observation transformer."""
    cameras: tuple[str, ...] = ("agentview", "wrist")
    """Cameras, by the last part of the dataset's names; those after the first are seen at half the resolution."""
    state_keys: tuple[str, ...] = ("eef_pos", "eef_axis_angle", "gripper_qpos")
    """What observation.state holds, in the harness's names."""
    image_size: Annotated[int, Range(32, multiple=32)] = 128
    """Height and width of the frames in pixels, a multiple of 32."""
    row_every: PositiveInt = 1
    """Learn from each how-many-th drawn frame of an episode; all are kept in memory."""
    shift: NonNegativeInt = 3
    """Augmentation: most pixels that a frame is moved by."""
    colour: Fraction = 0.2
    """Augmentation: most that brightness, contrast and channels change."""
    aim_weight: NonNegativeFloat = 0.5
    """Weight of the auxiliary loss where the dataset says where things are."""
    draws: PositiveInt = 2
    """Noise levels that the head learns from each observation."""
    hold_out: NonNegativeInt = 20
    """Each how-many-th episode is kept from training, for validation; 0 keeps none."""
    evaluate_examples: PositiveInt = 256
    """Held-out rows in a validation."""
    batch_size: PositiveInt = 64
    """Observations in a step, over all processes together."""
    steps_per_epoch: PositiveInt = 250
    """Steps in an epoch; each ends with validation and a checkpoint."""
    epochs: PositiveInt = 20
    """Epochs."""
    min_learning_rate: NonNegativeFloat = 0.0
    """Learning rate that the cosine reaches at the last step."""
    weight_decay: NonNegativeFloat = 0.01
    """AdamW's decay of matrices; vectors (norms, biases) do not decay."""
    ema: Decay = 0.999
    """Decay of a running mean of the weights (EMA), which is validated and exported in their place; 0 keeps none."""
    push: Annotated[str | None, arg(metavar="ORG/NAME")] = None
    """Repository of the hub that the export is put into, with a model card; created before the training starts, so that
    a missing login or a wrong name is found then."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit code."""
    return run_training(TformerOptions, arguments, "tformer", train_policy)


def train_policy(options: TformerOptions) -> Path:
    """Train as ``options`` say, and write and return the export: model.safetensors and config.json."""
    _check(options)
    datasets = _open(options)
    samples = read_samples(datasets, options)
    network = PolicyConfig(
        vocabulary=0,  # counted with the instructions
        reduce=(1,) + (2,) * (len(options.cameras) - 1),
        state_dim=samples.state.shape[1],
        aim_dim=samples.aims.shape[1],
        action_dim=samples.actions.shape[2],
        horizon=options.horizon,
        d_model=options.d_model,
        layers=options.layers,
        width=options.width,
        language=options.language,
        head=HeadConfig(options.head),
    )
    known, start = (None, None) if options.start is None else read_policy(find_checkpoint(options.start))
    card = make_card(samples, options, network, known, _training(options, datasets, samples))
    task = TformerTask(options, samples, card, start)
    if leads():
        if options.push:
            prepare_repository(options.push)
        weights = sum(p.numel() for p in task.model.parameters())
        passes = options.epochs * options.steps_per_epoch * options.batch_size / len(samples)
        print(f"samples    {len(samples):,} of {len(samples.instructions)} tasks, {samples.frames.nbytes / 1e9:.1f} GB")
        print(f"validation {_validation(options, samples)}")
        print(f"network    {weights:,} weights, {options.head} head, chunks of {options.horizon}")
        if options.start:
            print(f"start      {options.start}; at random: {len(task.fresh)} of its tensors")
        print(f"steps      {options.epochs * options.steps_per_epoch:,} of {options.batch_size}: {passes:.1f} passes")
    try:
        state = train(task, options)
    finally:
        task.close()
    folder = options.out / EXPORT
    if leads():
        print(f"export     {folder}: --policy tformer --checkpoint {folder}")
        if options.push:
            print(f"pushed     {push_policy(folder, options.push, state.curve)}")
    return folder


def _validation(options: TformerOptions, samples: Samples) -> str:
    """Return the line that says how many episodes are held out."""
    episodes = len(np.unique(samples.episode))
    if not options.hold_out:
        return f"none: --hold-out 0 learns from all {episodes} episodes"
    if episodes < options.hold_out:
        return (
            f"none: --hold-out {options.hold_out} keeps every {options.hold_out}th episode and there are {episodes}; "
            f"give --hold-out {max(2, min(5, episodes))} to hold some out"
        )
    return f"{episodes // options.hold_out} of {episodes} episodes held out"


def _check(options: TformerOptions) -> None:
    check_options(options)
    if not options.dataset:
        raise UserError("--dataset names none: give one or more.")


def _open(options: TformerOptions) -> list[Dataset]:
    """Return the datasets in the harness's terms, and say what they are taken for."""
    names = options.convention or ("own",)
    if len(names) not in (1, len(options.dataset)):
        raise UserError(
            f"--convention names {len(names)} for {len(options.dataset)} datasets: give one, or one for each dataset."
        )
    datasets = []
    for number, path in enumerate(options.dataset):
        name = names[number % len(names)]
        convention = None if name == "own" else name
        datasets.append(open_dataset(path, convention, options.image_orientation, options.shift_observations))
        if leads():
            for notice in datasets[-1].notices:
                print(f"note       {notice}")
            taken = datasets[-1].translation or "frames upright, gripper -1 open and 1 closed"
            print(f"dataset    {datasets[-1].name}: {len(datasets[-1].episodes)} episodes, {taken}")
    return datasets


def _training(options: TformerOptions, datasets: Sequence[Dataset], samples: Samples) -> dict[str, Any]:
    """Return what the checkpoint tells of its training."""
    told: list[dict[str, Any]] = []
    for dataset in datasets:
        recording = dataset.path / "meta" / "recording.json"
        entry = {"source": dataset.source, "revision": dataset.revision, "translation": dataset.translation}
        recorded = read_json(recording) if recording.exists() else {}
        told.append(recorded | {"name": dataset.name} | {key: value for key, value in entry.items() if value})
    return {
        "command": shlex.join(["python", "-m", "vla_harness.train", "tformer", *sys.argv[2:]]),
        "datasets": told,
        "samples": len(samples),
        "seed": options.seed,
        "instructions": list(samples.instructions),
    }
