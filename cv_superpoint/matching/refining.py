"""Matched points moved to where the pixels around them agree best, to a fraction of a pixel.

Image 1 is warped into image 0 by the homography that the matches already give, so that what is
left between the two patches of a match is a small shift. Both pictures are brought to the same
local mean and contrast, which takes away gain, offset and slow changes of light, and the shift is
found by least squares (Lucas and Kanade, 1981, "An iterative image registration technique with an
application to stereo vision", section 3), patch by patch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cv_superpoint.errors import FeatureError
from cv_superpoint.geometry import warp_points
from cv_superpoint.pictures.arrays import to_channels

LEAST_PLACED, PLACED_WITHIN = 8, 1.0
"""Placed points that a homography is taken from at least, and how far they may miss it, in px."""
WINDOW = 21
"""Side of the patches that are compared, in pixels of image 0."""
FARTHEST = 3.0
"""Pixels of image 0 that a point moves at most: farther ones are another structure."""
_AROUND = 25
"""Side of the square that local mean and contrast are taken of, in pixels."""
_SMOOTH = 0.7
"""Of the Gaussian before, in pixels: bilinear samples of sharper pictures pull to whole pixels."""
_FLAT = 4.0
"""Grey levels of contrast that are added to every one, so that noise is not blown up."""
_LEVELS = 36.0
"""Grey levels of one standard deviation after it."""
_STEPS = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 20, 0.005)
_WORST = 0.6
"""Correlation of two patches below which they do not show the same."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Refined:
    """What :func:`refine_matches` found.

    Attributes:
        points1: (M, 2) float32, the points of image 1; as they were where ``moved`` is False.
        moved: (M,) bool, which ones the pixels could place.
        deviation: (M,) float32, expected standard deviation of a moved point along its less certain
            direction, in pixels of image 0, from the gradients of its patch and what remains
            between both patches; infinite for the others.
    """

    points1: NDArray[np.float32]
    moved: NDArray[np.bool_]
    deviation: NDArray[np.float32]


def refine_matches(
    image0: Any,
    image1: Any,
    points0: Any,
    points1: Any,
    homography: Any = None,
    *,
    window: int = WINDOW,
    farthest: float = FARTHEST,
) -> Refined:
    """Move the second point of each match to where the pixels agree.

    Args:
        image0: uint8, (H, W) or (H, W, C) with 1, 3 (BGR) or 4 (BGRA) channels.
        image1: Likewise, of any other size.
        points0: (M, 2) as (x, y) in image 0.
        points1: (M, 2) in image 1, matched row by row.
        homography: (3, 3) from image 0 to image 1, right to a few pixels around the points that
            are to move; None takes the images as shifted alone, by the median of the matches.
        window: Side of the compared patches, odd, in pixels of image 0.
        farthest: Pixels of image 0 that a point moves at most.

    Returns:
        Points that cannot be placed keep their position: patches that reach beyond an image, flat
        ones, those that do not show the same, those that would move too far.

    Raises:
        FeatureError: If an argument is not as above.
    """
    first, second = (
        _as_points(name, p) for name, p in (("points0", points0), ("points1", points1))
    )
    if len(first) != len(second):
        raise FeatureError(f"points0 and points1 must match, got {len(first)} and {len(second)}")
    if window < 5 or window % 2 == 0:
        raise FeatureError(f"window must be an odd number of pixels, at least 5, got {window}")
    if not farthest > 0:
        raise FeatureError(f"farthest must be a positive number of pixels, got {farthest}")
    grey0, grey1 = to_channels(image0, 1), to_channels(image1, 1)
    matrix = _as_homography(homography, first, second)
    nothing = np.zeros(len(first), np.bool_)
    kept = Refined(points1=second, moved=nothing, deviation=np.full(len(first), np.inf, np.float32))
    if len(first) == 0:
        return kept
    start = _through(np.asarray(np.linalg.inv(matrix), np.float64), second)
    height, width = grey0.shape[:2]
    warped = _warp(grey1, matrix, (width, height))
    usable = _usable(first, start, _whole(grey1.shape[:2], matrix, (width, height), window), window)
    usable &= np.hypot(*(start - first).T) <= farthest
    rows = np.flatnonzero(usable)
    if len(rows) == 0:
        return kept
    pictures = _even(grey0), _even(warped)
    placed, status, _ = cv2.calcOpticalFlowPyrLK(
        *pictures,
        first[rows, None],
        start[rows, None].copy(),
        winSize=(window, window),
        maxLevel=0,
        criteria=_STEPS,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )
    found = np.asarray(placed, np.float32).reshape(-1, 2)
    good = np.asarray(status).reshape(-1) > 0
    good &= np.hypot(*(found - first[rows]).T) <= farthest
    correlation, deviation = _compare(*pictures, first[rows], found, window)
    good &= correlation >= _WORST
    rows, found, deviation = rows[good], found[good], deviation[good]
    points, deviations, moved = second.copy(), kept.deviation.copy(), nothing.copy()
    points[rows] = _through(matrix, found)
    deviations[rows], moved[rows] = deviation, True
    return Refined(points1=points, moved=moved, deviation=deviations)


def refine_homography(
    image0: Any,
    image1: Any,
    points0: NDArray[Any],
    points1: NDArray[Any],
    homography: NDArray[np.float64],
    inliers: NDArray[np.bool_],
    estimate: Callable[
        [NDArray[Any], NDArray[Any]], tuple[NDArray[np.float64] | None, NDArray[np.bool_]]
    ],
) -> tuple[NDArray[Any], NDArray[np.float64] | None, NDArray[np.bool_]]:
    """Place the inliers of a homography, and take it again from those that could be placed.

    Args:
        image0: As of :func:`refine_matches`.
        image1: Likewise.
        points0: (M, 2).
        points1: (M, 2), matched row by row.
        homography: (3, 3), which the inliers agree with.
        inliers: (M,) bool.
        estimate: Homography and inliers of matched points, which may miss it by
            :data:`PLACED_WITHIN`.

    Returns:
        The points of image 1, of the type that they came in; the homography, or None where too few
        could be placed or the pixels do not agree with one another, so that the keypoints know
        better; and its inliers (M,).
    """
    rows, placed = np.flatnonzero(inliers), np.zeros_like(inliers)
    found = refine_matches(image0, image1, points0[rows], points1[rows], homography)
    points1, moved = points1.copy(), rows[found.moved]
    points1[moved] = found.points1[found.moved]
    if len(moved) < LEAST_PLACED:
        return points1, None, placed
    again, agree = estimate(points0[moved], points1[moved])
    if again is None or agree.sum() < max(LEAST_PLACED, len(moved) / 2):
        return points1, None, placed
    placed[moved[agree]] = True
    return points1, again, placed


def _as_points(name: str, points: Any) -> NDArray[np.float32]:
    array = np.asarray(points, np.float32)
    if array.size == 0:
        return np.empty((0, 2), np.float32)
    if array.ndim != 2 or array.shape[1] != 2:
        raise FeatureError(f"{name} must be (M, 2) as (x, y), got {array.shape}")
    return np.ascontiguousarray(array)


def _as_homography(
    homography: Any, first: NDArray[np.float32], second: NDArray[np.float32]
) -> NDArray[np.float64]:
    if homography is None:
        matrix = np.eye(3)
        if len(first):
            matrix[:2, 2] = np.median(second - first, axis=0)
        return matrix
    matrix = np.asarray(homography, np.float64)
    if (
        matrix.shape != (3, 3)
        or not np.isfinite(matrix).all()
        or abs(np.linalg.det(matrix)) < 1e-12
    ):
        raise FeatureError("homography must be an invertible (3, 3) matrix of finite numbers")
    return matrix


def _through(matrix: NDArray[np.float64], points: NDArray[np.float32]) -> NDArray[np.float32]:
    return warp_points(matrix, points.astype(np.float64)).astype(np.float32)


def _warp(
    picture: NDArray[np.uint8], matrix: NDArray[np.float64], size: tuple[int, int]
) -> NDArray[np.float32]:
    """Image 1 as image 0 would show it."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    # Not in bytes, which OpenCV places to 1/32 of a pixel only.
    warped = cv2.warpPerspective(
        picture.astype(np.float32), matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(warped, np.float32)


def _whole(
    shape: tuple[int, ...], matrix: NDArray[np.float64], size: tuple[int, int], window: int
) -> NDArray[np.bool_]:
    """(H, W): pixels of image 0 around which a whole window shows image 1."""
    inside = np.full(shape[:2], 255, np.uint8)
    inside[[0, -1]] = inside[:, [0, -1]] = 0
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    seen = cv2.warpPerspective(inside, matrix, size, flags=flags)
    seen = cv2.copyMakeBorder(seen, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    whole = cv2.erode(seen, np.ones((window, window), np.uint8))[1:-1, 1:-1]
    return np.asarray(whole) > 0


def _usable(
    first: NDArray[np.float32],
    start: NDArray[np.float32],
    whole: NDArray[np.bool_],
    window: int,
) -> NDArray[np.bool_]:
    height, width = whole.shape
    margin = window // 2 + 1
    last = np.array((width - 1 - margin, height - 1 - margin), np.float32)
    inside = np.isfinite(start).all(axis=1) & (first >= margin).all(axis=1)
    usable: NDArray[np.bool_] = np.logical_and(inside, (first <= last).all(axis=1))  # not NaN
    columns, rows = np.rint(first[usable]).astype(np.intp).T
    usable[usable] = whole[rows, columns]
    return usable


def _even(picture: NDArray[Any]) -> NDArray[np.uint8]:
    """A picture with the same local mean and contrast everywhere."""
    values = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), _SMOOTH)
    mean = cv2.boxFilter(values, -1, (_AROUND, _AROUND))
    square = cv2.sqrBoxFilter(values, -1, (_AROUND, _AROUND))
    contrast = np.sqrt(np.maximum(square - mean * mean, 0)) + _FLAT
    even = np.clip(128 + _LEVELS * (values - mean) / contrast, 0, 255)
    return np.asarray(even.round(), np.uint8)


def _compare(
    picture0: NDArray[np.uint8],
    picture1: NDArray[np.uint8],
    points0: NDArray[np.float32],
    points1: NDArray[np.float32],
    window: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Correlation of the patches around matched points, and the deviation of a least-squares shift.

    The shift's covariance is the inverse of the gradients' matrix times the variance of what
    remains between the patches.
    """
    patches = [
        _patches(picture, points, window)
        for picture, points in ((picture0, points0), (picture1, points1))
    ]
    centred = [each - each.mean(axis=1, keepdims=True) for each in patches]
    power = [np.einsum("mk,mk->m", each, each) for each in centred]
    product = np.einsum("mk,mk->m", *centred)
    correlation = product / np.sqrt(np.maximum(power[0] * power[1], 1e-6))
    rest = np.maximum(power[0] + power[1] - 2 * product, 0) / patches[0].shape[1]
    # The smaller eigenvalue of the matrix; OpenCV takes twice the gradients, over 255 and the side.
    eigenvalues = cv2.cornerMinEigenVal(picture0, window, ksize=3)
    columns, rows = np.rint(points0).astype(np.intp).T
    smallest = eigenvalues[rows, columns] * np.float32((255 * window / 2) ** 2)
    return correlation, np.sqrt(rest / np.maximum(smallest, 1e-6))


def _patches(
    picture: NDArray[np.uint8], points: NDArray[np.float32], window: int
) -> NDArray[np.float32]:
    """(M, K) float32, bilinear: every second pixel of a window, in both directions."""
    offsets = np.arange(-(window // 2), window // 2 + 1, 2, dtype=np.float32)
    x, y = np.meshgrid(offsets, offsets)
    columns, rows = points[:, :1] + x.reshape(-1), points[:, 1:] + y.reshape(-1)
    # OpenCV's maps have at most 32767 rows.
    parts = [
        cv2.remap(picture, columns[k : k + 32767], rows[k : k + 32767], cv2.INTER_LINEAR)
        for k in range(0, len(points), 32767)
    ]
    return np.concatenate(parts).astype(np.float32)
