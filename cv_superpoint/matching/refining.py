"""Move matched points to where the pixels around them agree best, to a fraction of a pixel.

Image 1 is warped into image 0 by the homography of the matches. Then only a small shift is left
between the two patches of a match. Both pictures are brought to the same local mean and contrast,
which removes gain, offset and slow changes of light. The shift is found by least squares (Lucas and
Kanade, 1981, "An iterative image registration technique with an application to stereo vision",
section 3), patch by patch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cv_superpoint.errors import FeatureError
from cv_superpoint.geometry import warp_points
from cv_superpoint.matching.estimators import (
    KEYPOINT_DEVIATION,
    REACH,
    fit_homography,
    misses,
    support,
)
from cv_superpoint.matching.local_warps import local_affines
from cv_superpoint.matching.patches import (
    Picture,
    Placed,
    Points,
    Sheets,
    cut_sheets,
    even,
    place,
    smooth,
)
from cv_superpoint.pictures.arrays import to_channels

LEAST_PLACED = 8
"""Placed points that a homography is fitted to at least."""
PLACED = 1.0
"""Pixels by which a placed point may miss the others' homography more than its keypoint does."""
NOT_FLAT = 0.3
"""Pixels by which half of the placed points miss the homography of a scene that is not flat."""
KEPT_SUPPORT = 0.9
"""Share of the keypoints' agreement with the first homography that the next must keep."""
WINDOW = 21
"""Side of the patches that are compared, in pixels of image 0."""
FARTHEST = 3.0
"""Pixels of image 0 that a point moves at most: farther ones are another structure."""
WORST = 0.6
"""Correlation of two patches below which they do not show the same."""
MOST_AREA = 9.0
"""Change of area by a match's own map, either way, beyond which its patch is not compared."""
CONTRADICTION, LEAST_CONTRADICTION = 2.0, 0.15
"""Deviations, and pixels, by which a smaller window must differ from a larger one to be taken."""
_PARTS = (2, 3)
"""Divisors of the window's side that give the smaller ones."""
_SMALLEST = 5
_LOCAL_ROUNDS = 2
"""Rounds of warps from neighbouring matches: those of placed ones are right to a hundredth."""
_TOGETHER = 4096
"""Patches on one sheet."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Refined:
    """Result of :func:`refine_matches`.

    Attributes:
        points1: (M, 2) float32, the points of image 1; unchanged where ``moved`` is False.
        moved: (M,) bool, whether the pixels could place each point.
        deviation: (M,) float32, expected standard deviation of a moved point along its less certain
            direction, in pixels of image 0, from the gradients of its patch and what remains
            between both patches; infinite for the others.
    """

    points1: NDArray[np.float32]
    moved: NDArray[np.bool_]
    deviation: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class RefinedHomography:
    """Result of :func:`refine_homography`.

    Attributes:
        points1: (M, 2), of the input's type; unchanged where ``moved`` is False.
        moved: (M,) bool, whether the pixels could place each point.
        homography: (3, 3); the first one where ``accepted`` is False.
        accepted: Whether the homography of the placed points was taken.
    """

    points1: NDArray[Any]
    moved: NDArray[np.bool_]
    homography: NDArray[np.float64]
    accepted: bool


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
        image1: Like ``image0``, of any other size.
        points0: (M, 2) as (x, y) in image 0.
        points1: (M, 2) in image 1, matched row by row.
        homography: (3, 3) from image 0 to image 1, right to a few pixels around the points that
            are to move. None is for scenes with depth: each patch is warped by the affine map that
            the matches around it agree with (see :mod:`cv_superpoint.matching.local_warps`), so
            most of the matches should be right.
        window: Side of the compared patches, odd, in pixels of image 0.
        farthest: Largest distance that a point moves, in pixels of image 0.

    Returns:
        Points that cannot be placed keep their position: patches that reach beyond an image, flat
        ones, those that do not show the same, those that would move too far.

    Raises:
        FeatureError: If an argument is not valid.
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
    if homography is None:
        return _refine_locally(grey0, grey1, first, second, window, farthest)
    matrix = _as_homography(homography)
    return _refine_by(matrix, grey0, grey1, first, second, window, farthest)


def _refine_by(
    matrix: NDArray[np.float64],
    grey0: Picture,
    grey1: Picture,
    first: Points,
    second: Points,
    window: int,
    farthest: float,
) -> Refined:
    """Place all patches, warped by one homography."""
    start = _through(np.asarray(np.linalg.inv(matrix), np.float64), second)
    height, width = grey0.shape[:2]
    usable = _usable(first, start, _whole(grey1.shape[:2], matrix, (width, height), window), window)
    usable &= np.hypot(*(start - first).T) <= farthest
    rows = np.flatnonzero(usable)
    if len(rows) == 0:
        return _moved(second, rows, second[rows], np.empty(0, np.float32))
    pictures = even(grey0), even(_warp(grey1, matrix, (width, height)))
    found = place(*pictures, first[rows], start[rows], window)
    good = found.correlation >= WORST
    good &= np.hypot(*(found.points - first[rows]).T) <= farthest
    return _moved(second, rows[good], _through(matrix, found.points[good]), found.deviation[good])


def _refine_locally(
    grey0: Picture,
    grey1: Picture,
    first: Points,
    second: Points,
    window: int,
    farthest: float,
) -> Refined:
    """Place each patch, warped as the matches around it move; again after these are placed."""
    found = _moved(second, np.empty(0, np.intp), second[:0], np.empty(0, np.float32))
    rows = np.flatnonzero(np.isfinite(first).all(axis=1) & np.isfinite(second).all(axis=1))
    pictures = smooth(grey0), smooth(grey1)
    radius = window // 2 + 2 + min(math.ceil(farthest), window)
    for _ in range(_LOCAL_ROUNDS):
        affines = local_affines(first[rows], found.points1[rows])
        seen = _seen(grey0, first[rows], np.eye(2)[None], window)
        seen &= _seen(grey1, found.points1[rows], affines, window)
        # Not mirrored, nor squeezed to where an affine map says little.
        area = np.linalg.det(affines)
        seen &= (area > 1 / MOST_AREA) & (area < MOST_AREA)
        rows, affines = rows[seen], affines[seen]
        kept = []
        for k in range(0, len(rows), _TOGETHER):
            part, maps = rows[k : k + _TOGETHER], affines[k : k + _TOGETHER]
            start = found.points1[part]
            sheets = cut_sheets(*pictures, first[part], start, maps, radius)
            there = _place_by_windows(sheets, window)
            steps = there.points - sheets.points
            points = start + np.einsum("mij,mj->mi", maps, steps)
            back = np.linalg.solve(maps, (points - second[part])[:, :, None])[:, :, 0]
            good = (there.correlation >= WORST) & (np.hypot(*steps.T) <= farthest)
            good &= np.hypot(*back.T) <= farthest
            kept.append(part[good])
            found.points1[part[good]] = points[good]
            found.deviation[part[good]] = there.deviation[good]
            found.moved[part[good]] = True
        rows = np.concatenate(kept) if kept else rows[:0]
    return found


def _place_by_windows(sheets: Sheets, window: int) -> Placed:
    """The patch's place by the largest window that smaller ones do not contradict.

    A window that reaches over an edge of depth shows two surfaces, which move apart; one that is
    too small determines the shift poorly. So a smaller window's answer is taken where it differs by
    more than its own uncertainty explains (Lepski's method; Katkovnik, "A new method for varying
    adaptive bandwidth selection", IEEE Transactions on Signal Processing 47(9), 1999).
    """
    pictures = sheets.first, sheets.second, sheets.points
    found = place(*pictures, sheets.points, window)
    for part in _PARTS:
        again = place(*pictures, sheets.points, max(_SMALLEST, window // part | 1))
        apart = np.hypot(*(again.points - found.points).T)
        better = (found.correlation >= WORST) & (again.correlation >= WORST)
        better &= apart > np.maximum(CONTRADICTION * again.deviation, LEAST_CONTRADICTION)
        for old, new in zip(found, again, strict=True):
            old[better] = new[better]
    return found


def _moved(
    second: Points, rows: NDArray[np.intp], points: Points, deviation: NDArray[np.float32]
) -> Refined:
    """The result, of those rows that could be placed."""
    points1, moved = second.copy(), np.zeros(len(second), np.bool_)
    deviations = np.full(len(second), np.inf, np.float32)
    points1[rows], deviations[rows], moved[rows] = points, deviation, True
    return Refined(points1=points1, moved=moved, deviation=deviations)


def _seen(
    picture: Picture, points: Points, affines: NDArray[np.float64], window: int
) -> NDArray[np.bool_]:
    """(M,): points around which a whole window, as their maps warp it, lies in a picture."""
    margin = window // 2 + 1
    reach = margin * np.abs(affines).sum(axis=2)
    last = np.array((picture.shape[1] - 1, picture.shape[0] - 1))
    inside = (points - reach >= 0) & (points + reach <= last)
    return np.asarray(inside.all(axis=1))


def refine_homography(
    image0: Any,
    image1: Any,
    points0: NDArray[Any],
    points1: NDArray[Any],
    homography: NDArray[np.float64],
    threshold: float = 3.0,
) -> RefinedHomography:
    """Place matches by their pixels, and fit the homography to them again.

    Placed points count by how exactly they could be placed, others as keypoints do. Where the scene
    is not flat, or the first homography was wrong, the pixels of some part may agree among
    themselves and not with the rest: the new homography is taken if nearly as many keypoints agree
    with it as with the first one.

    Args:
        image0: Same as for :func:`refine_matches`.
        image1: Same as for ``image0``.
        points0: (M, 2), also of wrong matches.
        points1: (M, 2), matched row by row.
        homography: (3, 3), with which most of them agree.
        threshold: Pixels by which an inlier may miss it.
    """
    missed = misses(homography, points0, points1)
    unchanged = RefinedHomography(
        points1=points1,
        moved=np.zeros(len(points1), np.bool_),
        homography=homography,
        accepted=False,
    )
    near = np.flatnonzero(missed <= REACH * threshold)
    for warp in (homography, None):
        found = refine_matches(image0, image1, points0[near], points1[near], warp)
        if found.moved.sum() < LEAST_PLACED:
            return unchanged
        again, refined, moved = _fit_placed(points0, points1, homography, near, found, threshold)
        if np.median(misses(again, points0, refined)[moved]) <= NOT_FLAT:
            break  # else the scene is not flat, and its patches move as their neighbours do
    kept = support(misses(again, points0, points1), threshold)
    if kept < KEPT_SUPPORT * support(missed, threshold):
        return unchanged
    # Where a patch was placed elsewhere than the homography of the others, the keypoint stays.
    astray = moved & (misses(again, points0, refined) > misses(again, points0, points1) + PLACED)
    refined[astray], moved[astray] = points1[astray], False
    return RefinedHomography(points1=refined, moved=moved, homography=again, accepted=True)


def _fit_placed(
    points0: NDArray[Any],
    points1: NDArray[Any],
    start: NDArray[np.float64],
    rows: NDArray[np.intp],
    found: Refined,
    threshold: float,
) -> tuple[NDArray[np.float64], NDArray[Any], NDArray[np.bool_]]:
    """The homography of all matches, the points of image 1, and which were moved.

    Args:
        points0: (M, 2).
        points1: (M, 2).
        start: About the homography.
        rows: Rows of the matches that were tried.
        found: Result of the search for these.
        threshold: Pixels by which an inlier may miss.
    """
    refined, moved = points1.copy(), np.zeros(len(points1), np.bool_)
    refined[rows], moved[rows] = found.points1, found.moved
    deviation = np.full(len(points1), KEYPOINT_DEVIATION)
    deviation[rows] = np.minimum(found.deviation, KEYPOINT_DEVIATION)
    reach = REACH * threshold
    fitted = fit_homography(points0, refined, start, reach=reach, deviation=deviation)
    return fitted, refined, moved


def _as_points(name: str, points: Any) -> NDArray[np.float32]:
    array = np.asarray(points, np.float32)
    if array.size == 0:
        return np.empty((0, 2), np.float32)
    if array.ndim != 2 or array.shape[1] != 2:
        raise FeatureError(f"{name} must be (M, 2) as (x, y), got {array.shape}")
    return np.ascontiguousarray(array)


def _as_homography(homography: Any) -> NDArray[np.float64]:
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
