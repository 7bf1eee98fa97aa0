"""Epipolar geometry of matches that are placed by the pixels around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.matching.estimators import support
from cv_superpoint.matching.refining import refine_matches

Array = NDArray[Any]

KEPT_SUPPORT = 0.95
"""Share of the matches' agreement with the first matrix that the next must keep."""
ABOUT_AS_FAR = 1.05
"""Two estimates from almost the same matches differ by as much by chance."""

Solve = Callable[[Array, Array], tuple[NDArray[np.float64] | None, NDArray[np.bool_]]]


def refine_epipolar(
    image0: Any,
    image1: Any,
    points0: Array,
    points1: Array,
    matrix: NDArray[np.float64],
    inliers: NDArray[np.bool_],
    solve: Solve,
    *,
    fundamental: Callable[[NDArray[np.float64]], Array] = lambda matrix: matrix,
    threshold: float = 3.0,
) -> tuple[Array, NDArray[np.float64], NDArray[np.bool_]]:
    """Place the inliers of an epipolar geometry by their pixels, and find it again.

    Patches are warped as the matches around them move, because the scene has depth. The new matrix
    is taken if about as many matches agree with it as with the first one before they were placed,
    and those that were placed agree about as well: a distance from a line does not see what they
    gain along it.

    Args:
        image0: Same as for :func:`~cv_superpoint.matching.refining.refine_matches`.
        image1: Same as for ``image0``.
        points0: (M, 2).
        points1: (M, 2), matched row by row.
        matrix: (3, 3), fundamental or essential.
        inliers: (M,) bool, which agree with it.
        solve: Matrix and inliers of matched points.
        fundamental: The fundamental matrix that belongs to a matrix.
        threshold: Pixels by which an inlier may miss its epipolar line.

    Returns:
        The points of image 1, the matrix and its inliers: those given where nothing is gained.
    """
    rows = np.flatnonzero(inliers)
    found = refine_matches(image0, image1, points0[rows], points1[rows])
    if not found.moved.any():
        return points1, matrix, inliers
    refined = points1.copy()
    refined[rows[found.moved]] = found.points1[found.moved]
    again, agree = solve(points0, refined)
    if again is None:
        return points1, matrix, inliers
    before = epipolar_distances(fundamental(matrix), points0, points1)
    after = epipolar_distances(fundamental(again), points0, refined)
    fewer = support(after, threshold) < KEPT_SUPPORT * support(before, threshold)
    moved = rows[found.moved]
    if fewer or np.median(after[moved]) > ABOUT_AS_FAR * np.median(before[moved]):
        return points1, matrix, inliers
    return refined, again, agree


def epipolar_distances(fundamental: Array, points0: Array, points1: Array) -> Array:
    """(M,) pixels by which matches miss their epipolar lines, the larger one of both images."""
    ones = np.ones((len(points0), 1))
    first = np.concatenate([points0, ones], axis=1)
    second = np.concatenate([points1, ones], axis=1)
    lines1, lines0 = first @ fundamental.T, second @ fundamental
    offset = np.abs((lines1 * second).sum(axis=1))
    slope = np.minimum(np.hypot(*lines1[:, :2].T), np.hypot(*lines0[:, :2].T))
    with np.errstate(divide="ignore", invalid="ignore"):
        distances = offset / slope
    return np.asarray(np.where(np.isnan(distances), np.inf, distances))
