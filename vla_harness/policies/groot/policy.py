"""GR00T N1.5 as a policy, with the calls of the harness (``act``) and of NVIDIA's ``Gr00tPolicy`` (``get_action``)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tformer.values import PositiveInt, Seed

from ...conventions import orient
from ...errors import UserError
from ...types import Observation, Policy, PolicySpec, random_generator
from ..graphs import GraphedCall
from .action_head import Sampler
from .assembly import GROOT_3B, GrootParts, open_groot
from .embodiments import NO_CONVENTION
from .images import IMAGE_PATHS, middle_crop, whole_frame
from .prompts import PromptStyle
from .transforms import Inputs

_FRAMES = {"nvidia": middle_crop, "lerobot": whole_frame}


class GrootPolicy(Policy):
    """GR00T N1.5: chunks of 16 actions by flow matching, from noise of (seed, episode, step)."""

    def __init__(
        self,
        checkpoint: str = GROOT_3B,
        tokenizer: str | None = None,
        embodiment: str = "new_embodiment",
        data_config: str = "libero",
        precision: str | None = None,
        device: str = "auto",
        seed: Seed = 0,
        denoising_steps: PositiveInt | None = None,
        prompt: PromptStyle = "policy",
        frames: Literal["nvidia", "lerobot"] = "nvidia",
        base: str | None = None,
        metadata: str | None = None,
        compile: bool = False,
        batch: PositiveInt = 1,
    ) -> None:
        """Load a checkpoint, as ``open_groot`` does.

        Args:
            checkpoint: A folder or hub id, in NVIDIA's layout or lerobot's.
            tokenizer: A folder or hub id with Eagle's tokenizer; None for the checkpoint's own, else the hub's.
            embodiment: Whose statistics and weights apply, such as new_embodiment or gr1.
            data_config: A built-in data configuration, such as so100_dualcam, or a .toml file.
            precision: fp32, bf16, 8bit or 4bit; None: bf16 on an accelerator, fp32 on the CPU.
            device: auto (CUDA where there is one), cpu, cuda or cuda:N.
            seed: Of the noise.
            denoising_steps: Steps of flow matching; None for the checkpoint's own number.
            prompt: How the words enter the prompt, as in NVIDIA's inference (policy) or its training (train).
            frames: How frames are made small, as NVIDIA's code or lerobot's.
            base: Checkpoint that states the sizes and statistics that this one leaves out, as lerobot's layout does;
                None for the one that it names itself, or the 3B model.
            metadata: A metadata.json whose statistics are used instead of the checkpoint's.
            compile: Use torch.compile on CUDA, which takes minutes.
            batch: Rows that the network computes together. With 1 an action never depends on the other rows; more is
                faster on GPUs, and changes the last digits.
        """
        parts = open_groot(checkpoint, tokenizer, embodiment, data_config, precision, device, base, metadata)
        self._begin(parts, seed, denoising_steps, prompt, frames, compile, batch)

    @classmethod
    def of(cls, parts: GrootParts, seed: int = 0, prompt: PromptStyle = "policy") -> GrootPolicy:
        """Return a policy of an opened network, for its present weights: make a new one when they have changed."""
        policy = cls.__new__(cls)
        policy._begin(parts, seed, None, prompt, "nvidia", False, batch=16)
        return policy

    def _begin(
        self,
        parts: GrootParts,
        seed: int,
        steps: int | None,
        prompt: PromptStyle,
        frames: str,
        compiled: bool,
        batch: int,
    ) -> None:
        self.parts = parts
        self._seed, self._frames = seed, _FRAMES[frames]
        self._prompt: PromptStyle = prompt
        self._calls = np.random.default_rng(seed)
        self._sampler = Sampler(parts.model.head, steps)
        self._network: Callable[..., Tensor] = self._forward
        if parts.device.type == "cuda":
            # Not measured on a GPU yet. Quantised layers choose by values, which no graph can record.
            forward = torch.compile(self._forward, dynamic=False) if compiled else self._forward
            self._network = forward if parts.precision.bits else GraphedCall(forward)
        config, head = parts.transforms.config, parts.model.config.head
        robot = config.robot
        orientation = robot.image_orientation if robot else "upright"
        self.spec = PolicySpec(
            name="groot",
            action=robot.action if robot else NO_CONVENTION,
            cameras=robot.cameras if robot else config.video,
            image_size=robot.image_size if robot else None,
            image_orientation=orientation,
            state_keys=robot.state_keys if robot else config.state,
            horizon=head.action_horizon,
            protocol="groot",
            image_path=f"{orientation.replace('_', ' ')}, {IMAGE_PATHS[frames]}",
            max_batch=batch,
        )

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        """Return (batch, 16, D) float32: the action keys of the data configuration side by side.

        The images of the observations are named by ``spec.cameras``, their state is ``spec.state_keys`` side by side.
        A row is what it would be alone, to the last bit where rows are computed one by one (``batch``).
        """
        rows = [self.parts.transforms.inputs(self._modalities(o), self._prompt, self._frames) for o in observations]
        noise = np.stack([self._noise(random_generator(self._seed, o.episode, o.step)) for o in observations])
        actions = self.parts.transforms.actions(self._normalised(rows, noise))
        return np.concatenate(list(actions.values()), axis=-1, dtype=np.float32)

    def get_action(self, observations: Mapping[str, Any], noise: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Return "action.KEY" -> (16, D) float32 in the dataset's units, or (batch, 16, D) for a batch.

        observations: "video.KEY" (1, H, W, 3) uint8, "state.KEY" (1, D) and "annotation.…" [instruction]; in a batch
        all have one axis more in front, the annotation one instruction per row.
        noise: (batch, 16, 32), the start; None draws it from the policy's seed, anew at each call. Rows whose prompts
        differ in length run apart, because the network does not mask padding. Raises UserError for missing keys.
        """
        states = [value for name, value in observations.items() if name.startswith("state.")]
        batched = bool(states) and np.ndim(states[0]) == 3
        examples = _rows(observations, len(states[0])) if batched else [observations]
        rows = [self.parts.transforms.inputs(example, self._prompt, self._frames) for example in examples]
        start = np.stack([self._noise(self._calls) for _ in rows]) if noise is None else np.asarray(noise)
        actions = self.parts.transforms.actions(self._normalised(rows, start))
        return actions if batched else {name: value[0] for name, value in actions.items()}

    def get_modality_config(self) -> dict[str, dict[str, list[Any]]]:
        """Return what ``get_action`` reads and writes, as ``Gr00tPolicy`` states it."""
        return self.parts.transforms.config.modality_config

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What made the numbers; the statistics count, because they scale every action."""
        parts = self.parts
        entry = json.dumps(parts.transforms.metadata, sort_keys=True).encode()
        return {
            **super().provenance,
            **parts.checkpoint.provenance,
            "precision": parts.precision.name,
            "device": str(parts.device),
            "embodiment": parts.embodiment,
            "data_config": parts.transforms.config.name,
            "statistics_sha256": hashlib.sha256(entry).hexdigest(),
            "denoising_steps": self._sampler.steps,
        }

    def _modalities(self, observation: Observation) -> dict[str, Any]:
        """Return ``observation`` as the dictionary that the transforms read."""
        transforms = self.parts.transforms
        example: dict[str, Any] = {transforms.config.language: observation.instruction}
        for camera, key in zip(self.spec.cameras, transforms.config.video, strict=True):
            frame = orient(observation.images[camera], "upright", self.spec.image_orientation)
            example[f"video.{key}"] = frame
        start = 0
        for key, width in transforms.state_widths.items():
            example[f"state.{key}"] = observation.state[None, start : start + width]
            start += width
        return example

    def _normalised(self, rows: Sequence[Inputs], noise: np.ndarray) -> np.ndarray:
        """Return (batch, 16, 32) float32; at most ``spec.max_batch`` rows, of equal length, run together."""
        together: dict[int, list[int]] = {}
        for i, row in enumerate(rows):
            together.setdefault(len(row.tokens), []).append(i)
        actions = np.empty(noise.shape, np.float32)
        most = self.spec.max_batch
        for group in (same[i : i + most] for same in together.values() for i in range(0, len(same), most)):
            chosen = [rows[i] for i in group]
            tensors = (
                torch.cat([row.pixels for row in chosen]),
                torch.tensor([row.tokens for row in chosen]),
                torch.stack([row.state for row in chosen]),
                torch.from_numpy(noise[group]).float(),
            )
            with torch.inference_mode():
                actions[group] = self._network(*(tensor.to(self.parts.device) for tensor in tensors)).cpu().numpy()
        return actions

    def _forward(self, pixels: Tensor, tokens: Tensor, state: Tensor, noise: Tensor) -> Tensor:
        features = self.parts.model.backbone(pixels.to(self.parts.precision.dtype), tokens)
        return self._sampler(features, state, noise, self.parts.transforms.slot)

    def _noise(self, generator: np.random.Generator) -> np.ndarray:
        head = self.parts.model.config.head
        return generator.standard_normal((head.action_horizon, head.action_dim)).astype(np.float32)


def _rows(observations: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    """Return the rows of a batch; raises UserError for an entry with another number of rows."""
    for name, value in observations.items():
        if len(value) != count:
            raise UserError(f"The observation {name!r} has {len(value)} rows, and the state has {count}.")
    return [{name: value[i] for name, value in observations.items()} for i in range(count)]
