"""The action head: from features and a state to sixteen actions, by flow matching; and its training loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...checkpoints import Fields
from ...checkpoints.fields import LARGEST
from .dit import Adapter, DiT, Modulations, TransformerConfig
from .layers import ActionEncoder, CategoryMLP, KeysValues

EMBODIMENTS = 32
"""Weights per embodiment that a checkpoint holds."""
POSITIONS = 1024
"""Rows of the table of positions; actions use the first ones."""


@dataclass(frozen=True)
class HeadConfig:
    """Sizes of the action head, under the names of ``action_head_cfg`` in the checkpoint's config.json."""

    diffusion_model_cfg: TransformerConfig
    vl_self_attention_cfg: TransformerConfig
    action_dim: int = 32
    action_horizon: int = 16
    backbone_embedding_dim: int = 2048
    hidden_size: int = 1024
    input_embedding_dim: int = 1536
    max_state_dim: int = 64
    noise_beta_alpha: float = 1.5
    noise_beta_beta: float = 1.0
    noise_s: float = 0.999
    num_inference_timesteps: int = 4
    num_target_vision_tokens: int = 32
    num_timestep_buckets: int = 1000

    @classmethod
    def read(cls, content: Mapping[str, Any], where: str = "config.json") -> HeadConfig:
        """Return the sizes that ``action_head_cfg`` states; what it does not state is as in the 3B model.

        where: the file, for messages. Raises CheckpointError for values of another type or out of range.
        """
        stored = Fields(content, where, "action_head_cfg")
        for name in ("use_vlln", "add_pos_embed"):
            stored.supported(name, True)
        most = {"action_horizon": POSITIONS, "num_inference_timesteps": 1000}
        known: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            default: Any = field.default
            if field.name in ("diffusion_model_cfg", "vl_self_attention_cfg"):
                known[field.name] = TransformerConfig.read(stored.section(field.name))
            elif isinstance(default, int):
                known[field.name] = stored.integer(field.name, default, most=most.get(field.name, LARGEST))
            else:
                known[field.name] = stored.number(field.name, default, above=0)
        if known["noise_beta_beta"] != 1:
            stored.refuse("noise_beta_beta", "1, the only one that times are drawn with,")
        if known["diffusion_model_cfg"].output_dim is None:
            stored.section("diffusion_model_cfg").refuse("output_dim", "the width of the output, a whole number,")
        return cls(**known)


