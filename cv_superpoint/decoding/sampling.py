"""Descriptors between the cells of the network, on numpy arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.grid import CELL_SIZE

_ROWS = 128
"""Descriptors that are sampled at a time, so that their cells stay in the cache."""

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]


def sample_descriptors(dense: Floats, points: Floats) -> Floats:
    """Descriptors at any positions: bilinear between the cells' unit descriptors, made unit length.

    Beyond the outermost cell centres the border cells are repeated.

    Args:
        dense: (h, w, D) float32, of any length; cell (i, j) is centred on pixel
            (8 j + 3.5, 8 i + 3.5). In any order of memory, but only one that keeps the values of a
            cell side by side is not copied.
        points: (N, 2) as (x, y) pixels of the network's input.

    Returns:
        (N, D) float32.
    """
    h, w, length = dense.shape
    if not length:  # of a network that gives keypoints only
        return np.empty((len(points), 0), np.float32)
    cells = np.ascontiguousarray(dense).reshape(h * w, length)
    corners, weights = _corners(points, h, w)
    # Of all cells: to read them in their order takes no longer than those around the points.
    weights /= _lengths(cells).take(corners, mode="clip")
    sampled = np.empty((len(points), length), np.float32)
    around = np.empty((min(len(points), _ROWS), 4, length), np.float32)
    for start in range(0, len(points), _ROWS):
        block = slice(start, start + _ROWS)
        rows = sampled[block]
        four = around[: len(rows)]
        np.take(cells, corners[block], axis=0, out=four, mode="clip")
        np.matmul(weights[block, None], four, out=rows[:, None])
    sampled *= 1 / _lengths(sampled)[:, None]
    return sampled


def _corners(points: Floats, h: int, w: int) -> tuple[Indices, Floats]:
    """Flat indices and bilinear weights (N, 4) of the cells around each point.

    A corner of weight 0 may lie outside the map, where an index is to be clipped.
    """
    centre, last = np.float32((CELL_SIZE - 1) / 2), np.array(((w - 1,), (h - 1,)), np.float32)
    cells = np.minimum(np.maximum((points.T - centre) / np.float32(CELL_SIZE), 0), last)
    first = cells.astype(np.intp)
    x, y = shares = np.empty((2, 2, len(points)), np.float32)
    np.subtract(cells, first.astype(np.float32), out=shares[:, 1])
    np.subtract(1, shares[:, 1], out=shares[:, 0])
    weights = np.ascontiguousarray((y[:, None] * x).reshape(4, -1).T)
    return (first[1] * w + first[0])[:, None] + np.array((0, 1, w, w + 1)), weights


def _lengths(rows: Floats) -> Floats:
    """Lengths of the rows of (N, D); none is 0."""
    # Products of a row and a column, row by row: twice as fast as einsum's.
    lengths = np.sqrt(np.matmul(rows[:, None], rows[:, :, None])[:, 0, 0])
    positive: Floats = np.maximum(lengths, np.float32(1e-12))
    return positive
