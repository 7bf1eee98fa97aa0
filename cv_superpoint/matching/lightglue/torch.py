"""The matcher's network in torch: pair by pair on the CPU, in padded batches on CUDA."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from cv_superpoint.matching.lightglue.config import MatcherConfig
from cv_superpoint.matching.lightglue.lanes import Inputs
from cv_superpoint.matching.lightglue.network import MatcherNet

Floats = NDArray[np.float32]
T = TypeVar("T")
LARGEST = 2**24
"""Numbers of a batch's scores, its padding with them: 16 pairs of 1024 and 1024 keypoints."""


class TorchRunner:
    """Runs the network in torch, on CUDA if there is a device, else on torch's own threads.

    See :class:`cv_superpoint.matching.lightglue.running.Runner`.

    Args:
        tensors: Tensors of the network by name.
        config: Sizes of the network.
    """

    name = "torch"

    def __init__(self, tensors: Mapping[str, Floats], config: MatcherConfig) -> None:
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        with torch.random.fork_rng(devices=[]):  # its initial weights are drawn
            self._net = MatcherNet(config)
        state = {name: torch.from_numpy(value.copy()) for name, value in tensors.items()}
        self._net.load_state_dict(state)
        self._net.eval().to(self._device)

    def __call__(self, points: Sequence[Floats], descriptors: Sequence[Floats]) -> Floats:
        """Scores (N, M)."""
        rows = [torch.from_numpy(np.ascontiguousarray(each)) for each in (*points, *descriptors)]
        with torch.inference_mode():
            found = self._net(*(each[None].to(self._device) for each in rows))
            scores: Floats = found[-1].scores()[0].cpu().numpy()
        return scores

    def each(self, pairs: Sequence[Inputs], finish: Callable[[Floats], T]) -> list[T]:
        """Results one after the other on the CPU, where padding costs more than a batch saves."""
        if self._device == "cpu":
            return [finish(self(*pair)) for pair in pairs]
        return self.padded(pairs, finish)

    def padded(self, pairs: Sequence[Inputs], finish: Callable[[Floats], T]) -> list[T]:
        """Results of batches of pairs with about as many keypoints; the padding changes nothing."""
        results: dict[int, T] = {}
        for numbers in _batches([tuple(map(len, points)) for points, _ in pairs]):
            inputs, valid = [], []
            for side in (0, 1):
                batch = [[pairs[number][part][side] for number in numbers] for part in (0, 1)]
                inputs.append([self._padded(rows) for rows in batch])
                valid.append(self._padded([np.ones(len(rows), np.bool_) for rows in batch[0]]))
            (points0, rows0), (points1, rows1) = inputs
            with torch.inference_mode():
                found = self._net(points0, points1, rows0, rows1, *valid)
                scores = found[-1].scores().cpu().numpy()
            for number, one in zip(numbers, scores, strict=True):
                count0, count1 = map(len, pairs[number][0])
                results[number] = finish(one[:count0, :count1])
        return [results[number] for number in range(len(pairs))]

    def _padded(self, rows: Sequence[NDArray[np.generic]]) -> Tensor:
        """Rows of each pair -> (B, the most rows, ...); 0, or False, behind the last."""
        each = [torch.from_numpy(np.ascontiguousarray(one)) for one in rows]
        return pad_sequence(each, batch_first=True).to(self._device)


def _batches(counts: Sequence[tuple[int, ...]]) -> Iterator[list[int]]:
    """Numbers of the pairs of each batch.

    Args:
        counts: (N, M) of each pair.
    """
    batch: list[int] = []
    for number in sorted(range(len(counts)), key=lambda number: counts[number]):
        both = np.array([counts[one] for one in (*batch, number)])
        if batch and len(both) * int(both.max(axis=0).prod()) > LARGEST:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch
