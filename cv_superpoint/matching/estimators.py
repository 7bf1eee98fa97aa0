"""Find homographies and fundamental matrices from matches of which some are wrong.

A random sample finds the matches that belong together; a homography is then fitted to all of them
by least squares, each counting by how well it fits. The scale of the misses is taken from the
matches themselves: where one homography explains the scene all misses are small and a wrong match
counts for nothing; where the scene is not quite flat, all of it counts, so that the homography
does not fit one part only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from cv_superpoint.errors import FeatureError

Model = Literal["homography", "fundamental"]
Estimator = Literal["least-squares", "magsac", "ransac"]

ESTIMATORS = ("least-squares", "magsac", "ransac")
MAX_ITERATIONS = 10_000
CONFIDENCE = 0.9999
MINIMUM = {"homography": 4, "fundamental": 8}
"""Matches below which a model is not determined."""

REACH = 8 / 3
"""Multiple of the threshold up to which matches count in the fit of a homography, a little."""
KEYPOINT_DEVIATION = 0.8
"""Pixels, of matched keypoints whose pixels say nothing better."""
_SOFTNESS = 3.5
"""Scales at which a match counts a quarter."""
_FINEST = 0.05
"""Pixels; no scale is smaller."""
_ROUNDS = 8
_LEAST = 6
"""Matches that a fit needs; with fewer the sample's homography stays."""

Array = NDArray[Any]
Found = tuple[NDArray[np.float64] | None, NDArray[np.bool_]]


def find_model(
    points0: Array,
    points1: Array,
    *,
    model: Model = "homography",
    threshold: float = 3.0,
    estimator: Estimator | None = None,
) -> Found:
    """Find the model with which most matches agree.

    Args:
        points0: (M, 2).
        points1: (M, 2), matched row by row.
        model: "homography" or "fundamental".
        threshold: Pixels by which an inlier may miss its place, or its epipolar line.
        estimator: "magsac" (``cv2.USAC_MAGSAC``), "ransac" (``cv2.RANSAC``), or "least-squares",
            MAGSAC and a fit to all matches, for homographies only. None takes the best one
            measured: least squares for a homography, MAGSAC for a fundamental matrix.

    Returns:
        (3, 3) and (M,) bool, the inliers; None and no inlier where there is no model. The same
        matches give the same result.

    Raises:
        FeatureError: If ``estimator`` does not exist for ``model``.
    """
    estimator = check_estimator(estimator, model)
    nothing = np.zeros(len(points0), np.bool_)
    if len(points0) < MINIMUM[model]:
        return None, nothing

    def find(method: int) -> Any:
        if model == "homography":
            return cv2.findHomography(
                points0,
                points1,
                method,
                threshold,
                maxIters=MAX_ITERATIONS,
                confidence=CONFIDENCE,
            )
        return cv2.findFundamentalMat(
            points0, points1, method, threshold, CONFIDENCE, MAX_ITERATIONS
        )

    matrix, inliers = robust_model(find, cv2.RANSAC if estimator == "ransac" else cv2.USAC_MAGSAC)
    if matrix is None:
        return None, nothing
    if estimator != "least-squares":
        return matrix, inliers
    fitted = fit_homography(points0, points1, matrix, reach=REACH * threshold)
    agree = misses(fitted, points0, points1) <= threshold
    return (fitted, agree) if agree.sum() >= inliers.sum() / 2 else (matrix, inliers)


def check_estimator(estimator: Estimator | None, model: Model) -> Estimator:
    """The estimator, or the best one for a model.

    Raises:
        FeatureError: If there is no such estimator, or not for that model.
    """
    if estimator is None:
        return "least-squares" if model == "homography" else "magsac"
    if estimator not in ESTIMATORS:
        raise FeatureError(f"estimator must be one of {', '.join(ESTIMATORS)}, got {estimator!r}")
    if estimator == "least-squares" and model != "homography":
        raise FeatureError(
            f"estimator='least-squares' needs model='homography', got {model!r}; leave it out, or "
            "take 'magsac'"
        )
    return estimator


def robust_model(find: Callable[[int], Any], method: int = cv2.USAC_MAGSAC) -> Found:
    """A (3, 3) model and its inliers by MAGSAC; by plain RANSAC where OpenCV's MAGSAC fails.

    Args:
        find: OpenCV's estimator, with the method left open. MAGSAC draws from a generator of its
            own with a fixed seed.
        method: ``cv2.RANSAC`` instead.

    Returns:
        None and no inliers where there is no single model.
    """
    try:
        matrix, mask = find(method)
    except cv2.error:  # its local optimisation asserts on some sets of few matches
        matrix, mask = find(cv2.RANSAC)
    if matrix is None or matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        return None, np.zeros(0, np.bool_)
    return matrix.astype(np.float64), mask.reshape(-1) > 0


def misses(homography: NDArray[np.float64], points0: Array, points1: Array) -> Array:
    """(M,) pixels of image 1 by which matches miss a homography; infinite beyond its horizon."""
    seen = np.concatenate([points0, np.ones((len(points0), 1))], axis=1) @ homography.T
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        away = seen[:, :2] / seen[:, 2:] - points1
        length = np.hypot(away[:, 0], away[:, 1])
    return np.asarray(np.where(np.isnan(length), np.inf, length))


def support(missed: Array, threshold: float) -> float:
    """How many matches agree with a model, each the less the more it misses."""
    return float(np.maximum(0, 1 - (missed / threshold) ** 2).sum())


