"""Training: a task says what is learned, the trainer how."""

from .checkpoints import average_weights, list_checkpoints, read_checkpoint
from .distributed import leads
from .options import TrainOptions
from .task import Loss, Task, TrainState, Validation
from .trainer import train

__all__ = [
    "Loss",
    "Task",
    "TrainOptions",
    "TrainState",
    "Validation",
    "average_weights",
    "leads",
    "list_checkpoints",
    "read_checkpoint",
    "train",
]
