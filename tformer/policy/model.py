"""VisuomotorPolicy: cameras, state and instruction -> observation tokens -> an action head over chunks.

    words  -> instruction encoder -> one token, which also steers the cameras' networks
    images -> one CameraEncoder each -> 5 tokens each
    state  -> one token
    all    -> observation transformer -> condition of the action head

A second, small output says where the thing to be handled is and where it is to go. Demonstrations in simulation know
that; learning it makes the cameras look for what matters (an auxiliary loss), and the head reads the estimate as one
more token.

Shapes: B batch, K cameras, S observation tokens, C ``d_model``, T ``horizon``, A ``action_dim``, N noise draws.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..diffusion.action_head import ActionHead, ActionHeadConfig
from ..diffusion.process import ProcessConfig, SamplerConfig
from ..diffusion.samplers import Generators
from ..layers import TokenEmbedding
from ..tokenizers import PADDING
from ..transformer import EncoderLayer, TransformerConfig
from .regression import RegressionHead
from .vision import CameraEncoder

PROCESSES = {
    "diffusion": (ProcessConfig("diffusion", "cosine", 100, "x0"), SamplerConfig("ddim", steps=10)),
    "flow": (ProcessConfig("flow"), SamplerConfig("euler", steps=4)),
}

HeadKind = Literal["diffusion", "flow", "regression"]


@dataclass(frozen=True)
class HeadConfig:
    """How actions come out of the observation tokens."""

    kind: HeadKind = "diffusion"
    """Denoise by DDIM in 10 steps, by flow matching in 4, or regress (as ACT does)."""
    layers: int = 2
    """Transformer blocks."""


@dataclass(frozen=True)
class PolicyConfig:
    """Everything that fixes the network."""

    vocabulary: int
    """Words of the instruction encoder."""
    reduce: tuple[int, ...] = (1, 2)
    """One entry for each of the K cameras: its frames are first averaged over cells of this many pixels a side. What
    the hand sees is near, so that half the resolution does."""
    state_dim: int = 8
    """Entries of the robot's state."""
    aim_dim: int = 6
    """Entries of the auxiliary output; 0 where the data have none."""
    action_dim: int = 7
    """A, numbers per action."""
    horizon: int = 16
    """T, actions per chunk."""
    d_model: int = 128
    """C, width of a token."""
    layers: int = 2
    """Blocks of the observation transformer."""
    heads: int = 4
    """Attention heads."""
    width: int = 32
    """Channels of a camera's network at a quarter of the resolution."""
    keypoints: int = 32
    """Keypoints per camera."""
    words: int = 32
    """Longest instruction in words."""
    language: bool = True
    """False blanks the instruction: what the words are worth."""
    head: HeadConfig = field(default_factory=HeadConfig)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for ``from_dict``."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PolicyConfig:
        """Return the configuration that ``to_dict`` wrote."""
        return cls(**(values | {"head": HeadConfig(**values["head"]), "reduce": tuple(values["reduce"])}))


