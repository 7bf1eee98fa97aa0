"""Matching where the geometry is known: only pairs that it allows are compared."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.detector.features import Features
from cv_superpoint.errors import FeatureError
from cv_superpoint.matching.nearest import Pairs, nearest_allowed


def guided_matches(
    features0: Features,
    features1: Features,
    *,
    homography: Any = None,
    fundamental: Any = None,
    threshold: float = 5.0,
    min_similarity: float = 0.5,
) -> Pairs:
    """Find mutual nearest neighbours among the pairs that a known geometry allows.

    With a homography from a first round of matching, or from calibrated cameras, look-alikes
    elsewhere in the image no longer compete, so more of the keypoints find their partner.

    Args:
        features0: Features of image 0.
        features1: Features of image 1.
        homography: (3, 3) from image 0 to image 1.
        fundamental: (3, 3) with ``x1' F x0 = 0``; exactly one of the two is given.
        threshold: Largest distance in pixels of image 1 between a keypoint and its place, or the
            epipolar line of its partner.
        min_similarity: Smallest cosine; among few candidates the nearest may not look alike.

    Returns:
        (M, 2) row numbers, ascending in the first column, and (M,) float32 cosines.

    Raises:
        FeatureError: If not exactly one matrix is given, or it is not (3, 3) and finite.
    """
    if (homography is None) == (fundamental is None):
        raise FeatureError("guided_matches needs either a homography or a fundamental matrix")
    if not threshold > 0:
        raise FeatureError(f"threshold must be a positive number of pixels, got {threshold}")
    name = "fundamental" if homography is None else "homography"
    matrix = _check_matrix(fundamental if homography is None else homography, name)
    if len(features0) == 0 or len(features1) == 0:
        return np.empty((0, 2), np.intp), np.empty(0, np.float32)
    points1 = features1.keypoints.astype(np.float64)
    mapped = np.c_[features0.keypoints.astype(np.float64), np.ones(len(features0))] @ matrix.T

    def near_place(rows: slice) -> NDArray[np.bool_]:
        with np.errstate(divide="ignore", invalid="ignore"):  # on the horizon: nowhere
            places = mapped[rows, :2] / mapped[rows, 2:]
        close: NDArray[np.bool_] = np.square(places[:, None] - points1[None]).sum(axis=2) <= (
            threshold**2
        )
        return close

    def near_line(rows: slice) -> NDArray[np.bool_]:
        lines = mapped[rows]
        offset = np.abs(lines[:, :2] @ points1.T + lines[:, 2:])
        close: NDArray[np.bool_] = offset <= threshold * np.linalg.norm(
            lines[:, :2], axis=1, keepdims=True
        )
        return close

    allowed = near_line if homography is None else near_place
    pairs, similarity = nearest_allowed(features0, features1, allowed)
    keep = similarity >= min_similarity
    return pairs[keep], similarity[keep]


def _check_matrix(matrix: Any, name: str) -> NDArray[np.float64]:
    array = np.asarray(matrix, np.float64)
    if array.shape != (3, 3) or not np.isfinite(array).all():
        raise FeatureError(f"{name} must be a finite (3, 3) matrix, got {array.shape} {array}")
    return array
