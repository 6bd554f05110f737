"""CUDA graphs: a function of tensors recorded once per set of shapes, and replayed without the CPU's launches."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP = 3
"""Calls before the recording: they let libraries choose kernels and allocate workspaces."""


class GraphedCall:
    """Calls ``function`` through CUDA graphs. Inputs of shapes that were seen before are copied in and replayed.

    function: of CUDA tensors alone, without synchronisation and without a choice by their values.
    most: graphs that are kept; the one not used for the longest time goes first. Each holds its activations' memory.
    """

    def __init__(self, function: Callable[..., Tensor], most: int = 8) -> None:
        self._function, self._most = function, most
        self._graphs: OrderedDict[tuple[object, ...], tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...], Tensor]]
        self._graphs = OrderedDict()

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Return the function's output for ``inputs``, a tensor of its own."""
        key = tuple((tuple(tensor.shape), tensor.dtype) for tensor in inputs)
        if key not in self._graphs:
            self._graphs[key] = self._record(inputs)
            if len(self._graphs) > self._most:
                self._graphs.popitem(last=False)
        self._graphs.move_to_end(key)
        graph, places, output = self._graphs[key]
        for place, tensor in zip(places, inputs, strict=True):
            place.copy_(tensor)
        graph.replay()
        return output.clone()

    def _record(self, inputs: tuple[Tensor, ...]) -> tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...], Tensor]:
        places = tuple(tensor.clone() for tensor in inputs)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self._function(*places)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = self._function(*places)
        return graph, places, output
