"""RegressionHead: the chunk itself instead of a draw from its distribution, as in ACT (arXiv:2304.13705)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..diffusion.action_head import ActionHead
from ..diffusion.samplers import Generators


class RegressionHead(ActionHead):
    """The network of ``ActionHead`` asked once, for the chunk, with the L1 loss; the baseline of the two denoisers."""

    def predict(self, condition: Tensor) -> Tensor:
        """condition: (B, S, condition_dim) observation tokens. Returns chunks (B, T, A)."""
        blank = condition.new_zeros(len(condition), self.config.horizon, self.config.action_dim)  # (B, T, A)
        return self(blank, condition.new_zeros(len(condition)), self.observe(condition))

    def loss(
        self,
        condition: Tensor,
        actions: Tensor,
        mask: Tensor | None = None,
        condition_mask: Tensor | None = None,
        generator: Generators = None,
    ) -> Tensor:
        """Return the mean absolute error, (), over the actions (B, T, A) that ``mask`` (B, T) keeps."""
        error = (self.predict(condition) - actions).abs().mean(-1)  # (B, T)
        return error.mean() if mask is None else (error * mask).sum() / mask.sum().clamp(min=1)

    @torch.no_grad()
    def sample(self, condition: Tensor, generator: Generators = None, condition_mask: Tensor | None = None) -> Tensor:
        """Return the chunks (B, T, A); nothing is drawn."""
        return self.predict(condition)
