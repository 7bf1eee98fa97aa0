"""Keypoints of panoramas placed by the pixels of all overlapping pictures."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from pinned import PINNED
from views import FOCAL, photograph, turned

from cv_superpoint import SuperPointFeature2D, match_pair
from cv_superpoint.interop.stitching import stitch
from cv_superpoint.interop.stitching.pairs import Link, match_all
from cv_superpoint.interop.stitching.placing import place_keypoints

PIECES = [photograph()[y : y + 240, x : x + 340] for y in (0, 160) for x in (0, 130, 260)]


@pytest.fixture(scope="module")
def detector() -> SuperPointFeature2D:
    return SuperPointFeature2D.create(600, **PINNED)


def test_keypoints_are_placed_by_the_pixels_of_all_pictures(detector: SuperPointFeature2D) -> None:
    """Three views of which each two overlap, so that the places must agree all around."""
    views = [turned(*view) for view in [(-7, 2, 5), (0, -2, -4), (7, 1, 9)]]
    features = [detector.extract(view) for view in views]
    converted, pairs, links = match_all(features)
    placed, again = place_keypoints(views, features, converted, pairs, links)
    assert len(again) == len(links) == 3

    def missed(each: Link) -> float:
        fitted, _ = cv2.findHomography(each.points0, each.points1, 0)
        there = cv2.perspectiveTransform(each.points0[None], fitted)[0]
        return float(np.median(np.linalg.norm(there - each.points1, axis=1)))

    for before, after in zip(links, again, strict=True):
        assert missed(after) < 0.5 * missed(before)
        assert missed(after) < 0.25
    for own, kept in zip(converted, placed, strict=True):
        np.testing.assert_array_equal(cv2.KeyPoint.convert(own.keypoints), kept.keypoints)
    plain, exact = (stitch(views, detector, refine=refine) for refine in (False, True))
    errors = [np.abs(np.array(one.focal_lengths) / FOCAL - 1).mean() for one in (plain, exact)]
    assert errors[1] < max(errors[0], 0.01)


def test_pieces_placed_by_their_pixels_fit_as_well(detector: SuperPointFeature2D) -> None:
    result = stitch(PIECES, detector, model="plane", refine=True)
    np.testing.assert_allclose(sorted(result.image.shape[:2]), (400, 600), atol=1)
    found = match_pair(photograph(), result.image, detector, refine=True)
    assert found.homography is not None
    size = result.image.shape[1], result.image.shape[0]
    placed = cv2.warpPerspective(photograph(), found.homography, size).astype(np.float64)
    inner = np.s_[8:-8, 8:-8]
    # Pixel by pixel, but for the seams' bands.
    assert np.percentile(np.abs(placed - result.image)[inner], 80) < 12
