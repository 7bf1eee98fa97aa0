"""Ways to find a maximum below the pixel, as detectors for ``cv-superpoint evaluate``.

``--detectors "superpoint(subpixel=False),superpoint,train.learning.subpixel:mean3,..."`` compares
them with what the package does; docs/results/accuracy.md has the figures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch

from cv_superpoint import SuperPoint
from cv_superpoint.decoding import arrays as decode
from cv_superpoint.detector.features import CELL_DIAMETER, make_keypoints

Refine = Callable[[decode.Floats, decode.Indices, decode.Indices], decode.Floats]
"""Heatmap, rows and columns of its maxima -> (N, 2) positions (x, y)."""


class RefinedSuperPoint:
    """SuperPoint whose whole-pixel keypoints are moved by ``refine`` and described there.

    For grey images, as the protocols give them.
    """

    def __init__(self, refine: Refine, max_keypoints: int = 1000) -> None:
        self.refine = refine
        self.max_keypoints = max_keypoints
        self.module = SuperPoint.from_pretrained()

    @torch.inference_mode()
    def detectAndCompute(  # noqa: N802
        self, image: Any, mask: Any = None
    ) -> tuple[tuple[cv2.KeyPoint, ...], Any]:
        """Same as of ``cv2.Feature2D``; the protocols give no mask."""
        assert mask is None
        grey = torch.from_numpy(np.ascontiguousarray(image)).float()[None, None] / 255
        maps = self.module.dense(grey.contiguous(memory_format=torch.channels_last))
        heatmap, dense = maps[0][0].numpy(), maps[1][0].permute(1, 2, 0).numpy()
        rows, columns, scores = self._keypoints(heatmap)
        points = self.refine(heatmap, rows, columns)
        keypoints = make_keypoints(
            points,
            scores,
            np.full(len(points), CELL_DIAMETER, np.float32),
            np.zeros(len(points), np.int32),
        )
        return keypoints, decode.sample_descriptors(dense, points)

    def _keypoints(
        self, heatmap: decode.Floats
    ) -> tuple[decode.Indices, decode.Indices, decode.Floats]:
        """Rows, columns and scores of the keypoints that the package finds with its defaults."""
        decoding, (height, width) = self.module.decoding, heatmap.shape
        margin = decoding.border_margin
        inside = margin, margin, height - margin, width - margin
        rows, columns, scores = decode.keypoints(heatmap, decoding, inside=inside)
        best = decode.strongest(scores, self.max_keypoints)
        return rows[best], columns[best], scores[best]


def _neighbours(
    heatmap: decode.Floats, rows: decode.Indices, columns: decode.Indices, radius: int
) -> decode.Floats:
    """(N, 2 radius + 1, 2 radius + 1) probabilities around each pixel; outside a tiny one."""
    offsets = np.arange(2 * radius + 1)
    padded = np.pad(np.maximum(heatmap, 1e-9), radius, constant_values=1e-9)
    around: decode.Floats = padded[
        rows[:, None, None] + offsets[:, None], columns[:, None, None] + offsets
    ]
    return around


def _mean(radius: int, power: float) -> Refine:
    """Mean position of the pixels around, weighted by a power of their probabilities."""

    def refine(
        heatmap: decode.Floats, rows: decode.Indices, columns: decode.Indices
    ) -> decode.Floats:
        weights = _neighbours(heatmap, rows, columns, radius) ** power
        weights /= weights.sum(axis=(1, 2), keepdims=True)
        offsets = np.arange(-radius, radius + 1)
        x, y = (weights.sum(axis=1) * offsets).sum(1), (weights.sum(axis=2) * offsets).sum(1)
        return np.stack([columns + x, rows + y], axis=1).astype(np.float32)

    return refine


def _parabola(
    heatmap: decode.Floats, rows: decode.Indices, columns: decode.Indices
) -> decode.Floats:
    """Top of the parabolas through the log-probabilities of three pixels, in x and in y."""
    logs = np.log(_neighbours(heatmap, rows, columns, 1))
    shifts = []
    for before, centre, after in (
        (logs[:, 1, 0], logs[:, 1, 1], logs[:, 1, 2]),
        (logs[:, 0, 1], logs[:, 1, 1], logs[:, 2, 1]),
    ):
        bend = before + after - 2 * centre
        shift = np.where(bend < -1e-6, (before - after) / (2 * np.minimum(bend, -1e-6)), 0)
        shifts.append(np.clip(shift, -0.5, 0.5))
    return np.stack([columns + shifts[0], rows + shifts[1]], axis=1).astype(np.float32)


def mean3(max_keypoints: int = 1000) -> RefinedSuperPoint:
    """Probability-weighted mean of 3 x 3 pixels."""
    return RefinedSuperPoint(_mean(1, 1.0), max_keypoints)


def mean5(max_keypoints: int = 1000) -> RefinedSuperPoint:
    """Probability-weighted mean of 5 x 5 pixels, without the bound of half a pixel."""
    return RefinedSuperPoint(_mean(2, 1.0), max_keypoints)


def mean7(max_keypoints: int = 1000) -> RefinedSuperPoint:
    """Probability-weighted mean of 7 x 7 pixels."""
    return RefinedSuperPoint(_mean(3, 1.0), max_keypoints)


def mean5_root(max_keypoints: int = 1000) -> RefinedSuperPoint:
    """Mean of 5 x 5 pixels weighted by the square roots of the probabilities."""
    return RefinedSuperPoint(_mean(2, 0.5), max_keypoints)


def parabola(max_keypoints: int = 1000) -> RefinedSuperPoint:
    """Parabolas through the log-probabilities."""
    return RefinedSuperPoint(_parabola, max_keypoints)
