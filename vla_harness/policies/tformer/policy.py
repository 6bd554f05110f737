"""The policy from scratch: two cameras, the robot's state and the instruction to a chunk of actions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tformer.values import NonNegativeFloat, PositiveInt, Seed

from ...checkpoints.files import Checkpoint, find_checkpoint
from ...checkpoints.precision import choose_device
from ...conventions import state_lengths
from ...errors import UserError
from ...types import DELTA_EEF_POSE, Observation, Policy, PolicySpec, random_generator
from .checkpoint import images_to_network, read_policy

SHIPPED = Path(__file__).parent / "shipped"
"""The checkpoint that comes with the package."""


class TformerPolicy(Policy):
    """The small policy that comes with the package, or another checkpoint of ``vla_harness.train tformer``.

    It denoises a chunk of actions from noise of (seed, episode, step), and plays it or its beginning. One observation
    at a time, so that an action never depends on the batch around it; the network is small.
    """

    def __init__(
        self,
        checkpoint: str | None = None,
        device: str = "auto",
        seed: Seed = 0,
        execute: PositiveInt | None = None,
        ensemble: NonNegativeFloat | None = None,
    ) -> None:
        """Load a checkpoint.

        Args:
            checkpoint: A folder or hub id; None for the one that comes with the package.
            device: auto (a GPU where there is one), cpu, cuda or cuda:N.
            seed: Of the noise.
            execute: Actions played of each chunk before the next look (receding horizon); None for half of them.
            ensemble: Look at every step instead, and play the mean of all chunks' actions for this moment, the i-th
                newest weighted by exp(-ensemble * i) (ACT, arXiv:2304.13705, counts from the oldest).
        """
        found = Checkpoint("shipped with vla-harness", SHIPPED) if checkpoint is None else find_checkpoint(checkpoint)
        self._device = choose_device(device)
        self.card, network = read_policy(found)
        self.network = network.to(self._device)
        self._found, self._seed, self._ensemble = found, seed, ensemble
        horizon = self.card.network.horizon
        played = 1 if ensemble is not None else max(1, horizon // 2) if execute is None else execute
        if not 1 <= played <= horizon:
            raise UserError(
                f"execute is {execute}, and the checkpoint's chunks have {horizon} actions: give 1 to that."
            )
        if ensemble is not None and (execute is not None or ensemble < 0):
            raise UserError("ensemble looks at every step and takes a weight of 0 or more: give it without execute.")
        self._chunks: dict[str, list[tuple[int, np.ndarray]]] = {}
        spec = PolicySpec(
            "tformer",
            DELTA_EEF_POSE,
            cameras=self.card.cameras,
            image_size=self.card.image_size,
            state_keys=self.card.state_keys,
            horizon=played,
            protocol="vla-harness",
            image_path="as rendered",
            trained_on=self.card.tasks,
        )
        self.spec = replace(spec, state_lengths=_lengths(spec, self.card.network.state_dim))

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        """Return (batch, horizon, 7) float32."""
        return np.stack([self._act(observation) for observation in observations])

    def forget(self, episode: str) -> None:
        """Drop the chunks that the ensemble keeps for ``episode``."""
        self._chunks.pop(episode, None)

    @property
    def provenance(self) -> Mapping[str, Any]:
        """See Policy."""
        return {
            **super().provenance,
            **self._found.provenance,
            "precision": "fp32",
            "device": str(self._device),
            "execute": self.spec.horizon,
            "trained_on": list(self.card.training.get("datasets", ())),
        }

    def chunk(self, observation: Observation) -> np.ndarray:
        """Return all actions that the network draws for one observation, (T, 7) float32."""
        card = self.card
        frames = np.stack([observation.images[camera] for camera in card.cameras])  # (K, H, W, 3)
        state = torch.from_numpy(card.state.normalise(observation.state))
        noise = random_generator(self._seed, observation.episode, observation.step)
        generator = torch.Generator(self._device).manual_seed(int(noise.integers(2**62)))
        with _one_thread():
            drawn = self.network.act(
                images_to_network(frames[None]).to(self._device),
                state[None].to(self._device),
                card.tokens([observation.instruction]).to(self._device),
                [generator],
            )
        return card.actions(drawn[0].cpu().numpy())

    def _act(self, observation: Observation) -> np.ndarray:
        chunk = self.chunk(observation)
        if self._ensemble is None:
            return chunk[: self.spec.horizon]
        # Chunks of this step or later ones are of a question asked again, or of an earlier episode of the same name.
        known = self._chunks.get(observation.episode, [])
        earlier = [(step, actions) for step, actions in known if 0 < observation.step - step < len(actions)]
        chunks = self._chunks[observation.episode] = [*earlier, (observation.step, chunk)]
        weights = np.exp(-self._ensemble * np.arange(len(chunks))[::-1])
        now = np.stack([actions[observation.step - step] for step, actions in chunks])
        return (weights[:, None] * now).sum(0, keepdims=True).astype(np.float32) / np.float32(weights.sum())


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread meanwhile: sums over several end in other last bits, on a machine with more cores too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _lengths(spec: PolicySpec, total: int) -> tuple[int, ...]:
    """Return the lengths of the state parts, which are ``total`` numbers together: one at most is not told by its name.

    () where the names tell all, or where more are not told: then only the sum can be checked.
    """
    lengths = state_lengths(spec)
    if lengths.count(None) != 1:
        return ()
    rest = total - sum(length for length in lengths if length is not None)
    return tuple(rest if length is None else length for length in lengths)
