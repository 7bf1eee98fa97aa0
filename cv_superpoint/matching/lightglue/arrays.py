"""The matcher's network in numpy: what runs where no other backend is installed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.matching.lightglue.config import MatcherConfig

Floats = NDArray[np.float32]

EPSILON = 1e-5
"""Epsilon of the layer normalisations, as in torch."""


def assignment_scores(
    tensors: Mapping[str, Floats],
    config: MatcherConfig,
    points: tuple[Floats, Floats],
    descriptors: tuple[Floats, Floats],
) -> Floats:
    """Probability of a match of every pair of keypoints, after the last layer.

    The numbers of :class:`~cv_superpoint.matching.lightglue.network.MatcherNet`, but for rounding.

    Args:
        tensors: Tensors of the network by name.
        config: Sizes of the network.
        points: (N, 2) and (M, 2) positions in [-1, 1].
        descriptors: (N, D) and (M, D) rows of unit length.

    Returns:
        (N, M) float32.
    """
    net = _Layers(tensors, config.heads)
    x = [net.linear("project", rows) for rows in descriptors]
    turns = [rows @ tensors["frequencies.weight"].T for rows in points]
    for number in range(config.layers):
        own = f"self_layers.{number}"
        x = [net.among_themselves(own, rows, turn) for rows, turn in zip(x, turns, strict=True)]
        cross = f"cross_layers.{number}"
        x = [net.across(cross, x[0], x[1]), net.across(cross, x[1], x[0])]
    head = f"heads.{config.layers - 1}"
    first, second = (net.linear(f"{head}.project", rows) for rows in x)
    similarity = first @ second.T
    similarity *= np.float32(1 / np.sqrt(config.width))
    either = [_log_sigmoid(net.linear(f"{head}.matchable", rows)[:, 0]) for rows in x]
    logarithm = 2 * similarity - _log_sum(similarity, 1) - _log_sum(similarity, 0)
    scores: Floats = np.exp(logarithm + either[0][:, None] + either[1][None])
    return scores


def mutual_best(scores: Floats, threshold: float) -> tuple[NDArray[np.intp], Floats]:
    """Pairs that are each other's best.

    Args:
        scores: (N, M).
        threshold: Value that a score must exceed.

    Returns:
        (K, 2) row numbers, ascending in the first column, and (K,) scores.
    """
    if scores.size == 0:
        return np.empty((0, 2), np.intp), np.empty(0, np.float32)
    best = scores.argmax(axis=1)
    values = np.take_along_axis(scores, best[:, None], axis=1)[:, 0]
    # A maximum along columns is a vector operation where an argmax is not.
    kept = np.flatnonzero((values == scores.max(axis=0)[best]) & (values > threshold))
    # Of equal scores in a column the first keeps it.
    kept = np.sort(kept[np.unique(best[kept], return_index=True)[1]])
    return np.stack([kept, best[kept]], axis=1), values[kept]


class _Layers:
    """The parts of the network, on rows (N, width)."""

    def __init__(self, tensors: Mapping[str, Floats], heads: int) -> None:
        self.tensors = tensors
        self.heads = heads

    def linear(self, name: str, rows: Floats) -> Floats:
        result: Floats = rows @ self.tensors[f"{name}.weight"].T
        result += self.tensors[f"{name}.bias"]
        return result

    def among_themselves(self, name: str, rows: Floats, turn: Floats) -> Floats:
        """A layer of self attention; ``turn`` (N, width / heads / 2) are angles."""
        query, key, value = np.split(self.linear(f"{name}.inputs", rows), 3, axis=1)
        cos, sin = np.cos(turn), np.sin(turn)
        query, key = (self._rotated(part, cos, sin) for part in (query, key))
        return self._updated(name, rows, self._attended(query, key, value))

    def across(self, name: str, rows: Floats, others: Floats) -> Floats:
        """A layer of cross attention."""
        query, key = (self.linear(f"{name}.key", part) for part in (rows, others))
        value = self.linear(f"{name}.value", others)
        return self._updated(name, rows, self._attended(query, key, value))

    def _rotated(self, rows: Floats, cos: Floats, sin: Floats) -> Floats:
        parts = []
        for head in np.split(rows, self.heads, axis=1):
            first, second = np.split(head, 2, axis=1)
            parts += [first * cos - second * sin, first * sin + second * cos]
        return np.concatenate(parts, axis=1)

    def _attended(self, query: Floats, key: Floats, value: Floats) -> Floats:
        told = []
        for q, k, v in zip(
            *(np.split(part, self.heads, axis=1) for part in (query, key, value)), strict=True
        ):
            weights = (q * np.float32(q.shape[1] ** -0.5)) @ k.T
            weights -= weights.max(axis=1, keepdims=True)
            np.exp(weights, out=weights)
            told.append((weights @ v) / weights.sum(axis=1, keepdims=True))
        return np.concatenate(told, axis=1)

    def _updated(self, name: str, rows: Floats, told: Floats) -> Floats:
        hidden = np.concatenate([rows, self.linear(f"{name}.message", told)], axis=1)
        hidden = self.linear(f"{name}.mix.0", hidden)
        hidden -= hidden.mean(axis=1, keepdims=True)
        hidden /= np.sqrt(np.square(hidden).mean(axis=1, keepdims=True) + np.float32(EPSILON))
        hidden *= self.tensors[f"{name}.mix.1.weight"]
        hidden += self.tensors[f"{name}.mix.1.bias"]
        return rows + self.linear(f"{name}.mix.3", _gelu(hidden))


def _gelu(x: Floats) -> Floats:
    """The approximation by a hyperbolic tangent, which OpenCV can run."""
    inner = x * (np.float32(0.7978845608) * (1 + np.float32(0.044715) * x * x))
    result: Floats = np.float32(0.5) * x * (1 + np.tanh(inner))
    return result


def _log_sigmoid(x: Floats) -> Floats:
    result: Floats = -np.logaddexp(np.float32(0), -x)
    return result


def _log_sum(x: Floats, axis: int) -> Floats:
    largest = x.max(axis=axis, keepdims=True)
    result: Floats = largest + np.log(np.exp(x - largest).sum(axis=axis, keepdims=True))
    return result
