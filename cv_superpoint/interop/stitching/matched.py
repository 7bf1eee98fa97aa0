"""Matches of our matchers in the form of ``cv2.detail``: homographies between centred pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cv_superpoint.detector.features import Features
from cv_superpoint.matching.matchers import Matcher, check_matches

THRESHOLD = 3.0
"""Pixels by which an inlier may miss its homography, as in ``cv2.detail.BestOf2NearestMatcher``."""
FEWEST = 6
"""Matches, and inliers, that a homography needs there."""

Rows = NDArray[np.intp]


def match_pictures(
    features: Sequence[Features], converted: Sequence[Any], matcher: Matcher
) -> list[Any]:
    """What ``BestOf2NearestMatcher.apply2`` returns, of another matcher.

    Args:
        features: Features of each picture.
        converted: The same as ``cv2.detail.ImageFeatures``.
        matcher: Matcher, which is called once for each two pictures.

    Returns:
        A ``cv2.detail.MatchesInfo`` for every ordered pair of pictures, row by row.
    """
    count = len(features)
    pairs = _empty_pairs(converted)
    for first in range(count):
        for second in range(first + 1, count):
            both = features[first], features[second]
            rows, scores = check_matches(matcher(*both), *both)
            homography, agree = _homography(both, rows)
            forth, back = pairs[first * count + second], pairs[second * count + first]
            _fill(forth, (first, second), rows, scores, homography, agree)
            inverse = None if homography is None else np.linalg.inv(homography).astype(np.float64)
            _fill(back, (second, first), rows[:, ::-1], scores, inverse, agree)
    return pairs


def _empty_pairs(converted: Sequence[Any]) -> list[Any]:
    """Made by C++: with those that are made in Python OpenCV 4 crashes."""
    none = cv2.UMat(np.zeros((len(converted), len(converted)), np.uint8))  # type: ignore[call-overload]
    matcher: Any = cv2.detail.BestOf2NearestMatcher()
    return list(matcher.apply2(converted, none))


def _homography(
    features: tuple[Features, Features], rows: Rows
) -> tuple[NDArray[np.float64] | None, NDArray[np.bool_]]:
    """Homography of positions from the pictures' centres, and which matches agree."""
    nothing = None, np.zeros(len(rows), np.bool_)
    if len(rows) < FEWEST:
        return nothing
    points0, points1 = (
        each.keypoints[rows[:, side]] - np.array(each.image_size[::-1], np.float32) / 2
        for side, each in enumerate(features)
    )
    homography, mask = cv2.findHomography(points0, points1, cv2.RANSAC, THRESHOLD)
    if homography is None or abs(np.linalg.det(homography)) < np.finfo(float).eps:
        return nothing
    agree = mask.reshape(-1) > 0
    if agree.sum() < FEWEST:
        return np.asarray(homography, np.float64), agree
    fitted = cv2.findHomography(points0[agree], points1[agree], cv2.RANSAC, THRESHOLD)[0]
    return np.asarray(homography if fitted is None else fitted, np.float64), agree


def _fill(
    pair: Any,
    pictures: tuple[int, int],
    rows: Rows,
    scores: NDArray[np.float32],
    homography: NDArray[np.float64] | None,
    agree: NDArray[np.bool_],
) -> None:
    pair.src_img_idx, pair.dst_img_idx = pictures
    pair.matches = [
        cv2.DMatch(int(query), int(train), float(1 - score))
        for (query, train), score in zip(rows.tolist(), scores.tolist(), strict=True)
    ]
    pair.inliers_mask = agree.astype(np.uint8)
    pair.num_inliers = int(agree.sum())
    if homography is not None:
        pair.H = homography
