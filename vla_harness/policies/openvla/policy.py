"""OpenVLA as the harness's policy, and as the reference's ``predict_action``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from tformer.values import PositiveInt, Seed

from ...checkpoints import module_bytes
from ...types import DELTA_EEF_POSE, Observation, Policy, PolicySpec
from .actions import token_values
from .decoding import Decoder
from .images import image_path, libero_images, plain_image
from .loading import OpenVLAParts, open_openvla
from .oft_policy import OFTPolicy
from .oft_weights import is_oft
from .weights import load_model

CAMERA = "agentview"
RENDERED = 256


def openvla_policy(
    checkpoint: str,
    precision: str | None = None,
    device: str = "auto",
    unnorm_key: str | None = None,
    revision: str | None = None,
    attn: Literal["auto", "sdpa", "flash"] = "auto",
    center_crop: bool = True,
    only_actions: bool = False,
    cameras: Sequence[str] = ("agentview", "wrist"),
    seed: Seed = 0,
    compile: bool = False,
    variant: Literal["auto", "openvla", "oft"] = "auto",
    action_convention: Literal["libero", "bridge", "unknown"] | None = None,
    batch: PositiveInt = 1,
) -> OpenVLAPolicy | OFTPolicy:
    """OpenVLA and OpenVLA-OFT, from checkpoints in the original layout.

    A checkpoint that holds OFT's action head, state projector or FiLM backbone becomes an ``OFTPolicy``, any other an
    ``OpenVLAPolicy``.

    Args:
        checkpoint: A folder or hub id, such as openvla/openvla-7b-finetuned-libero-spatial.
        precision: fp32, bf16, 8bit or 4bit; None: bf16 on an accelerator, fp32 on the CPU.
        device: auto (CUDA where there is one), cpu, cuda or cuda:N.
        unnorm_key: Data set whose statistics scale the actions; "_no_noops" is added where only that exists. None
            serves a checkpoint that has one set only.
        revision: The hub's branch, tag or commit.
        attn: auto (flash-attn where it is installed and can serve, else torch's attention), sdpa or flash.
        center_crop: Crop LIBERO frames as the reference does for checkpoints trained with image augmentation.
        only_actions: Choose each token among the action tokens; the reference chooses among all. Not for OFT.
        cameras: What an OFT checkpoint was trained on, in this order. OpenVLA itself reads the first.
        seed: Of the noise that OFT's diffusion head begins with.
        compile: Use torch.compile before the first episode, which takes minutes; needs a C++ compiler on the CPU.
        variant: openvla or oft instead of what the folder's files show; oft without an action head writes tokens.
        action_convention: What the actions of the unnorm key's data mean: libero, bridge (metres, radians, gripper 1
            open) or unknown, which no environment accepts. None: what is known of the key.
        batch: Rows that the network computes together. With 1 an action never depends on the other rows; more is faster
            on GPUs, and may change an action that is nearly a tie.

    Raises UserError before anything large is read if one of these cannot be met.
    """
    parts = open_openvla(checkpoint, precision, device, unnorm_key, revision, attn, compile, action_convention, batch)
    if is_oft(parts.checkpoint, parts.dataset(), variant):
        return OFTPolicy(parts, tuple(cameras), center_crop, seed)
    return OpenVLAPolicy(parts, center_crop, only_actions)


class OpenVLAPolicy(Policy):
    """One action of seven tokens for each frame of one camera."""

    def __init__(self, parts: OpenVLAParts, center_crop: bool = True, only_actions: bool = False) -> None:
        """Load the weights; the arguments are those of ``openvla_policy``."""
        self.parts = parts
        parts.bounds("action")  # refused before the weights are read
        self.model = load_model(parts.checkpoint, parts.config, parts.precision, parts.device)
        self._attention = parts.attach_attention(self.model)
        self._center_crop = center_crop
        self._decoder = Decoder(self.model, DELTA_EEF_POSE.dim, only_actions, parts.fixed_shapes, parts.fast)
        self.spec = PolicySpec(
            "openvla",
            parts.convention.action,
            cameras=(CAMERA,),
            image_size=(RENDERED, RENDERED),
            protocol="openvla",
            image_path=image_path(parts.convention.image_orientation, center_crop),
            image_orientation=parts.convention.image_orientation,
            max_batch=parts.batch,
            trained_on=parts.trained_on,
        )
        if parts.fixed_shapes:  # recorded or compiled now and not in the first episode
            self._actions(np.zeros((1, 224, 224, 3), np.uint8), ["pick up the black bowl and place it on the plate"])

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        """Return (batch, 1, 7) float32 as the spec states them, by the image path of the reference's evaluations."""
        images = libero_images(observations, self.spec, self._center_crop)
        actions = self._actions(images[:, 0], [o.instruction for o in observations])
        return self.parts.as_stated(actions)[:, None]

    def predict_action(
        self, image: np.ndarray | Image.Image, instruction: str, unnorm_key: str | None = None
    ) -> np.ndarray:
        """Return (7,) float64, in the units of the data set, gripper as decoded: the reference's ``predict_action``.

        image: as the model was trained on it, (H, W, 3) uint8, stretched to 224 x 224; no JPEG, no crop.
        unnorm_key: None means the one given at load. Raises UserError that lists the keys for an unknown one.
        """
        return self._actions(plain_image(image)[None], [instruction], unnorm_key)[0]

    @property
    def unnorm_keys(self) -> tuple[str, ...]:
        """The data sets whose statistics the checkpoint has."""
        return tuple(self.parts.statistics)

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Checkpoint, its hash and commit, precision, device, statistics and the memory of the weights."""
        return {
            **super().provenance,
            **self.parts.provenance,
            "attention": self._attention,
            "weights_bytes": module_bytes(self.model),
        }

    def _actions(self, images: np.ndarray, instructions: Sequence[str], key: str | None = None) -> np.ndarray:
        """Return (B, 7) float64 of (B, 224, 224, 3) uint8, ``spec.max_batch`` rows at a time."""
        bounds = self.parts.bounds("action", key)
        prompts = self.parts.prompts(instructions)
        answers = []
        for first in range(0, len(prompts), self.parts.batch):
            rows = slice(first, first + self.parts.batch)
            with torch.inference_mode():
                pixels = self.parts.normalise(images[rows])
            answers.append(self._decoder(pixels, prompts[rows]))
        return bounds.unnormalise(token_values(np.concatenate(answers), self.parts.config))
