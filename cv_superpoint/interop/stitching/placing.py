"""Keypoints of overlapping pictures moved to where the pixels of each two of them agree.

Each pair says how far the second keypoint of a match should lie from the first one's place. A
keypoint that several pictures see gets the place that all its matches together agree with best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.detector.features import Features
from cv_superpoint.geometry import warp_points
from cv_superpoint.interop.stitching.pairs import Link, find_links
from cv_superpoint.matching.refining import refine_homography
from cv_superpoint.pictures.arrays import ByteArray

_SWEEPS = 30
_HOLD = 1e-3
"""Weight of a keypoint's own place against a match: what no match decides stays where it was."""

Matrix = NDArray[np.float64]


def place_keypoints(
    pictures: Sequence[ByteArray],
    features: Sequence[Features],
    converted: Sequence[Any],
    pairs: Any,
    links: Sequence[Link],
) -> tuple[list[Features], list[Link]]:
    """The features and the links after their keypoints were placed by the pixels.

    Args:
        pictures: (H, W, 3) uint8 each.
        features: Features of each picture.
        converted: OpenCV's features of each picture, whose keypoints are moved as well.
        pairs: OpenCV's matches.
        links: The pairs to rely on.
    """
    starts = np.concatenate([[0], np.cumsum([len(each) for each in features])])
    observed = []
    for link in links:
        first, second = link.first, link.second
        rows0, rows1 = link.rows
        exact = refine_homography(
            pictures[first], pictures[second], link.points0, link.points1, link.homography
        )
        if not exact.accepted:
            continue
        away = (exact.points1 - link.points1)[exact.moved]
        change = _change(exact.homography, link.points0[exact.moved])
        nodes = starts[first] + rows0[exact.moved], starts[second] + rows1[exact.moved]
        observed.append((*nodes, change, away))
    if not observed:
        return list(features), list(links)
    moves = _agree(int(starts[-1]), *map(np.concatenate, zip(*observed, strict=True)))
    placed = []
    for each, own, start in zip(features, converted, starts[:-1], strict=True):
        points = each.keypoints + moves[start : start + len(each)].astype(np.float32)
        placed.append(replace(each, keypoints=points))
        own.keypoints = placed[-1].to_keypoints()
    return placed, find_links(placed, pairs)


def _change(homography: Matrix, points: Matrix) -> Matrix:
    """(K, 2, 2): a small step at a point in the first picture is that step in the second."""
    steps = [
        warp_points(homography, points + step) - warp_points(homography, points - step)
        for step in np.array([[0.5, 0], [0, 0.5]])
    ]
    return np.stack(steps, axis=2)


def _agree(
    count: int, first: NDArray[np.intp], second: NDArray[np.intp], change: Matrix, away: Matrix
) -> Matrix:
    """(count, 2) moves of all keypoints, by least squares in sweeps (Jacobi, half a step each).

    Args:
        count: Number of keypoints.
        first: (K,) of each match.
        second: (K,) likewise.
        change: (K, 2, 2) from moves of the first to those of the second.
        away: (K, 2) by which the second should lie farther from the first.
    """
    back = np.linalg.inv(change)
    matches = np.bincount(np.concatenate([first, second]), minlength=count)[:, None] + _HOLD
    moves = np.zeros((count, 2))
    for _ in range(_SWEEPS):
        total = np.zeros((count, 2))
        np.add.at(total, second, np.einsum("kij,kj->ki", change, moves[first]) + away)
        np.add.at(total, first, np.einsum("kij,kj->ki", back, moves[second] - away))
        moves = (moves + total / matches) / 2
    return moves
