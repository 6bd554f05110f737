"""What every training command lets the user choose; a command adds its own fields."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..values import Decay, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Seed


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """How to train; the docstrings of the fields are the help."""

    out: Path
    """Folder for checkpoints, curve.json and TensorBoard events."""
    resume: str | None = None
    """Continue bit for bit from a checkpoint of the same configuration: "latest" of --out, or a path."""
    epochs: PositiveInt = 10
    """Passes over the training data (charlm: of 250 steps each); each ends with validation and a checkpoint."""
    learning_rate: PositiveFloat = 1e-3
    """Highest learning rate, reached at the end of the warm-up."""
    min_learning_rate: NonNegativeFloat = 1e-4
    """Learning rate that the cosine reaches at the last step."""
    warmup_steps: NonNegativeInt = 100
    """Steps of linear warm-up."""
    weight_decay: NonNegativeFloat = 0.1
    """AdamW's decay of matrices; vectors (norms, biases) do not decay."""
    beta1: Decay = 0.9
    """AdamW's first momentum."""
    beta2: Decay = 0.99
    """AdamW's second momentum."""
    grad_clip: PositiveFloat = 1.0
    """Largest norm of the gradient; longer ones are scaled down to it."""
    ema: Decay = 0.0
    """Decay of a running mean of the weights (EMA), which is validated and exported in their place; 0 keeps none."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 computes matrix products in bfloat16 by autocast; weights stay float32."""
    compile: bool = False
    """Compile the model with torch.compile, which needs a C++ compiler on the CPU."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda or cuda:N."""
    seed: Seed = 1337
    """Seed of weights, data order and dropout."""
    log_every: PositiveInt = 10
    """Steps between points of the training loss, and between checks that it is a number."""
    keep: PositiveInt = 2
    """How many of the newest checkpoints stay in --out."""
