"""OpenVLA-OFT: eight actions in one pass, by parallel decoding in which every token sees every token.

The sequence is BOS, the patches of all images, the robot's state, (the diffusion time,) the prompt, 56 places for the
actions, EOS. What the network writes from the last prompt token on, one place early, becomes the actions: by a head (L1
regression or diffusion), or as tokens where there is none. Parameter names are the checkpoints'.

Kim, Finn, Liang, "Fine-Tuning Vision-Language-Action Models" (arXiv:2502.19645).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from tformer.diffusion.samplers import ddim_step
from tformer.diffusion.schedules import cosine_schedule

from .decoding import EOS
from .model import OpenVLA

CHUNK, ENTRIES = 8, 7
PLACES = CHUNK * ENTRIES
STATE = 8
DIFFUSION_STEPS = 50


class Embedder(nn.Module):
    """Two layers from numbers (the robot's state, or one noisy action entry) to a token's embedding."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inputs, width)
        self.fc2 = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (..., width) of (..., inputs)."""
        return self.fc2(functional.gelu(self.fc1(x)))


class ResidualBlock(nn.Module):
    """x + ReLU(Linear(LayerNorm(x)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ffn = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (..., width) of (..., width)."""
        return x + self.ffn(x)


class ActionHead(nn.Module):
    """Hidden states of the action places to actions (L1 regression) or to the noise in them (diffusion)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(ENTRIES * width)
        self.fc1 = nn.Linear(ENTRIES * width, width)
        self.mlp_resnet_blocks = nn.ModuleList(ResidualBlock(width) for _ in range(2))
        self.layer_norm2 = nn.LayerNorm(width)
        self.fc2 = nn.Linear(width, ENTRIES)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return (B, 8, 7) of (B, 56, width): the seven places of an action are read together."""
        x = hidden.reshape(len(hidden), CHUNK, -1)  # (B, 8, 7 * width)
        x = functional.relu(self.fc1(self.layer_norm1(x)))  # (B, 8, width)
        for block in self.mlp_resnet_blocks:
            x = block(x)
        return self.fc2(self.layer_norm2(x))


@dataclass
class Inputs:
    """What stays the same in all passes of one decision.

    prefix: (B, P, D), the embeddings between BOS and the prompt: patches, and the state where it is read.
    tokens: (B, T) int64, BOS first, padded on the right. lengths: (B,) int64 without the padding.
    """

    prefix: torch.Tensor
    tokens: torch.Tensor
    lengths: torch.Tensor


class OFT(nn.Module):
    """OpenVLA with what OFT adds. head, state, noisy_action: None where the checkpoint has none."""

    def __init__(
        self, model: OpenVLA, head: ActionHead | None, state: Embedder | None, noisy_action: Embedder | None
    ) -> None:
        super().__init__()
        self.model = model
        self.head = head
        self.state = state
        self.noisy_action = noisy_action
        self._schedule = cosine_schedule(DIFFUSION_STEPS)

    def inputs(
        self, pixels: torch.Tensor, tokens: torch.Tensor, lengths: torch.Tensor, state: torch.Tensor | None
    ) -> Inputs:
        """Return the inputs of (B, images * 6, 224, 224) pixels, padded prompts, and (B, 8) normalised states."""
        instruction = self._mean_embedding(tokens, lengths) if self.model.film else None
        prefix = self.model.patches(pixels, instruction)
        if self.state is not None and state is not None:
            prefix = torch.cat([prefix, self.state(state.to(prefix.dtype))[:, None]], dim=1)
        return Inputs(prefix, tokens, lengths)

    def hidden(self, inputs: Inputs, actions: torch.Tensor | None = None) -> torch.Tensor:
        """Return the hidden states (B, 56, D) that become the actions.

        actions: (B, 56, D) embeddings of noisy actions for diffusion; None leaves their places zero.
        """
        language = self.model.language_model
        B, T = inputs.tokens.shape
        P = inputs.prefix.shape[1]
        places = torch.arange(P + T + PLACES + 1, device=inputs.tokens.device)  # (L,)
        begin = (P + inputs.lengths)[:, None]  # (B, 1), the first action's place
        text = language.embed_tokens(inputs.tokens)  # (B, T, D)
        x = torch.cat([text[:, :1], inputs.prefix, text[:, 1:], text.new_zeros(B, PLACES + 1, text.shape[2])], dim=1)
        x = x * (places < begin)[:, :, None]  # the actions' places begin where the padding did
        if actions is not None:
            x = x.scatter(1, (begin + places[:PLACES])[:, :, None].expand_as(actions), actions)
        end = language.embed_tokens.weight[EOS].expand(B, 1, -1)
        x = x.scatter(1, (begin + PLACES)[:, :, None].expand_as(end), end)
        seen = (places <= begin + PLACES)[:, None, None]  # (B, 1, 1, L): all but the padding, in both directions
        out = language(x, mask=seen.expand(-1, 1, len(places), -1))  # (B, L, D)
        return out.gather(1, (begin - 1 + places[:PLACES])[:, :, None].expand(-1, -1, x.shape[2]))

    def regress(self, inputs: Inputs) -> torch.Tensor:
        """Return (B, 8, 7) fp32 actions in [-1, 1] by the L1 head."""
        assert self.head is not None
        return self.head(self.hidden(inputs)).float()

    def tokens(self, inputs: Inputs) -> torch.Tensor:
        """Return (B, 8, 7) int64 token ids, each the likeliest of the whole vocabulary."""
        return self.model.logits(self.hidden(inputs)).argmax(dim=2).view(-1, CHUNK, ENTRIES)

    def denoise(self, inputs: Inputs, noise: torch.Tensor) -> torch.Tensor:
        """Return (B, 8, 7) fp32 actions by fifty DDIM steps from ``noise`` (B, 8, 7)."""
        assert self.head is not None and self.noisy_action is not None
        x = noise.to(inputs.prefix.dtype)
        for t in range(DIFFUSION_STEPS, 0, -1):
            time = _time_embedding(t - 1, inputs.prefix)  # the reference counts from 0
            prefix = torch.cat([inputs.prefix, time.expand(len(x), 1, -1)], dim=1)
            embedded = self.noisy_action(x.reshape(len(x), PLACES, 1))  # (B, 56, D)
            epsilon = self.head(self.hidden(Inputs(prefix, inputs.tokens, inputs.lengths), embedded))
            signal = float(self._schedule.alpha_bar[t])
            clean = ((x - (1 - signal) ** 0.5 * epsilon) / signal**0.5).clamp(-1, 1)
            x = ddim_step(self._schedule, clean, epsilon, t, t - 1, 0.0, None)
        return x.float()

    def _mean_embedding(self, tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return (B, D), the mean embedding of prompt and EOS, which FiLM reads."""
        language = self.model.language_model
        real = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]  # (B, T)
        total = (language.embed_tokens(tokens) * real[:, :, None]).sum(dim=1) + language.embed_tokens.weight[EOS]
        return total / (lengths[:, None] + 1)


def _time_embedding(t: int, like: torch.Tensor) -> torch.Tensor:
    """Return (1, 1, D) sines and cosines of the diffusion time, in the format and on the device of ``like`` (…, D)."""
    half = like.shape[-1] // 2
    frequencies = torch.exp(torch.arange(half, device=like.device) * -math.log(10000) / (half - 1))
    angles = t * frequencies
    return torch.cat([angles.sin(), angles.cos()])[None, None].to(like.dtype)
