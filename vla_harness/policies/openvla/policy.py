"""OpenVLA as the harness's policy, and as the reference's ``predict_action``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...checkpoints import choose_device, choose_precision, find_checkpoint, module_bytes
from ...conventions import orient
from ...types import DELTA_EEF_POSE, Observation, Policy, PolicySpec
from .actions import Bounds, choose_key, libero_gripper, read_statistics, token_values
from .configuration import read_config
from .decoding import Decoder
from .images import PixelNormalisation, libero_image, plain_image
from .prompt import Prompt
from .weights import load_model

CAMERA = "agentview"
RENDERED = 256
ACTION_ENTRIES = DELTA_EEF_POSE.dim


class OpenVLAPolicy(Policy):
    """One action of seven tokens for each frame of one camera."""

    def __init__(
        self,
        checkpoint: str,
        precision: str | None = None,
        device: str = "auto",
        unnorm_key: str | None = None,
        revision: str | None = None,
        center_crop: bool = True,
        only_actions: bool = False,
    ) -> None:
        """Load the checkpoint, a folder or a hub id such as "openvla/openvla-7b-finetuned-libero-spatial".

        precision: "fp32", "bf16", "8bit" or "4bit"; None: bf16 on an accelerator, fp32 on the CPU.
        device: "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1".
        unnorm_key: data set whose statistics scale the actions; "_no_noops" is added where only that exists. None
            serves a checkpoint that has one set only.
        revision: the hub's branch, tag or commit.
        center_crop: crop LIBERO frames as the reference does for checkpoints trained with image augmentation.
        only_actions: choose each token among the action tokens; the reference chooses among all.
        Raises UserError before anything large is read if one of these cannot be met.
        """
        self._checkpoint = find_checkpoint(checkpoint, revision)
        self._device = choose_device(device)
        self._precision = choose_precision(precision, self._device)
        self._statistics = read_statistics(self._checkpoint)
        self.unnorm_key = choose_key(self._statistics, unnorm_key)
        self._config = read_config(self._checkpoint.json("config.json"), checkpoint)
        self._prompt = Prompt(self._checkpoint)
        self._normalise = PixelNormalisation(self._checkpoint.json("preprocessor_config.json"), self._device)
        self._center_crop = center_crop
        self.model = load_model(self._checkpoint, self._config, self._precision, self._device)
        # The outliers of LLM.int8 are looked for on the host, which a graph cannot hold.
        graphs = self._device.type == "cuda" and self._precision.bits != 8
        self._decoder = Decoder(self.model, ACTION_ENTRIES, only_actions, graphs)
        self.spec = PolicySpec(
            "openvla",
            DELTA_EEF_POSE,
            cameras=(CAMERA,),
            image_size=(RENDERED, RENDERED),
            image_orientation="mirrored",
            # LLM.int8 splits outlier columns off for a whole batch, so that only a batch of one row stays independent.
            max_batch=1 if self._precision.bits == 8 else 16,
        )
        if graphs:  # captured now and not in the first episode
            self._tokens(np.zeros((1, 224, 224, 3), np.uint8), ["pick up the black bowl and place it on the plate"])

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        """Return (batch, 1, 7) float32 as LIBERO takes them, by the image path of the reference's LIBERO evaluation."""
        frames = [orient(o.images[CAMERA], "upright", self.spec.image_orientation) for o in observations]
        images = np.stack([libero_image(frame, self._center_crop) for frame in frames])
        actions = self._actions(images, [o.instruction for o in observations], self.unnorm_key)
        return libero_gripper(actions)[:, None].astype(np.float32)

    def predict_action(
        self, image: np.ndarray | Image.Image, instruction: str, unnorm_key: str | None = None
    ) -> np.ndarray:
        """Return (7,) float64, in the units of the data set, gripper as decoded: the reference's ``predict_action``.

        image: as the model was trained on it, (H, W, 3) uint8, stretched to 224 x 224; no JPEG, no crop.
        unnorm_key: None means the one given at load. Raises UserError that lists the keys for an unknown one.
        """
        key = self.unnorm_key if unnorm_key is None else choose_key(self._statistics, unnorm_key)
        return self._actions(plain_image(image)[None], [instruction], key)[0]

    @property
    def unnorm_keys(self) -> tuple[str, ...]:
        """Return the data sets whose statistics the checkpoint has."""
        return tuple(self._statistics)

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Checkpoint, its hash and commit, precision, device, statistics and the memory of the weights."""
        return {
            **self._checkpoint.provenance,
            "precision": self._precision.name,
            "device": str(self._device),
            "unnorm_key": self.unnorm_key,
            "center_crop": self._center_crop,
            "weights_bytes": module_bytes(self.model),
        }

    def _actions(self, images: np.ndarray, instructions: Sequence[str], key: str) -> np.ndarray:
        """Return (B, 7) float64 of (B, 224, 224, 3) uint8."""
        bounds = Bounds.of(self._statistics[key]["action"])
        return bounds.unnormalise(token_values(self._tokens(images, instructions), self._config))

    def _tokens(self, images: np.ndarray, instructions: Sequence[str]) -> np.ndarray:
        """Return (B, 7) int64 token ids, ``spec.max_batch`` rows at a time."""
        prompts = [self._prompt.tokens(instruction) for instruction in instructions]
        answers = []
        for first in range(0, len(prompts), self.spec.max_batch):
            rows = slice(first, first + self.spec.max_batch)
            with torch.inference_mode():
                pixels = self._normalise(images[rows])
            answers.append(self._decoder(pixels, prompts[rows]))
        return np.concatenate(answers)