class InstructionEncoder(nn.Module):
    """A transformer over the words, then their mean."""

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        self.words = TokenEmbedding(config.vocabulary, config.d_model)
        self.positions = nn.Parameter(torch.randn(config.words, config.d_model) * 0.02)
        self.layers = encoder_layers(config, 2)
        self.blank = not config.language

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: (B, W) integers, padded with PADDING. Returns (B, C)."""
        if self.blank:
            tokens = torch.full_like(tokens[:, :1], PADDING + 1)
        real = tokens != PADDING  # (B, W)
        x = self.words(tokens) + self.positions[: tokens.size(1)]  # (B, W, C)
        for layer in self.layers:
            x = layer(x, real[:, None, None, :])  # (B, W, C)
        return (x * real[..., None]).sum(1) / real.sum(1, keepdim=True).clamp(min=1)  # (B, C)


def encoder_layers(config: PolicyConfig, count: int) -> nn.ModuleList:
    """Return ``count`` pre-norm blocks of the width of ``config``."""
    shape = TransformerConfig(
        1, 1, d_model=config.d_model, heads=config.heads, d_ff=4 * config.d_model, dropout=0.0,
        norm_first=True, activation="gelu",
    )  # fmt: skip
    return nn.ModuleList(EncoderLayer(shape, None) for _ in range(count))


class VisuomotorPolicy(nn.Module):
    """The network. Images, state, aims and actions are normalised by whoever calls it."""

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        self.config = config
        width = config.d_model
        self.instruction = InstructionEncoder(config)
        self.cameras = nn.ModuleList(
            CameraEncoder(config.width, config.keypoints, width, reduce) for reduce in config.reduce
        )
        self.state = nn.Sequential(nn.Linear(config.state_dim, width), nn.GELU(), nn.Linear(width, width))
        self.kinds = nn.Parameter(torch.randn(2 + len(config.reduce), width) * 0.02)
        self.layers = encoder_layers(config, config.layers)
        self.norm = nn.LayerNorm(width)
        self.aim = nn.Sequential(nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, max(1, config.aim_dim)))
        self.aim_token = nn.Sequential(
            nn.Linear(config.state_dim + max(1, config.aim_dim), width), nn.GELU(), nn.Linear(width, width)
        )
        shape = ActionHeadConfig(config.action_dim, config.horizon, width, width, config.head.layers, config.heads)
        self.head: ActionHead
        if config.head.kind == "regression":
            self.head = RegressionHead(shape)
        else:
            process, sampler = PROCESSES[config.head.kind]
            self.head = ActionHead(replace(shape, process=process, sampler=sampler))

    def observe(self, images: Tensor, state: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """Return the head's condition, (B, S, C), and the aims, (B, aim_dim).

        images: (B, K, 3, H, W) about -1 … 1; state: (B, state_dim); words: (B, W) integers, padded with PADDING.
        """
        different, which = words.unique(dim=0, return_inverse=True)  # a batch repeats a few instructions
        told = self.instruction(different)[which]  # (B, C)
        proprioception = self.state(state)  # (B, C)
        tokens = [told[:, None] + self.kinds[0], proprioception[:, None] + self.kinds[1]]
        for camera, encoder in enumerate(self.cameras):
            image = images[:, camera].contiguous(memory_format=torch.channels_last)  # (B, 3, H, W)
            tokens.append(encoder(image, told) + self.kinds[2 + camera])  # (B, 5, C)
        x = torch.cat(tokens, dim=1)  # (B, 2 + 5 K, C)
        for layer in self.layers:
            x = layer(x, None)
        x = self.norm(x)
        aims = self.aim(x[:, :2].flatten(1))  # (B, aim_dim)
        found = self.aim_token(torch.cat([state, aims], dim=1))  # (B, C)
        return torch.cat([x, found[:, None]], dim=1), aims

    def losses(
        self, images: Tensor, state: Tensor, words: Tensor, actions: Tensor, mask: Tensor, draws: int = 1,
        generator: Generators = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Return the head's loss, (), and the aims (B, aim_dim).

        actions: (B, T, A); mask: (B, T), zero where the episode has ended. draws: noise levels that each observation
        is learned at; the cameras' networks cost far more than the head, so several are nearly free.
        """
        tokens, aims = self.observe(images, state, words)
        if isinstance(self.head, RegressionHead):
            return self.head.loss(tokens, actions, mask), aims
        repeated = [x.repeat_interleave(draws, dim=0) for x in (tokens, actions, mask)]
        return self.head.loss(repeated[0], repeated[1], repeated[2], generator=generator), aims

    @torch.no_grad()
    def act(self, images: Tensor, state: Tensor, words: Tensor, generator: Generators = None) -> Tensor:
        """Return chunks (B, T, A), normalised; generator: one for each row, so that no row depends on the others."""
        tokens, _ = self.observe(images, state, words)
        return self.head.sample(tokens, generator)
