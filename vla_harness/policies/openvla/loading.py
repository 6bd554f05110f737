"""What every OpenVLA policy reads from a checkpoint, and the choice of the policy by what the checkpoint holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ...checkpoints import Checkpoint, Fields, Precision, choose_device, choose_precision, find_checkpoint
from ...checkpoints.files import DOWNLOADED
from ...errors import CheckpointError, UserError
from ..graphs import GraphedCall
from .actions import Bounds, choose_key, libero_gripper, read_statistics, statistics_fields
from .attention import use_attention
from .configuration import OpenVLAConfig, read_config
from .datasets import LIBERO, DatasetConvention, dataset_convention, trained_on
from .images import PixelNormalisation
from .prompt import Prompt

ENTRIES = {"action": 7, "proprio": 8}
"""Numbers of an action, and of the robot's state that OFT reads."""


@dataclass(frozen=True)
class OpenVLAParts:
    """A checkpoint opened, all but its weights.

    statistics: key -> statistics of a data set. unnorm_key: the one of them that applies. attn: what attention is to
        run on. compiled: whether torch.compile makes kernels of its own for the network. convention: of the actions.
    batch: rows that the network computes together; with more than 1, kernels may choose another order of sums, and a
    row may change with the others.
    """

    checkpoint: Checkpoint
    config: OpenVLAConfig
    device: torch.device
    precision: Precision
    statistics: Mapping[str, Any]
    unnorm_key: str
    attn: str
    prompt: Prompt
    normalise: PixelNormalisation
    compiled: bool = False
    convention: DatasetConvention = LIBERO
    batch: int = 1

    @property
    def fixed_shapes(self) -> bool:
        """Whether batches are padded to few shapes, because each new one is recorded or compiled anew."""
        return self.graphs or self.compiled

    def fast(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Return ``function`` of tensors, compiled where that was asked for, as CUDA graphs where they serve."""
        if self.compiled:
            function = torch.compile(function, dynamic=False)
        return GraphedCall(function) if self.graphs else function

    @property
    def graphs(self) -> bool:
        """Whether CUDA graphs serve: LLM.int8 looks for outliers on the host, which a graph cannot hold."""
        return self.device.type == "cuda" and self.precision.bits != 8

    @property
    def provenance(self) -> dict[str, Any]:
        """What the results keep of it."""
        return {
            **self.checkpoint.provenance,
            "precision": self.precision.name,
            "device": str(self.device),
            "unnorm_key": self.unnorm_key,
            "action_convention": self.convention.name,
            "compiled": self.compiled,
        }

    def attach_attention(self, model: nn.Module) -> str:
        """Let ``model`` run on the attention asked for, and return which that is; raises UserError if it cannot."""
        return use_attention(model, self.attn, self.device, self.precision.dtype)

    def dataset(self, key: str | None = None) -> Fields:
        """Return the statistics under ``key``, None for the one chosen at load; raises UserError for an unknown one."""
        stored = statistics_fields(self.checkpoint)
        chosen = self.unnorm_key if key is None else choose_key(self.statistics, key)
        return Fields(self.statistics, stored.where, stored.path).section(chosen)

    def bounds(self, part: Literal["action", "proprio"], key: str | None = None) -> Bounds:
        """Return the bounds of ``part`` under ``key``, None for the one chosen at load.

        Raises UserError that lists the keys for an unknown one, CheckpointError for statistics that are not complete.
        """
        entry = self.dataset(key)
        if not entry.has(part):
            raise CheckpointError(
                f"The statistics {entry.path.removeprefix('norm_stats.')!r} of {self.checkpoint.name} say nothing of"
                f" {part}: {entry.where} needs its q01 and q99."
            )
        return Bounds.of(entry.section(part), ENTRIES[part])

    @property
    def trained_on(self) -> tuple[str, ...] | None:
        """What the data of the unnorm key teach; see ``PolicySpec``."""
        return trained_on(self.unnorm_key, self.dataset())

    def as_stated(self, actions: np.ndarray) -> np.ndarray:
        """Return (..., 7) float32 in the stated convention of (..., 7) decoded ones."""
        return (libero_gripper(actions) if self.convention.libero_gripper else actions).astype(np.float32)

    def prompts(self, instructions: Sequence[str]) -> list[list[int]]:
        """Return the prompts' token ids."""
        return [self.prompt.tokens(instruction) for instruction in instructions]


def open_openvla(
    checkpoint: str,
    precision: str | None,
    device: str,
    unnorm_key: str | None,
    revision: str | None,
    attn: str,
    compiled: bool = False,
    action_convention: str | None = None,
    batch: int = 1,
) -> OpenVLAParts:
    """Open a checkpoint as ``openvla_policy`` describes its options, before anything large is read."""
    found = find_checkpoint(checkpoint, revision, files=(*DOWNLOADED, "*--*_checkpoint.pt"))
    found.require("openvla")
    if batch < 1:
        raise UserError(f"batch is {batch}: give at least 1.")
    chosen_device = choose_device(device)
    statistics = read_statistics(found)
    parts = OpenVLAParts(
        checkpoint=found,
        config=read_config(found.json("config.json"), checkpoint),
        device=chosen_device,
        precision=choose_precision(precision, chosen_device),
        statistics=statistics,
        unnorm_key=choose_key(statistics, unnorm_key),
        attn=attn,
        prompt=Prompt(found),
        normalise=PixelNormalisation(found.fields("preprocessor_config.json"), chosen_device),
        compiled=compiled,
        batch=batch,
    )
    if parts.prompt.vocabulary > parts.config.language.vocabulary:
        raise CheckpointError(
            f"tokenizer.json of {checkpoint} has {parts.prompt.vocabulary} tokens, and the network embeds"
            f" {parts.config.language.vocabulary}: give the files of one checkpoint."
        )
    convention = dataset_convention(parts.unnorm_key, parts.dataset(), action_convention)
    return replace(parts, convention=convention)
