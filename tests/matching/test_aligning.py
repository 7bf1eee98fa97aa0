"""Two views of a plane aligned over all of their overlap."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
from pinned import PINNED

from cv_superpoint import FeatureError, SuperPointFeature2D, match_pair
from cv_superpoint.geometry import corner_error
from cv_superpoint.matching.aligning import FARTHEST, align_homography

WHOLE = np.ascontiguousarray(skimage.data.coffee()[..., ::-1])
PHOTOGRAPH = np.ascontiguousarray(WHOLE[60:360, 100:500])
SIZE = (300, 400)
WARP = np.array([[0.95, -0.12, 30], [0.1, 1.01, -15], [1e-4, -5e-5, 1]])


def view(gain: float = 1.0, noise: float = 0.0) -> Any:
    from_whole = WARP @ np.array([[1, 0, -100], [0, 1, -60], [0, 0, 1.0]])
    image = cv2.warpPerspective(WHOLE, from_whole, (380, 320), flags=cv2.INTER_LANCZOS4) * gain
    image = image + np.random.default_rng(0).normal(0, noise, image.shape)
    return image.clip(0, 255).round().astype(np.uint8)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, 0.05), ({"gain": 0.6}, 0.05), ({"noise": 12}, 0.15)],
    ids=["clean", "other light", "noise"],
)
def test_a_homography_a_pixel_off_is_put_right(changes: dict[str, float], expected: float) -> None:
    about = WARP @ np.array([[1.004, 0, -1.2], [0, 0.997, 0.8], [0, 0, 1]])
    assert corner_error(about, WARP, SIZE) > 0.9
    found = align_homography(PHOTOGRAPH, view(**changes), about)
    assert found.accepted
    assert found.correlation > (0.9 if "noise" not in changes else 0.5)
    assert corner_error(found.homography, WARP, SIZE) < expected


def test_it_does_not_get_worse() -> None:
    right = align_homography(PHOTOGRAPH, view(), WARP)
    assert corner_error(right.homography, WARP, SIZE) < 0.05
    foreign = np.ascontiguousarray(skimage.data.chelsea()[..., ::-1])
    moved = align_homography(PHOTOGRAPH, foreign, np.eye(3)).homography
    corners = np.array([[[0, 0], [399, 0], [399, 299], [0, 299.0]]])
    away = cv2.perspectiveTransform(corners, moved) - corners
    assert np.linalg.norm(away, axis=2).max() <= FARTHEST
    flat = np.full((90, 120), 127, np.uint8)
    apart = np.array([[1, 0, 1000], [0, 1, 0], [0, 0, 1.0]])
    for images, start in (
        ((flat, flat), np.eye(3)),
        ((PHOTOGRAPH, view()), apart),
        ((PHOTOGRAPH[:5, :7], view()), WARP),
        ((PHOTOGRAPH, view()[:1, :1]), WARP),
    ):
        kept = align_homography(*images, start)
        assert not kept.accepted
        np.testing.assert_array_equal(kept.homography, start)
    with pytest.raises(FeatureError, match="invertible"):
        align_homography(PHOTOGRAPH, view(), np.zeros((3, 3)))


def test_a_pair_may_end_with_it() -> None:
    detector = SuperPointFeature2D.create(300, **PINNED)
    errors = [
        corner_error(match_pair(PHOTOGRAPH, view(), detector, align=align).homography, WARP, SIZE)
        for align in (False, True)
    ]
    assert errors[1] < min(0.1, errors[0])
    with pytest.raises(FeatureError, match="align needs"):
        match_pair(PHOTOGRAPH, view(), detector, model="fundamental", align=True)
