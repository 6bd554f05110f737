"""Reads published checkpoints into modules: where the files are, which tensors they hold, in which number format.

checkpoint = find_checkpoint("openvla/openvla-7b")            # a folder, or a hub id
sizes = checkpoint.fields("config.json")                      # typed: sizes.integer("hidden_size")
device = choose_device("auto")
precision = choose_precision("4bit", device)
with parameters_on_meta():                                    # costs neither memory nor time
    model = Model(checkpoint.json("config.json"))
quantise_linears(model, precision, device, only=lambda path: path.startswith("language_model."))
load_weights(model, checkpoint.tensors(), rename=str, dtype=precision.dtype, device=device)
"""

from .fields import Fields
from .files import Checkpoint, find_checkpoint
from .kinds import CheckpointKind, describe_checkpoint
from .loading import load_weights, module_bytes, parameters_on_meta
from .precision import PRECISIONS, Precision, choose_device, choose_precision, quantise_linears
from .tensors import PickledTensors, TensorFiles, Tensors

__all__ = [
    "PRECISIONS",
    "Checkpoint",
    "CheckpointKind",
    "Fields",
    "PickledTensors",
    "Precision",
    "TensorFiles",
    "Tensors",
    "choose_device",
    "choose_precision",
    "describe_checkpoint",
    "find_checkpoint",
    "load_weights",
    "module_bytes",
    "parameters_on_meta",
    "quantise_linears",
]
