"""ActionHead: draws chunks of actions by denoising, conditioned on observation tokens.

Regression to demonstrations that go left half of the time and right the other half learns to go straight on, which
nobody showed. A denoiser learns the distribution and draws one of its modes ("Diffusion Policy", arXiv:2303.04137; with
flow matching pi0, arXiv:2410.24164).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..attention import CrossAttention, SelfAttention
from ..layers import FeedForward, sinusoids
from .conditioning import TimeAndContext
from .dit import AdaptiveNorm
from .process import ProcessConfig, SamplerConfig, build_process
from .samplers import Generators, draw_noise


@dataclass(frozen=True)
class ActionHeadConfig:
    """Everything that fixes the head: its network, what it is trained on and how it samples."""

    action_dim: int = 7
    """A, numbers per action."""
    horizon: int = 16
    """T, actions per chunk."""
    condition_dim: int = 256
    """Width of an observation token."""
    d_model: int = 128
    """Width of an action token."""
    layers: int = 4
    """Transformer blocks."""
    heads: int = 4
    """Attention heads."""
    process: ProcessConfig = field(default_factory=lambda: ProcessConfig(schedule="cosine", steps=100))
    """Diffusion or flow matching."""
    sampler: SamplerConfig = field(default_factory=lambda: SamplerConfig("ddim", steps=10))
    """How ``sample`` draws; of the same kind as ``process``. Its clip is the actions' largest magnitude."""


class ActionBlock(nn.Module):
    """Self-attention over the chunk, cross-attention to the observation, feed-forward; the time enters by the norms."""

    def __init__(self, d_model: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.self_attention = AdaptiveNorm(d_model, d_model), SelfAttention(d_model, heads)
        self.norm2, self.cross_attention = AdaptiveNorm(d_model, d_model), CrossAttention(d_model, heads)
        self.norm3, self.feed_forward = AdaptiveNorm(d_model, d_model), FeedForward(d_model, 4 * d_model, "gelu_tanh")

    def forward(
        self, x: Tensor, time: Tensor, memory: Tensor, mask: Tensor | None, memory_mask: Tensor | None
    ) -> Tensor:
        """x: (B, T, C); time: (B, C); memory: (B, S, C); masks: (B, 1, 1, T) and (B, 1, 1, S). Returns (B, T, C)."""
        h, gate = self.norm1(x, time)
        x = x + gate * self.self_attention(h, mask)  # (B, T, C)
        h, gate = self.norm2(x, time)
        x = x + gate * self.cross_attention(h, memory, memory_mask)  # (B, T, C)
        h, gate = self.norm3(x, time)
        return x + gate * self.feed_forward(h)  # (B, T, C)


class ActionHead(nn.Module):
    """A transformer denoiser over action chunks, by DDPM, DDIM or flow matching behind the same two calls.

    Actions are expected scaled to about unit size (to within the sampler's ``clip``, where it has one).
    """

    def __init__(self, config: ActionHeadConfig) -> None:
        super().__init__()
        self.config = config
        self.process = build_process(config.process)
        self.process.check(config.sampler)
        width = config.d_model
        self.time = TimeAndContext(width)
        self.observe = nn.Linear(config.condition_dim, width)
        self.embed = nn.Linear(config.action_dim, width)
        self.register_buffer("positions", sinusoids(torch.arange(config.horizon), width), persistent=False)
        self.positions: Tensor
        self.blocks = nn.ModuleList(ActionBlock(width, config.heads) for _ in range(config.layers))
        self.norm = AdaptiveNorm(width, width)
        self.out = nn.Linear(width, config.action_dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(
        self,
        noisy: Tensor,
        time: Tensor,
        memory: Tensor,
        mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
    ) -> Tensor:
        """Denoise: noisy (B, T, A) at time (B,) in 0 … 1, memory (B, S, C) from ``observe``. Returns (B, T, A)."""
        condition = self.time(time)  # (B, C)
        x = self.embed(noisy) + self.positions[: noisy.size(1)]  # (B, T, C)
        for block in self.blocks:
            x = block(x, condition, memory, mask, memory_mask)  # (B, T, C)
        x, _ = self.norm(x, condition)  # (B, T, C)
        return self.out(x)  # (B, T, A)

    def loss(
        self,
        condition: Tensor,
        actions: Tensor,
        mask: Tensor | None = None,
        condition_mask: Tensor | None = None,
        generator: Generators = None,
    ) -> Tensor:
        """Return the training loss, (): mean squared error over the actions that ``mask`` keeps.

        condition: (B, S, condition_dim) observation tokens; condition_mask: (B, S), non-zero for real tokens.
        actions: (B, T, A); mask: (B, T), non-zero for real actions. Padded ones (after an episode's end, say) are
        neither learned nor looked at.
        """
        noisy, time, target = self.process.corrupt(actions, generator)  # (B, T, A), (B,), (B, T, A)
        output = self(noisy, time, self.observe(condition), _keys(mask), _keys(condition_mask))  # (B, T, A)
        error = (output - target).square().mean(-1)  # (B, T)
        if mask is None:
            return error.mean()
        kept = (mask != 0).to(error.dtype)  # (B, T)
        return (error * kept).sum() / kept.sum().clamp(min=1)

    @torch.no_grad()
    def sample(self, condition: Tensor, generator: Generators = None, condition_mask: Tensor | None = None) -> Tensor:
        """Return chunks (B, T, A) for observation tokens (B, S, condition_dim).

        generator: one for the batch, or one per row, which makes a row's noise independent of its neighbours.
        """
        memory, memory_mask = self.observe(condition), _keys(condition_mask)  # (B, S, C), (B, 1, 1, S)
        shape = torch.Size((len(condition), self.config.horizon, self.config.action_dim))
        noise = draw_noise(shape, generator, condition.device)  # (B, T, A)

        def denoise(x: Tensor, time: Tensor) -> Tensor:
            return self(x, time, memory, None, memory_mask)

        return self.process.sample(denoise, noise, self.config.sampler, generator)


def _keys(mask: Tensor | None) -> Tensor | None:
    """Return a (B, S) mask as one over attention's keys, (B, 1, 1, S)."""
    return None if mask is None else mask[:, None, None, :]
