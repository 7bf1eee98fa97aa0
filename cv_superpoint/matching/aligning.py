"""Align two views of a plane over all of their overlap, from a homography that is nearly right.

The correlation of both pictures is maximised over the eight numbers of a homography (Evangelidis
and Psarakis, "Parametric image alignment using enhanced correlation coefficient maximization", IEEE
TPAMI 30(10), 2008; ``cv2.findTransformECC``), from coarse to fine. It uses every pixel, so it is
for scenes that are flat all over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cv_superpoint.errors import FeatureError
from cv_superpoint.geometry import resize_matrix, valid_mask, warp_image, warp_points
from cv_superpoint.matching.patches import Picture, even
from cv_superpoint.pictures.arrays import to_channels

FARTHEST = 5.0
"""Pixels by which a corner of the overlap moves at most."""
LEAST_OVERLAP = 1024
"""Pixels of image 0 that both pictures show at least."""
_LEVELS = (2, 1)
_SMALLEST = 64
"""Shorter side, in pixels, of a level."""
_STEPS = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 40, 1e-6)
_BORDER = 4
"""Pixels at the borders of image 1 that do not count."""

Matrix = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Aligned:
    """Result of :func:`align_homography`.

    Attributes:
        homography: (3, 3); the one given where ``accepted`` is False.
        correlation: Correlation of both pictures over their overlap, with it.
        accepted: Whether the pictures agree better with it than with the one given.
    """

    homography: Matrix
    correlation: float
    accepted: bool


def align_homography(image0: Any, image1: Any, homography: Any) -> Aligned:
    """Align two views of a plane over their overlap.

    Args:
        image0: uint8, (H, W) or (H, W, C) with 1, 3 (BGR) or 4 (BGRA) channels.
        image1: Like ``image0``, of any other size.
        homography: (3, 3) from image 0 to image 1, right to a few pixels.

    Returns:
        The homography that makes the pictures correlate most; the one given where the overlap is
        small, the search fails or ends further than :data:`FARTHEST` away, or nothing is gained.

    Raises:
        FeatureError: If an image or the homography is not valid.
    """
    start = np.asarray(homography, np.float64)
    if start.shape != (3, 3) or not np.isfinite(start).all() or abs(np.linalg.det(start)) < 1e-12:
        raise FeatureError("homography must be an invertible (3, 3) matrix of finite numbers")
    pictures = even(to_channels(image0, 1)), even(to_channels(image1, 1))
    before = overlap_correlation(*pictures, start)
    kept = Aligned(homography=start, correlation=before, accepted=False)
    if not np.isfinite(before):
        return kept
    current = start
    for level in _LEVELS:
        if level > 1 and min(*pictures[0].shape, *pictures[1].shape) < level * _SMALLEST:
            continue
        try:
            current = _climb(*pictures, current, level)
        except cv2.error:  # no overlap, or no contrast in it
            return kept
    after = overlap_correlation(*pictures, current)
    if not after > before or _moved(start, current, pictures[0].shape) > FARTHEST:
        return kept
    return Aligned(homography=current, correlation=after, accepted=True)


def overlap_correlation(picture0: Picture, picture1: Picture, homography: Matrix) -> float:
    """Correlation of two pictures over the overlap that a homography gives; NaN if too small."""
    back = np.asarray(np.linalg.inv(homography), np.float64)
    seen = valid_mask(back, _size(picture1), _size(picture0), border=_BORDER)
    if seen.sum() < LEAST_OVERLAP:
        return float("nan")
    there = warp_image(picture1.astype(np.float32), back, _size(picture0))[seen]
    here = picture0[seen].astype(np.float32)
    if not (here.std() > 0 and there.std() > 0):
        return float("nan")
    return float(np.corrcoef(here, there)[0, 1])


def _climb(picture0: Picture, picture1: Picture, homography: Matrix, level: int) -> Matrix:
    """The homography of most correlation near one, found in pictures made so many times smaller."""
    pictures, scalings = [], []
    for picture in (picture0, picture1):
        height, width = (max(1, side // level) for side in picture.shape)
        small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        pictures.append(np.asarray(small, np.uint8))
        scalings.append(resize_matrix(width / picture.shape[1], height / picture.shape[0]))
    smaller = scalings[1] @ homography @ np.linalg.inv(scalings[0])
    mask = np.zeros(pictures[1].shape, np.uint8)
    mask[_BORDER:-_BORDER, _BORDER:-_BORDER] = 255
    _, found = cv2.findTransformECC(
        pictures[0],
        pictures[1],
        (smaller / smaller[2, 2]).astype(np.float32),
        cv2.MOTION_HOMOGRAPHY,
        _STEPS,
        mask,
        5,
    )
    matrix = np.linalg.inv(scalings[1]) @ found.astype(np.float64) @ scalings[0]
    return np.asarray(matrix / matrix[2, 2], np.float64)


def _moved(start: Matrix, end: Matrix, size: tuple[int, ...]) -> float:
    """Pixels of image 1 by which a corner of image 0 moves at most; infinite beyond a horizon."""
    bottom, right = size[0] - 1, size[1] - 1
    corners = np.array([[0, 0], [right, 0], [right, bottom], [0, bottom]], np.float64)
    with np.errstate(invalid="ignore"):
        away = np.linalg.norm(warp_points(end, corners) - warp_points(start, corners), axis=1)
    return float(np.nan_to_num(away, nan=np.inf).max())


def _size(picture: Picture) -> tuple[int, int]:
    return picture.shape[0], picture.shape[1]
