"""OpenVLA-OFT as the harness's policy: chunks of eight actions from two cameras and the robot's state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...checkpoints import module_bytes
from ...types import Observation, Policy, PolicySpec, random_generator
from .actions import token_values
from .decoding import padded_prompts
from .images import image_path, libero_images, plain_image
from .loading import OpenVLAParts
from .oft import CHUNK, ENTRIES, STATE
from .oft_weights import load_oft, reads_state

STATE_KEYS = ("eef_pos", "eef_axis_angle", "gripper_qpos")
RENDERED = 256
SLACK = 1e-8
"""What the reference adds to the bounds' difference before it scales by it."""


class OFTPolicy(Policy):
    """Eight actions for each set of frames. By an L1 head, a diffusion head, or as tokens, as the checkpoint has it."""

    def __init__(self, parts: OpenVLAParts, cameras: tuple[str, ...], center_crop: bool = True, seed: int = 0) -> None:
        """Load the weights; the arguments are those of ``openvla_policy``."""
        self.parts = parts
        parts.bounds("action")  # refused before the weights are read
        self._state_bounds = parts.bounds("proprio") if reads_state(parts.checkpoint) else None
        self.oft = load_oft(parts.checkpoint, parts.config, parts.precision, parts.device)
        self._attention = parts.attach_attention(self.oft)
        self._center_crop = center_crop
        self._seed = seed
        self._run = parts.fast(self._normalised)
        self.spec = PolicySpec(
            "openvla-oft",
            parts.convention.action,
            cameras=cameras,
            image_size=(RENDERED, RENDERED),
            image_orientation=parts.convention.image_orientation,
            state_keys=STATE_KEYS if self.oft.state is not None else (),
            horizon=CHUNK,
            protocol="openvla-oft",
            image_path=image_path(parts.convention.image_orientation, center_crop),
            max_batch=parts.batch,
            trained_on=parts.trained_on,
        )
        if parts.fixed_shapes:  # recorded or compiled now and not in the first episode
            images, words = np.zeros((1, len(cameras), 224, 224, 3), np.uint8), "pick up the black bowl"
            self._actions(images, [words], np.zeros((1, STATE)), np.zeros((1, CHUNK, ENTRIES)))

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        """Return (batch, 8, 7) float32 as the spec states them, by the image path of the reference's evaluations."""
        images = libero_images(observations, self.spec, self._center_crop)
        noise = np.stack(
            [random_generator(self._seed, o.episode, o.step).standard_normal((CHUNK, ENTRIES)) for o in observations]
        )
        states = np.stack([o.state for o in observations])
        actions = self._actions(images, [o.instruction for o in observations], states, noise)
        return self.parts.as_stated(actions)

    def predict_actions(
        self,
        images: Sequence[np.ndarray | Image.Image],
        instruction: str,
        state: np.ndarray | None = None,
        unnorm_key: str | None = None,
    ) -> np.ndarray:
        """Return (8, 7) float64 in the units of the data set, gripper as decoded, without JPEG and crop.

        images: one for each camera. state: (8,) as the data set has it, where the checkpoint reads it.
        """
        stacked = np.stack([plain_image(image) for image in images])[None]
        states = np.zeros((1, 0)) if state is None else np.asarray(state)[None]
        noise = random_generator(self._seed, "", 0).standard_normal((1, CHUNK, ENTRIES))
        return self._actions(stacked, [instruction], states, noise, unnorm_key)[0]

    @property
    def unnorm_keys(self) -> tuple[str, ...]:
        """The data sets whose statistics the checkpoint has."""
        return tuple(self.parts.statistics)

    @property
    def provenance(self) -> Mapping[str, Any]:
        """As OpenVLA's, and which head there is."""
        head = "tokens" if self.oft.head is None else "l1" if self.oft.noisy_action is None else "diffusion"
        return {
            **super().provenance,
            **self.parts.provenance,
            "attention": self._attention,
            "weights_bytes": module_bytes(self.oft),
            "action_head": head,
            "film": self.oft.model.film,
        }

    def _actions(
        self,
        images: np.ndarray,
        instructions: Sequence[str],
        states: np.ndarray,
        noise: np.ndarray,
        key: str | None = None,
    ) -> np.ndarray:
        """Return (B, 8, 7) float64 of (B, cameras, 224, 224, 3) uint8, (B, 8) states and (B, 8, 7) noise."""
        bounds = self.parts.bounds("action", key)
        if self._state_bounds is not None:
            states = self._state_bounds.normalise(np.asarray(states, np.float64))
        prompts = self.parts.prompts(instructions)
        chunks = []
        for first in range(0, len(prompts), self.parts.batch):
            rows = slice(first, first + self.parts.batch)
            with torch.inference_mode():
                chunks.append(self._chunks(images[rows], prompts[rows], states[rows], noise[rows]))
        values = np.concatenate(chunks)
        return bounds.unnormalise(values, SLACK)

    def _chunks(
        self, images: np.ndarray, prompts: Sequence[Sequence[int]], states: np.ndarray, noise: np.ndarray
    ) -> np.ndarray:
        """Return (B, 8, 7) float64 in [-1, 1]."""
        device = self.parts.device
        tokens, lengths = padded_prompts(prompts, device, self.parts.fixed_shapes)
        filled = np.arange(len(tokens)) % len(prompts)  # rows that only fill the batch repeat its first ones
        pixels = [self.parts.normalise(images[filled, camera]) for camera in range(images.shape[1])]
        state, start = (torch.from_numpy(part[filled]).float().to(device) for part in (states, noise))
        out = self._run(torch.cat(pixels, dim=1), tokens, lengths, state, start)[: len(prompts)].cpu().numpy()
        return token_values(out, self.parts.config) if self.oft.head is None else out.astype(np.float64)

    def _normalised(self, *tensors: torch.Tensor) -> torch.Tensor:
        """Return (B, 8, 7): actions in [-1, 1], fp32, or token ids. tensors: pixels, tokens, lengths, state, noise."""
        pixels, tokens, lengths, state, noise = tensors
        inputs = self.oft.inputs(pixels, tokens, lengths, state)
        if self.oft.head is None:
            return self.oft.tokens(inputs)
        return self.oft.regress(inputs) if self.oft.noisy_action is None else self.oft.denoise(inputs, noise)