class ActionHead(nn.Module):
    """Adapter, embodiment layers and DiT. The DiT's tokens are [state 1 | future 32 | actions 16]."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        width = config.input_embedding_dim
        self.vlln = nn.LayerNorm(config.backbone_embedding_dim)
        self.vl_self_attention = Adapter(config.vl_self_attention_cfg)
        self.state_encoder = CategoryMLP(EMBODIMENTS, config.max_state_dim, config.hidden_size, width)
        self.action_encoder = ActionEncoder(EMBODIMENTS, config.action_dim, width)
        self.action_decoder = CategoryMLP(EMBODIMENTS, config.hidden_size, config.hidden_size, config.action_dim)
        self.future_tokens = nn.Embedding(config.num_target_vision_tokens, width)
        self.position_embedding = nn.Embedding(POSITIONS, width)
        self.model = DiT(config.diffusion_model_cfg)

    def adapt(self, features: Tensor) -> Tensor:
        """features: (B, N, C) of the language model. Returns (B, N, C), what the DiT attends to."""
        return self.vl_self_attention(self.vlln(features))

    def tokens(self, state: Tensor, actions: Tensor, bucket: Tensor, embodiment: int | Tensor) -> Tensor:
        """state: (B, 1, width) encoded; actions: (B, T, action_dim); bucket: (B,). Returns (B, 1 + 32 + T, width)."""
        encoded = self.action_encoder(actions, bucket, embodiment)
        encoded = encoded + self.position_embedding.weight[: actions.shape[1]]
        future = self.future_tokens.weight.expand(actions.shape[0], -1, -1)
        return torch.cat([state, future, encoded], dim=1)

    def sample_time(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Return (count,) float32 times in [0, 1], dense near 0: (s - Beta(1.5, 1)) / s.

        Beta(1.5, 1) is the only shape that N1.5 uses, and the 1/1.5-th power of a uniform number is so distributed.
        """
        if self.config.noise_beta_beta != 1.0:
            raise ValueError(
                f"times are drawn from Beta(a, 1); this checkpoint states b = {self.config.noise_beta_beta}"
            )
        beta = torch.rand(count, generator=generator) ** (1.0 / self.config.noise_beta_alpha)
        return (self.config.noise_s - beta) / self.config.noise_s

    def loss(
        self,
        features: Tensor,
        state: Tensor,
        actions: Tensor,
        action_mask: Tensor,
        embodiment: Tensor,
        noise: Tensor,
        time: Tensor,
    ) -> Tensor:
        """Return the flow-matching loss, a scalar: the squared error of the velocity over the entries of the mask.

        features: (B, N, C) of the language model; state: (B, 1, 64); actions, action_mask, noise: (B, T, 32);
        embodiment: (B,) integers; time: (B,) in [0, 1], 0 is noise.
        """
        features = self.adapt(features)
        mix = time[:, None, None]
        noisy = (1 - mix) * noise + mix * actions
        bucket = (time * self.config.num_timestep_buckets).long()
        tokens = self.tokens(self.state_encoder(state, embodiment), noisy, bucket, embodiment)
        out = self.model(tokens, self.model.modulations(bucket), self.model.keys_values(features))
        velocity = self.action_decoder(out[:, -actions.shape[1] :], embodiment)
        error = functional.mse_loss(velocity, actions - noise, reduction="none") * action_mask
        return error.sum() / action_mask.sum()


class Sampler:
    """Draws actions with a trained head: the denoising loop, with all that depends on the time alone at hand.

    Make a new one after the head's weights have changed or moved.
    """

    def __init__(self, head: ActionHead, steps: int | None = None) -> None:
        """steps: of denoising; None for the checkpoint's own number."""
        self.head = head
        self.steps = steps or head.config.num_inference_timesteps
        table = head.position_embedding.weight
        self._dtype = table.dtype
        times = [int(i / self.steps * head.config.num_timestep_buckets) for i in range(self.steps)]
        buckets = torch.tensor(times, device=table.device)
        with torch.no_grad():
            blocks, out = head.model.modulations(buckets)
        self._buckets = buckets.split(1)  # (1,) each
        self._modulations = [Modulations(*rows) for rows in zip(blocks.split(1), out.split(1), strict=True)]

    @torch.no_grad()
    def __call__(self, features: Tensor, state: Tensor, noise: Tensor, embodiment: int | Tensor) -> Tensor:
        """Return (B, T, action_dim) float32 normalised actions.

        features: (B, N, C) of the language model; state: (B, 1, 64) normalised; noise: (B, T, action_dim), the start;
        embodiment: the slot of all rows, or (B,) integers.
        """
        kept = self.head.model.keys_values(self.head.adapt(features))
        return self.denoise(kept, state, noise, embodiment)

    @torch.no_grad()
    def denoise(
        self, keys_values: list[KeysValues | None], state: Tensor, noise: Tensor, embodiment: int | Tensor
    ) -> Tensor:
        """Return (B, T, action_dim) float32 as a call does; keys_values: what ``DiT.keys_values`` makes of features."""
        head = self.head
        encoded_state = head.state_encoder(state.to(self._dtype), embodiment)
        actions = noise.float()  # summed up in fp32 in every precision
        for bucket, modulations in zip(self._buckets, self._modulations, strict=True):
            tokens = head.tokens(encoded_state, actions.to(self._dtype), bucket.expand(actions.shape[0]), embodiment)
            out = head.model(tokens, modulations, keys_values)
            actions = actions + head.action_decoder(out[:, -actions.shape[1] :], embodiment) / self.steps
        return actions
