"""What every OpenVLA policy reads from a checkpoint, and the choice of the policy by what the checkpoint holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...checkpoints import Checkpoint, Precision, choose_device, choose_precision, find_checkpoint
from ...checkpoints.files import DOWNLOADED
from ...errors import UserError
from ..graphs import GraphedCall
from .actions import Bounds, choose_key, read_statistics
from .attention import use_attention
from .configuration import OpenVLAConfig, read_config
from .images import PixelNormalisation
from .prompt import Prompt


@dataclass(frozen=True)
class OpenVLAParts:
    """A checkpoint opened, all but its weights.

    statistics: key -> statistics of a data set. unnorm_key: the one of them that applies. attn: what attention is to
        run on. compiled: whether torch.compile makes kernels of its own for the network.
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
    def max_batch(self) -> int:
        """Most rows a batch may have. LLM.int8 splits outliers off for all rows, so that only one stays independent."""
        return 1 if self.precision.bits == 8 else 16

    @property
    def provenance(self) -> dict[str, Any]:
        """What the results keep of it."""
        return {
            **self.checkpoint.provenance,
            "precision": self.precision.name,
            "device": str(self.device),
            "unnorm_key": self.unnorm_key,
            "compiled": self.compiled,
        }

    def attach_attention(self, model: nn.Module) -> str:
        """Let ``model`` run on the attention asked for, and return which that is; raises UserError if it cannot."""
        return use_attention(model, self.attn, self.device, self.precision.dtype)

    def bounds(self, part: str, key: str | None = None) -> Bounds:
        """Return the bounds of "action" or "proprio" under ``key``, None for the one chosen at load.

        Raises UserError that lists the keys for an unknown one.
        """
        chosen = self.unnorm_key if key is None else choose_key(self.statistics, key)
        if part not in self.statistics[chosen]:
            raise UserError(f"The statistics {chosen!r} of {self.checkpoint.name} say nothing of {part}.")
        return Bounds.of(self.statistics[chosen][part])

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
) -> OpenVLAParts:
    """Open a checkpoint as ``openvla_policy`` describes its options, before anything large is read."""
    found = find_checkpoint(checkpoint, revision, files=(*DOWNLOADED, "*--*_checkpoint.pt"))
    found.require("openvla")
    chosen_device = choose_device(device)
    statistics = read_statistics(found)
    return OpenVLAParts(
        checkpoint=found,
        config=read_config(found.json("config.json"), checkpoint),
        device=chosen_device,
        precision=choose_precision(precision, chosen_device),
        statistics=statistics,
        unnorm_key=choose_key(statistics, unnorm_key),
        attn=attn,
        prompt=Prompt(found),
        normalise=PixelNormalisation(found.json("preprocessor_config.json"), chosen_device),
        compiled=compiled,
    )
