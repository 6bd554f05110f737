"""OpenVLA: image patches between BOS and the prompt, a prefill, then one token for each entry of the action."""

from __future__ import annotations

import torch
from torch import nn

from .configuration import OpenVLAConfig
from .language import Cache, LanguageModel
from .vision import Projector, VisionBackbone


class OpenVLA(nn.Module):
    """The whole network. film: the vision transformers read the instruction too (OpenVLA-OFT+)."""

    def __init__(self, config: OpenVLAConfig, film: bool = False) -> None:
        super().__init__()
        self.config = config
        self.film = film
        self.vision_backbone = VisionBackbone(config, film)
        self.projector = Projector(config)
        self.language_model = LanguageModel(config.language)

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the activations."""
        return self.language_model.embed_tokens.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.language_model.embed_tokens.weight.device

    def patches(self, pixels: torch.Tensor, instruction: torch.Tensor | None = None) -> torch.Tensor:
        """Return (B, images * 256, D) patch embeddings of (B, images * 6, 224, 224) normalised pixels, any float."""
        return self.projector(self.vision_backbone(pixels.to(self.dtype), instruction))

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return (..., vocabulary) fp32 of (..., D) hidden states."""
        return self.language_model.lm_head(hidden).float()

    def prefill(
        self, pixels: torch.Tensor, tokens: torch.Tensor, lengths: torch.Tensor, cache: Cache
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the logits (B, vocabulary) fp32 after each prompt, and the place (B,) int64 of the next token.

        pixels: (B, 6, 224, 224). tokens: (B, T) int64, BOS first, padded on the right; lengths: (B,) int64 without
        the padding. No token sees the padding, because it comes last and attention is causal; what it leaves in
        the cache is overwritten or masked.
        """
        patches = self.patches(pixels)  # (B, N, D)
        text = self.language_model.embed_tokens(tokens)  # (B, T, D)
        x = torch.cat([text[:, :1], patches, text[:, 1:]], dim=1)  # (B, 1 + N + T - 1, D)
        hidden = self.language_model(x, cache=cache)
        places = patches.shape[1] + lengths
        last = hidden[torch.arange(len(x), device=x.device), places - 1]  # (B, D)
        return self.logits(last), places

    def step(self, tokens: torch.Tensor, places: torch.Tensor, cache: Cache) -> torch.Tensor:
        """Return the logits (B, vocabulary) fp32 after ``tokens`` (B,) int64, put at ``places`` (B,) int64."""
        x = self.language_model.embed_tokens(tokens[:, None])  # (B, 1, D)
        seen = torch.arange(cache.places, device=x.device) <= places[:, None]  # (B, S)
        hidden = self.language_model(x, mask=seen[:, None, None], cache=cache, places=places)
        return self.logits(hidden[:, 0])
