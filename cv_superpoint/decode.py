"""From the network's outputs to keypoints: pure functions on numpy arrays.

logits -> heatmap -> non-maximum suppression -> the strongest -> sub-pixel -> descriptors.
Everything here is local, so an image cut into overlapping tiles decodes to the same keypoints.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

CELL_SIZE = 8
SUBPIXEL_RADIUS = 2
"""Pixels around a maximum that its sub-pixel position depends on."""
_ROWS = 128
"""Descriptors that are sampled at a time."""
LARGEST_SHIFT = 0.499
"""Of a sub-pixel position from its maximum, in pixels: rounding gives the maximum back."""

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]


def logits_to_heatmap(logits: Floats) -> Floats:
    """Probability of a keypoint at every pixel.

    Args:
        logits: (h, w, 65), the dustbin last. Channels come last here because one cell's values
            then lie side by side in memory, and because a channels-last network makes them so.

    Returns:
        (8 h, 8 w) float32.
    """
    h, w = logits.shape[:2]
    exponentials = logits - logits.max(axis=-1, keepdims=True)
    np.exp(exponentials, out=exponentials)
    exponentials /= exponentials.sum(axis=-1, keepdims=True)
    cells = exponentials[..., :-1].reshape(h, w, CELL_SIZE, CELL_SIZE)
    heatmap: Floats = cells.transpose(0, 2, 1, 3).reshape(h * CELL_SIZE, w * CELL_SIZE)
    return heatmap


def sliding_maximum(values: NDArray[Any], radius: int) -> NDArray[Any]:
    """Maximum over the (2 radius + 1)^2 window around each pixel; outside counts for nothing.

    Doubling windows take log2(window) passes along each axis, faster in numpy than a general
    maximum filter and independent of cv2.
    """
    low = -np.inf if np.issubdtype(values.dtype, np.floating) else np.iinfo(values.dtype).min
    current = np.pad(values, radius, constant_values=low)
    window = 2 * radius + 1
    reach = 1  # current[i, j] is the maximum of a reach x reach window that starts there
    while reach < window:
        step = min(reach, window - reach)
        current = np.maximum(current[:-step], current[step:])
        current = np.maximum(current[:, :-step], current[:, step:])
        reach += step
    return current


def local_maxima(
    heatmap: Floats,
    threshold: float,
    radius: int,
    window_maximum: Callable[[NDArray[Any], int], NDArray[Any]] = sliding_maximum,
) -> tuple[Indices, Indices]:
    """Pixels above the threshold that no other within ``radius`` (Chebyshev) exceeds.

    Of equal maxima within reach of each other the first in raster order wins, so there are never
    two keypoints closer than ``radius + 1`` and the result does not depend on how it was computed.

    Args:
        heatmap: (H, W) float32, not negative.
        threshold: Probability; a keypoint has more than this.
        radius: In pixels; 0 keeps every pixel above the threshold.
        window_maximum: As :func:`sliding_maximum`, whose place a faster one may take.

    Returns:
        Rows and columns, each (N,), in raster order.
    """
    is_maximum = heatmap > threshold
    if radius:
        is_maximum &= heatmap == window_maximum(heatmap, radius)
    # Flat indices: numpy finds them ten times faster than rows and columns.
    found = np.flatnonzero(is_maximum)
    scores = heatmap.ravel()[found]
    if radius and len(np.unique(scores)) < len(scores):
        # Some are equal: repeat among the maxima with their ranks, which all differ.
        exact = np.float32 if heatmap.size < 1 << 24 else np.float64
        ranks = np.zeros(heatmap.size, exact)
        ranks[found] = np.arange(len(found), 0, -1)
        highest = window_maximum(ranks.reshape(heatmap.shape), radius).ravel()
        found = found[ranks[found] == highest[found]]
    rows, columns = np.divmod(found, heatmap.shape[1])
    return rows, columns


def keypoints(
    heatmap: Floats,
    threshold: float,
    nms_radius: int,
    score_radius: int,
    window_maximum: Callable[[NDArray[Any], int], NDArray[Any]] = sliding_maximum,
) -> tuple[Indices, Indices, Floats]:
    """Local maxima whose score exceeds the threshold.

    The score of a maximum is the sum of the probabilities around it: how likely it is that there
    is a keypoint within ``score_radius``. A corner on a pixel and one between four pixels, each of
    which has a quarter of its probability, then have the same score, so that a small shift of the
    image does not take a keypoint away. A maximum is also higher than the mean of a window that
    just reaches the threshold; where ``nms_radius`` is not smaller than ``score_radius``, it
    always is.

    Args:
        heatmap: (H, W) float32, not negative.
        threshold: Of the score.
        nms_radius: As ``radius`` of :func:`local_maxima`.
        score_radius: Pixels (Chebyshev); 0 scores a maximum by its own probability, as the paper.
        window_maximum: As for :func:`local_maxima`.

    Returns:
        Rows, columns and scores, each (N,), in raster order.
    """
    share = threshold / (2 * score_radius + 1) ** 2
    rows, columns = local_maxima(heatmap, share, nms_radius, window_maximum)
    scores = heatmap[rows, columns]
    if score_radius:
        scores = _around(heatmap, rows, columns, score_radius).sum(axis=(1, 2))
        above = scores > threshold
        rows, columns, scores = rows[above], columns[above], scores[above]
    return rows, columns, scores


def _around(heatmap: Floats, rows: Indices, columns: Indices, radius: int) -> Floats:
    """(N, 2 radius + 1, 2 radius + 1) values around pixels; 0 outside the heatmap."""
    offsets = np.arange(2 * radius + 1)
    padded = np.pad(heatmap, radius)
    patches: Floats = padded[
        rows[:, None, None] + offsets[None, :, None], columns[:, None, None] + offsets
    ]
    return patches


def strongest(scores: Floats, count: int) -> Indices:
    """Indices of the ``count`` highest scores, descending; -1 for all. Ties keep their order."""
    order = np.argsort(-scores, kind="stable")
    return order if count < 0 else order[:count]


def refine(heatmap: Floats, rows: Indices, columns: Indices) -> Floats:
    """Sub-pixel positions: the probability-weighted mean of the 5 x 5 pixels around each maximum.

    Pixels outside the heatmap weigh nothing.

    Returns:
        (N, 2) float32 as (x, y), at most half a pixel from the maximum, so that rounding a
        position gives back the pixel that was found.
    """
    if len(rows) == 0:
        return np.empty((0, 2), np.float32)
    offsets = np.arange(-SUBPIXEL_RADIUS, SUBPIXEL_RADIUS + 1)
    patches = _around(heatmap, rows, columns, SUBPIXEL_RADIUS)
    total = patches.sum(axis=(1, 2))
    shift = np.stack(
        [
            (patches.sum(axis=1) * offsets).sum(axis=1) / total,
            (patches.sum(axis=2) * offsets).sum(axis=1) / total,
        ],
        axis=1,
    )
    shift = np.clip(shift, -LARGEST_SHIFT, LARGEST_SHIFT)
    points: Floats = (np.stack([columns, rows], axis=1) + shift).astype(np.float32)
    return points


def sample_descriptors(dense: Floats, points: Floats) -> Floats:
    """Descriptors at any positions: bilinear between cell centres, made unit length.

    Beyond the outermost cell centres the border cells are repeated.

    Args:
        dense: (h, w, D) float32; cell (i, j) is centred on pixel (8 j + 3.5, 8 i + 3.5).
        points: (N, 2) as (x, y) pixels of the network's input.

    Returns:
        (N, D) float32.
    """
    h, w = dense.shape[:2]
    cells = (points - np.float32((CELL_SIZE - 1) / 2)) / np.float32(CELL_SIZE)
    x = np.clip(cells[:, 0], 0, w - 1)
    y = np.clip(cells[:, 1], 0, h - 1)
    left, top = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
    right, bottom = np.minimum(left + 1, w - 1), np.minimum(top + 1, h - 1)
    fx, fy = (x - left).astype(np.float32), (y - top).astype(np.float32)
    corners = np.stack([top * w + left, top * w + right, bottom * w + left, bottom * w + right])
    weights = np.stack([(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy])[..., None]
    flat = dense.reshape(h * w, -1)
    sampled = np.empty((len(points), flat.shape[1]), np.float32)
    corner = np.empty((min(len(points), _ROWS), flat.shape[1]), np.float32)
    # In blocks that stay in the cache: three times as fast as all rows at once.
    for start in range(0, len(points), _ROWS):
        block = slice(start, start + _ROWS)
        rows = sampled[block]
        np.take(flat, corners[0, block], axis=0, out=rows, mode="clip")
        rows *= weights[0, block]
        for index in (1, 2, 3):
            other = corner[: len(rows)]
            np.take(flat, corners[index, block], axis=0, out=other, mode="clip")
            other *= weights[index, block]
            rows += other
        norms = np.sqrt(np.einsum("nd,nd->n", rows, rows))
        rows /= np.maximum(norms, np.float32(1e-12))[:, None]
    return sampled
