"""Homographies of several pictures onto one plane: adjusted together, bounded, and drawn."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from views import photograph

from cv_superpoint.interop.stitching import StitchError
from cv_superpoint.interop.stitching.adjustment import chain, refine
from cv_superpoint.interop.stitching.blending import check_canvas
from cv_superpoint.interop.stitching.pairs import Link
from cv_superpoint.interop.stitching.plane import plane_panorama


def test_the_horizon_of_the_plane() -> None:
    # Either picture reaches the horizon in the other's view.
    homography = np.array([[1, 0, 0], [0, 1, 0], [-1 / 400, 1 / 300, 1]])
    points0 = np.random.default_rng(0).uniform((20, 20), (200, 150), (60, 2))
    points1 = cv2.perspectiveTransform(points0[None], homography)[0]
    link = Link(first=0, second=1, points0=points0, points1=points1, homography=homography)
    with pytest.raises(StitchError, match="horizon of the plane; leave out pictures that see"):
        plane_panorama([photograph(), photograph()], [link])


def test_a_canvas_that_its_pictures_cannot_fill() -> None:
    images = [np.zeros((400, 600, 3), np.uint8)] * 2
    whole = (0, 0, 600, 400)
    check_canvas([whole, (500, -100, 700, 500)], images, "do this")
    for box in ((0, 0, 1, 1), (3000, 3000, 600, 400), (0, 0, 40_000, 20), (-(2**29), 0, 2**30, 9)):
        with pytest.raises(StitchError, match=r"would have .* of 2 pictures .*do this"):
            check_canvas([box] if box[2] == 1 else [whole, box], images, "do this")


def test_a_view_without_the_horizon_is_taken() -> None:
    # In the first picture's view the second reaches the plane's horizon at x = 400.
    first = photograph()
    homography = np.array([[1, 0, 0], [0, 1, 0], [1 / 400, 0, 1]])
    second = cv2.warpPerspective(first, homography, (600, 400))
    points0 = np.random.default_rng(0).uniform((20, 20), (580, 380), (60, 2))
    points1 = cv2.perspectiveTransform(points0[None], homography)[0]
    link = Link(first=0, second=1, points0=points0, points1=points1, homography=homography)
    result = plane_panorama([first, second], [link])
    assert result.shape == (400, 600, 3)
    difference = np.abs(result.astype(int) - second).mean(axis=2)[20:150, 10:230]
    assert np.percentile(difference, 90) < 12


@pytest.mark.parametrize("reference", [0, 2])
@pytest.mark.parametrize(("wrong", "share"), [(0, 0.8), (3, 1.5)])
def test_the_adjustment_closes_the_loop(reference: int, wrong: int, share: float) -> None:
    random = np.random.default_rng(reference)
    size = (400, 600)
    truth = [
        np.array([[1, 0.1, 200 * k], [-0.05, 1, 50 * k], [1e-4 * k, 5e-5, 1]]) for k in range(4)
    ]
    truth = [np.linalg.inv(truth[reference]) @ each for each in truth]
    links = []
    for first, second in ((0, 1), (1, 2), (2, 3), (0, 3)):
        points0 = random.uniform((50, 50), (550, 350), (80, 2))
        matrix = np.linalg.inv(truth[second]) @ truth[first]
        points1 = cv2.perspectiveTransform(points0[None], matrix)[0]
        points1 += random.normal(0, 0.5, points1.shape)
        homography = cv2.findHomography(points0, points1, 0)[0]
        points1[:wrong] += 45  # no link of the chain has these
        links.append(
            Link(
                first=first, second=second, points0=points0, points1=points1, homography=homography
            )
        )

    def error(homographies: Any) -> float:
        corners = np.array([[[0.0, 0], [600, 0], [600, 400], [0, 400]]])
        both = zip(homographies, truth, strict=True)
        return float(
            np.mean(
                [
                    np.linalg.norm(
                        cv2.perspectiveTransform(corners, one)
                        - cv2.perspectiveTransform(corners, other)
                    )
                    for one, other in both
                ]
            )
        )

    start = chain(links, 4, reference)
    adjusted = refine(start, links, [size] * 4, reference)
    np.testing.assert_allclose(adjusted[reference], np.eye(3), atol=1e-12)
    assert error(adjusted) < share * error(start)
    far = [
        np.array([[1, 0, 9 * (k != reference)], [0, 1, -7 * (k != reference)], [0, 0, 1.0]]) @ each
        for k, each in enumerate(start)
    ]
    again = refine(far, links, [size] * 4, reference)
    for one, other in zip(adjusted, again, strict=True):
        np.testing.assert_allclose(one / one[2, 2], other / other[2, 2], rtol=1e-3, atol=0.05)