def fit_homography(
    points0: Array,
    points1: Array,
    start: NDArray[np.float64],
    *,
    reach: float,
    deviation: Array | None = None,
) -> NDArray[np.float64]:
    """The homography that matches agree with best, near one that is about right.

    Least squares of the distances in image 1 by Gauss and Newton, each match weighted by Geman and
    McClure's function of its distance, over the scale of all and its own deviation.

    Args:
        points0: (M, 2).
        points1: (M, 2), matched row by row.
        start: (3, 3), about right.
        reach: Pixels by which a match may miss and still count.
        deviation: (M,) standard deviation of each match in pixels; None takes all alike.

    Returns:
        (3, 3); ``start`` where too few matches are near it, or they do not fix a homography.
    """
    current = np.asarray(start, np.float64)
    first, second = points0.astype(np.float64), points1.astype(np.float64)
    known = np.zeros(len(first)) if deviation is None else np.asarray(deviation, np.float64)
    for _ in range(_ROUNDS):
        missed = misses(current, first, second)
        near = np.flatnonzero(missed < reach)
        if len(near) < _LEAST:
            return np.asarray(start, np.float64)
        variance = known[near] ** 2
        variance += _unexplained(missed[near] ** 2, variance)
        weights = 1 / (1 + missed[near] ** 2 / (_SOFTNESS**2 * variance)) ** 2 / variance
        moved = _step(first[near], second[near], weights, current)
        if moved is None:
            return np.asarray(start, np.float64)
        current = moved
    return current


def weighted_dlt(
    points0: Array, points1: Array, weights: Array | None = None
) -> NDArray[np.float64] | None:
    """The homography by the direct linear transform of all matches: none is taken for wrong.

    It says how right the matches are, and is for comparisons, not for use.

    Args:
        points0: (M, 2).
        points1: (M, 2), matched row by row.
        weights: (M,) of the squared equations; None takes all alike.

    Returns:
        (3, 3), or None where the matches do not fix one.

    Source:
        Hartley and Zisserman, "Multiple View Geometry", algorithm 4.2; weights as in the
        evaluation of LightGlue.
    """
    if len(points0) < MINIMUM["homography"]:
        return None
    (first, to0), (second, to1) = (_normalised(points) for points in (points0, points1))
    (x, y), (u, v) = first.T, second.T
    ones, zeros = np.ones(len(first)), np.zeros(len(first))
    rows = [
        [zeros, zeros, zeros, -x, -y, -ones, v * x, v * y, v],
        [x, y, ones, zeros, zeros, zeros, -u * x, -u * y, -u],
    ]
    equations = np.concatenate([np.stack(row, axis=1) for row in rows])
    scale = np.ones(len(first)) if weights is None else np.asarray(weights, np.float64)
    vector = np.linalg.eigh(equations.T @ (np.tile(scale, 2)[:, None] * equations))[1][:, 0]
    matrix = np.linalg.inv(to1) @ vector.reshape(3, 3) @ to0
    if not np.isfinite(matrix).all() or abs(matrix[2, 2]) < 1e-12 * np.abs(matrix).max():
        return None
    return np.asarray(matrix / matrix[2, 2], np.float64)


def _normalised(points: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points about their centre, root 2 away on average, and the (3, 3) map to them."""
    points = np.asarray(points, np.float64)
    centre = points.mean(axis=0)
    away = float(np.linalg.norm(points - centre, axis=1).mean())
    scale = math.sqrt(2) / max(away, 1e-12)
    matrix = np.array([[scale, 0, -scale * centre[0]], [0, scale, -scale * centre[1]], [0, 0, 1]])
    return (points - centre) * scale, matrix


def _unexplained(squares: NDArray[np.float64], known: NDArray[np.float64]) -> float:
    """The variance beside the known one that makes the misses as long as they are.

    Half of all vectors with normal parts of variance 1 have squared lengths up to 1.386.
    """
    low, high = _FINEST**2, max(float(squares.max()), 2 * _FINEST**2)
    for _ in range(20):
        middle = math.sqrt(low * high)
        if np.median(squares / (known + middle)) > 1.386:
            low = middle
        else:
            high = middle
    return high


def _step(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    weights: NDArray[np.float64],
    homography: NDArray[np.float64],
) -> NDArray[np.float64] | None:
    """A step of Gauss and Newton; None where the points do not fix a homography."""
    onto0, onto1 = _centring(first), _centring(second)
    x, y = (first * onto0[0, 0] + onto0[:2, 2]).T
    target = second * onto1[0, 0] + onto1[:2, 2]
    current = onto1 @ homography @ np.linalg.inv(onto0)
    current = current / current[2, 2]
    u, v, depth = current @ np.stack([x, y, np.ones_like(x)])
    u, v, each = u / depth, v / depth, 1 / depth
    none = np.zeros_like(x)
    rows = np.concatenate(
        [
            np.stack([x, y, none + 1, none, none, none, -u * x, -u * y]) * each,
            np.stack([none, none, none, x, y, none + 1, -v * x, -v * y]) * each,
        ],
        axis=1,
    )
    rest = np.concatenate([target[:, 0] - u, target[:, 1] - v])
    weighted = rows * np.tile(weights, 2)
    curvature = weighted @ rows.T
    if not np.isfinite(curvature).all() or np.linalg.cond(curvature) > 1e12:
        return None
    current.flat[:8] += np.linalg.solve(curvature, weighted @ rest)
    moved = np.linalg.inv(onto1) @ current @ onto0
    if not np.isfinite(moved).all() or abs(np.linalg.det(moved)) < 1e-12:
        return None
    return np.asarray(moved / (moved[2, 2] or 1.0), np.float64)


def _centring(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, 3) to coordinates of the order of 1 around the points' middle."""
    middle = points.mean(axis=0)
    scale = 1 / max(float(points.std()), 1e-6)
    return np.array([[scale, 0, -scale * middle[0]], [0, scale, -scale * middle[1]], [0, 0, 1.0]])
