"""Keys and values of tokens already seen, so that a decoding step computes one token instead of all.

What masking means at inference. In training all positions are computed at once, and the causal mask hides the future
that the sequence contains. In cached decoding the future does not exist yet: the one new query may attend to all keys
in the cache, so a step needs no causal mask. Three masks remain: the causal one while a prompt of several tokens is
read in one pass; the padding mask, because the prompts of a batch differ in length; and, in a static cache, the mask of
slots that nothing was written to yet.

B rows, G key/value heads, T new tokens, S tokens in the cache, D a head's width.
"""

from __future__ import annotations

import torch
from torch import Tensor


class LayerCache:
    """One attention's keys and values, in buffers that are made once for ``capacity`` tokens at the first append."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.filled = 0
        self.keys = self.values = torch.empty(0)

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """k, v: (B, G, T, D) of new tokens. Returns keys and values of all tokens so far, (B, G, S, D) each."""
        if self.filled == 0:
            shape = (k.size(0), k.size(1), self.capacity, k.size(3))
            self.keys, self.values = k.new_empty(shape), v.new_empty(shape)
        start, self.filled = self.filled, self.filled + k.size(2)
        self.keys[:, :, start : self.filled] = k
        self.values[:, :, start : self.filled] = v
        return self.contents()

    def contents(self) -> tuple[Tensor, Tensor]:
        """Return keys and values of all tokens so far, (B, G, S, D) each."""
        return self.keys[:, :, : self.filled], self.values[:, :, : self.filled]

    def select(self, rows: Tensor) -> None:
        """Keep ``rows`` (indices, possibly repeated) of the batch, in this order."""
        if self.filled:
            self.keys, self.values = self.keys[rows], self.values[rows]


class KVCache:
    """A decoder's cache: a ``LayerCache`` for each self-attention and, over a source, for each cross-attention.

    capacity: the most tokens it can take. source_len: tokens of the memory that cross-attention reads, 0 for none.
    padding: (B,) how many tokens at the left of each row are padding, which no query attends to and no position counts.
    """

    def __init__(self, layers: int, capacity: int, source_len: int = 0, padding: Tensor | None = None) -> None:
        self.capacity, self.padding = capacity, padding
        self.length = 0
        self.own: list[LayerCache] = [LayerCache(capacity) for _ in range(layers)]
        self.cross = [LayerCache(source_len) for _ in range(layers if source_len else 0)]

    def positions(self, tokens: int, device: torch.device) -> Tensor:
        """Return the positions of the next ``tokens`` tokens, (T,), or (B, T) where rows are padded."""
        positions = torch.arange(self.length, self.length + tokens, device=device)  # (T,)
        return self._unpadded(positions)

    def mask(self, tokens: int) -> tuple[Tensor | None, bool]:
        """Return the mask of the next ``tokens`` queries, to (B, 1, T, S), and whether the causal one holds besides."""
        if self.padding is None:
            return None, True
        keys = torch.arange(self.length + tokens, device=self.padding.device)  # (S,)
        return (keys >= self.padding[:, None])[:, None, None], True  # (B, 1, 1, S)

    def advance(self, tokens: int) -> None:
        """Count ``tokens`` tokens that every layer has appended."""
        self.length += tokens

    def select(self, rows: Tensor, cross: bool = True) -> None:
        """Keep ``rows`` (indices, possibly repeated) of the batch, in this order: beam search's survivors.

        cross: False where every row stays with its source, whose keys and values then need no copying.
        """
        for layer in self.own + (self.cross if cross else []):
            layer.select(rows)
        if self.padding is not None:
            self.padding = self.padding[rows]

    def _unpadded(self, positions: Tensor) -> Tensor:
        """positions: (T,). Returns them counted from each row's first token, (B, T), where rows are padded."""
        return positions if self.padding is None else (positions - self.padding[:, None]).clamp(min=0)


class StaticLayerCache(LayerCache):
    """One attention's slots for ``capacity`` tokens; ``next`` is the first free one, a tensor that all layers share."""

    def __init__(self, shape: tuple[int, int, int, int], first_free: Tensor, dtype: torch.dtype) -> None:
        super().__init__(shape[2])
        self.keys = torch.zeros(shape, device=first_free.device, dtype=dtype)
        self.values = torch.zeros(shape, device=first_free.device, dtype=dtype)
        self.first_free = first_free

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """k, v: (B, G, T, D). Returns all slots, filled and free, (B, G, capacity, D) each."""
        slots = self.first_free + torch.arange(k.size(2), device=k.device)  # (T,)
        self.keys.index_copy_(2, slots, k)
        self.values.index_copy_(2, slots, v)
        return self.keys, self.values


class StaticKVCache(KVCache):
    """A cache whose shapes never change: all slots are attended over, and a mask hides the free ones.

    How full it is lives in a tensor, so torch.compile and CUDA graphs capture one graph that serves every step.
    shape: (B, G, capacity, D) of each layer.
    """

    def __init__(
        self,
        layers: int,
        shape: tuple[int, int, int, int],
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        source_len: int = 0,
        padding: Tensor | None = None,
    ) -> None:
        super().__init__(layers, shape[2], source_len, padding)
        self.first_free = torch.zeros((), dtype=torch.long, device=device)
        self.own = [StaticLayerCache(shape, self.first_free, dtype) for _ in range(layers)]

    def positions(self, tokens: int, device: torch.device) -> Tensor:
        return self._unpadded(self.first_free + torch.arange(tokens, device=device))

    def mask(self, tokens: int) -> tuple[Tensor | None, bool]:
        device = self.first_free.device
        keys = torch.arange(self.capacity, device=device)  # (S,)
        queries = self.first_free + torch.arange(tokens, device=device)  # (T,)
        mask = (keys <= queries[:, None])[None, None]  # (1, 1, T, S)
        if self.padding is not None:
            mask = mask & (keys >= self.padding[:, None])[:, None, None]  # (B, 1, T, S)
        return mask, False

    def advance(self, tokens: int) -> None:
        self.first_free += tokens

    def select(self, rows: Tensor, cross: bool = True) -> None:
        raise NotImplementedError("a static cache keeps its rows; beam search takes a KVCache")
