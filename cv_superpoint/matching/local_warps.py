"""How an image is warped around each match, from the matches around it.

Beyond one plane no homography places the patches of all matches. But the matches near a match move
as its surroundings do, so an affine map is fitted to each match's neighbours; neighbours on another
surface move otherwise and lose their weight.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Affines = NDArray[np.float64]

NEIGHBOURS = 16
"""Matches around a match that its map is fitted to."""
_ROUNDS = 4
_MISS = 2.0
"""Pixels by which a neighbour may miss before its weight falls: keypoints of one surface are known
to some half a pixel in both images."""
_PRIOR = 12.0
"""Square pixels of the neighbours' spread that the common map counts for."""
_SAMPLE = 256
"""Matches whose neighbours tell the common map."""
_BLOCK = 2**22
"""Distances at a time."""


def local_affines(points0: NDArray[Any], points1: NDArray[Any]) -> Affines:
    """The linear part of the map around each match.

    Args:
        points0: (M, 2), finite.
        points1: (M, 2), matched row by row; wrong matches among them do little harm.

    Returns:
        (M, 2, 2): a step ``d`` in image 0 is ``A d`` in image 1. With fewer than 3 matches the
        identity.
    """
    first, second = points0.astype(np.float64), points1.astype(np.float64)
    count = len(first)
    if count < 3:
        return np.tile(np.eye(2), (count, 1, 1))
    near = _nearest(first, min(NEIGHBOURS, count - 1))
    steps0, steps1 = first[near] - first[:, None], second[near] - second[:, None]
    sparse = slice(None, None, 1 + count // _SAMPLE)
    common = _common(steps0[sparse], steps1[sparse])
    current: Affines = np.tile(common, (count, 1, 1))
    for _ in range(_ROUNDS):
        missed = ((steps1 - steps0 @ current.transpose(0, 2, 1)) ** 2).sum(axis=2)
        weights = 1 / (1 + missed / _MISS**2) ** 2
        current = _fit(steps0, steps1, weights, common)
    return current


def _nearest(points: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """(M, K) rows of the nearest other points of each."""
    rows = []
    step = max(1, _BLOCK // len(points))
    centred = (points - points.mean(axis=0)).astype(np.float32)
    norms = (centred**2).sum(axis=1)
    for start in range(0, len(points), step):
        part = centred[start : start + step]
        # Less the norm of the point itself, which changes no order.
        distances = norms - 2 * (part @ centred.T)
        distances[np.arange(len(part)), np.arange(start, start + len(part))] = np.inf
        rows.append(np.argpartition(distances, count - 1, axis=1)[:, :count])
    return np.concatenate(rows)


def _common(steps0: NDArray[np.float64], steps1: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2, 2) map that most neighbours of most matches agree with."""
    flat = steps0.reshape(1, -1, 2), steps1.reshape(1, -1, 2)
    identity = np.eye(2)
    weights = np.ones(flat[0].shape[:2])
    current = identity
    for _ in range(8):
        current = _fit(*flat, weights, identity)[0]
        missed = ((flat[1] - flat[0] @ current.T) ** 2).sum(axis=2)
        scale = np.median(missed) + _MISS**2  # also where most are wrong at first
        weights = 1 / (1 + missed / scale) ** 2
    return current


def _fit(
    steps0: NDArray[np.float64],
    steps1: NDArray[np.float64],
    weights: NDArray[np.float64],
    prior: NDArray[np.float64],
) -> Affines:
    """(M, 2, 2) least squares over the neighbours (M, K, 2), drawn towards a map."""
    weighted = (steps0 * weights[:, :, None]).transpose(0, 2, 1)
    spread = weighted @ steps0 + _PRIOR * np.eye(2)
    product = weighted @ steps1 + _PRIOR * prior.T
    # The inverse of (2, 2) by hand is ten times faster.
    (a, b), (c, d) = spread.transpose(1, 2, 0)
    turned = np.stack([d, -b, -c, a], axis=1).reshape(-1, 2, 2) / (a * d - b * c)[:, None, None]
    return np.asarray((turned @ product).transpose(0, 2, 1), np.float64)
