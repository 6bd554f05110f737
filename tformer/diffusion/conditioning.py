"""How the denoisers are told the time and the context: one vector per example, made here, used in every block.

A context is a vector of weights, one per name: (1, 0, 0) is the first alone, (1, 0.6, 0) a mixture, and zeros say
nothing about the picture. Networks are trained on single names and on zeros; the map is linear, so mixtures need no
training of their own.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..layers import sinusoids
from .samplers import Generators, draw_uniform


class TimeAndContext(nn.Module):
    """Embeds the time by waves and a small network, the context by a linear map, and adds the two."""

    def __init__(self, width: int, contexts: int = 0) -> None:
        super().__init__()
        self.width = width
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.context = nn.Linear(contexts, width, bias=False) if contexts else None

    def forward(self, time: Tensor, context: Tensor | None = None) -> Tensor:
        """time: (B,) in 0 … 1; context: (B, contexts) weights. Returns (B, width)."""
        waves = sinusoids(1000 * time, self.width)  # (B, width); the waves were made for whole positions
        embedding = self.time(waves.to(time.dtype))  # (B, width)
        if self.context is not None and context is not None:
            embedding = embedding + self.context(context)  # (B, width)
        return embedding


def drop_contexts(contexts: Tensor, probability: float, generator: Generators = None) -> Tensor:
    """Return contexts (B, K) with each row set to zeros with ``probability``: these train the unconditional model."""
    keep = draw_uniform(len(contexts), generator, contexts.device) >= probability  # (B,)
    return contexts * keep[:, None]
