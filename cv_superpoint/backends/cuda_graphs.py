"""A function of tensors recorded once for each shape and replayed: one launch for all kernels."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

MOST_GRAPHS = 8
"""Each holds the memory of its whole network; the one not used for longest goes first."""


class GraphCache:
    """Runs functions through CUDA graphs on a CUDA device, and as they are elsewhere.

    A graph reads and writes fixed memory, so calls from several threads follow one another.

    Args:
        record: Makes a replayable from a function and example inputs; the default captures a CUDA
            graph.
    """

    def __init__(
        self, record: Callable[[Callable[..., Tensor], tuple[Tensor, ...]], Any] | None = None
    ) -> None:
        self._record = record or _capture
        self._graphs: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._graphs)

    def run(
        self, key: Hashable, function: Callable[..., Tensor], inputs: tuple[Tensor, ...]
    ) -> Tensor:
        """``function(*inputs)`` on the host.

        Args:
            key: All that the function depends on but its inputs' values.
            function: Without a synchronisation or a shape that data decide.
            inputs: On the host, pinned.
        """
        key = (key, tuple((tensor.shape, tensor.dtype) for tensor in inputs))
        with self._lock:
            graph = self._graphs.pop(key, None)
            if graph is None:
                while len(self._graphs) >= MOST_GRAPHS:
                    self._graphs.popitem(last=False)
                graph = self._record(function, inputs)
            self._graphs[key] = graph
            answer: Tensor = graph(inputs)
            return answer


def _capture(
    function: Callable[..., Tensor], inputs: tuple[Tensor, ...]
) -> Callable[[tuple[Tensor, ...]], Tensor]:
    """Record a CUDA graph, after the warm-up on a side stream that capturing asks for."""
    fixed = tuple(tensor.cuda() for tensor in inputs)
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            function(*fixed)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = function(*fixed)

    def replay(values: tuple[Tensor, ...]) -> Tensor:
        for target, value in zip(fixed, values, strict=True):
            target.copy_(value, non_blocking=True)
        graph.replay()
        return output.cpu()

    return replay
