"""The decoding as plainly as numpy says it, one step after the other: what the fast one must give.

Convention: as :mod:`cv_superpoint.decoding.arrays`, float32 throughout.
"""

from __future__ import annotations

import numpy as np


def logits_to_heatmap(logits: np.ndarray) -> np.ndarray:
    h, w = logits.shape[:2]
    logits = np.ascontiguousarray(logits)
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities = exponentials / exponentials.sum(axis=-1, keepdims=True)
    cells = probabilities[..., :-1].reshape(h, w, 8, 8)
    return cells.transpose(0, 2, 1, 3).reshape(8 * h, 8 * w)


def window(heatmap: np.ndarray, row: int, column: int, radius: int) -> np.ndarray:
    """Values around a pixel; 0 outside the heatmap."""
    side = 2 * radius + 1
    padded = np.pad(heatmap, radius)
    return np.ascontiguousarray(padded[row : row + side, column : column + side])


def maxima(heatmap: np.ndarray, threshold: float, radius: int) -> list[tuple[int, int]]:
    """Rows and columns; of equal maxima within reach of each other those before which is none."""
    found = [
        (int(row), int(column))
        for row, column in np.argwhere(heatmap > np.float32(threshold))
        if heatmap[row, column] == window(heatmap, row, column, radius).max()
    ]
    return [
        (row, column)
        for index, (row, column) in enumerate(found)
        if not any(abs(v - row) <= radius and abs(u - column) <= radius for v, u in found[:index])
    ]


def keypoints(
    heatmap: np.ndarray, threshold: float, nms_radius: int, score_radius: int
) -> list[tuple[int, int, np.float32]]:
    """Row, column and score of each."""
    share = threshold / (2 * score_radius + 1) ** 2
    scored = [
        (row, column, window(heatmap, row, column, score_radius).sum(dtype=np.float32))
        for row, column in maxima(heatmap, share, nms_radius)
    ]
    return [one for one in scored if one[2] > np.float32(threshold)]


def refine(heatmap: np.ndarray, row: int, column: int) -> np.ndarray:
    offsets = np.arange(-2, 3)
    patch = window(heatmap, row, column, 2)
    total = patch.sum()
    shift = [(patch.sum(axis=axis) * offsets).sum() / total for axis in (0, 1)]
    shift = np.clip(shift, -0.499, 0.499)
    return (np.array([column, row]) + shift).astype(np.float32)


def sample(dense: np.ndarray, x: float, y: float) -> np.ndarray:
    """The mean of the unit cells around a point, weighted bilinearly, in float64."""
    dense = dense.astype(np.float64)
    dense = dense / np.maximum(np.linalg.norm(dense, axis=-1, keepdims=True), 1e-12)
    h, w = dense.shape[:2]
    x, y = np.clip((x - 3.5) / 8, 0, w - 1), np.clip((y - 3.5) / 8, 0, h - 1)
    left, top = int(x), int(y)
    right, bottom = min(left + 1, w - 1), min(top + 1, h - 1)
    fx, fy = x - left, y - top
    upper = dense[top, left] * (1 - fx) + dense[top, right] * fx
    lower = dense[bottom, left] * (1 - fx) + dense[bottom, right] * fx
    return upper * (1 - fy) + lower * fy
