"""A checkpoint's tensor names, and the parameters of ``OpenVLA`` they are."""

from __future__ import annotations

import re

import torch

from ...checkpoints import Checkpoint, Precision, load_weights, parameters_on_meta, quantise_linears
from .configuration import OpenVLAConfig
from .model import OpenVLA


def parameter_name(config: OpenVLAConfig, tensor: str) -> str | None:
    """Return which parameter of ``OpenVLA`` the checkpoint's ``tensor`` is; None for one that the model never uses.

    Unused are the last block and the final norm of both vision transformers, and SigLIP's pooling.
    """
    depths = {"featurizer": config.dino.depth, "fused_featurizer": config.siglip.depth}
    if found := re.match(r"vision_backbone\.(\w+)\.(norm|attn_pool|blocks\.(\d+))\.", tensor):
        transformer, _, number = found.groups()
        if number is None or int(number) == depths.get(transformer, 0) - 1:
            return None
    if tensor.endswith(("ls1.scale_factor", "ls2.scale_factor")):
        return tensor.removesuffix(".scale_factor")
    return tensor.replace("language_model.model.", "language_model.", 1)


def load_model(
    checkpoint: Checkpoint, config: OpenVLAConfig, precision: Precision, device: torch.device, film: bool = False
) -> OpenVLA:
    """Return the checkpoint's network on ``device``; raises CheckpointError for tensors that do not fit.

    film: build a vision backbone with FiLM and leave it without weights: they come from a file of their own.
    Quantised are all linear layers but the language model's last, as transformers does it for the reference.
    """
    with parameters_on_meta():
        model = OpenVLA(config, film)
    later = "vision_backbone." if film else "nothing."
    quantise_linears(
        model, precision, device, only=lambda path: path != "language_model.lm_head" and not path.startswith(later)
    )
    load_weights(
        model,
        checkpoint.tensors(),
        rename=lambda tensor: None if tensor.startswith(later) else parameter_name(config, tensor),
        dtype=precision.dtype,
        device=device,
        optional=lambda name: name.startswith(later),
    )
    return model
