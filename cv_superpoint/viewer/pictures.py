"""Pictures for the screen, and a second view of known truth."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from cv_superpoint.matching.drawing import draw_matches
from cv_superpoint.pictures.arrays import ByteArray

LONGEST_SIDE = 1600
"""Larger pictures are shrunk to it for the screen."""
MATCHES_SIDE = 800
"""Each of two pictures whose matches are drawn is shrunk to it."""


def shrink_for_screen(image: ByteArray) -> ByteArray:
    """The picture with a longer side of at most :data:`LONGEST_SIDE`."""
    scale = LONGEST_SIDE / max(image.shape[:2])
    if scale >= 1:
        return image
    smaller = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return smaller.astype(np.uint8, copy=False)


def second_view(image: ByteArray) -> tuple[ByteArray, NDArray[np.float64]]:
    """The picture turned, smaller, foreshortened and darker, and the homography to it."""
    height, width = image.shape[:2]
    shift = np.array([[1, 0, -(width - 1) / 2], [0, 1, -(height - 1) / 2], [0, 0, 1]])
    cos, sin = 0.85 * np.cos(np.deg2rad(15)), 0.85 * np.sin(np.deg2rad(15))
    turn = np.array([[cos, sin, 0], [-sin, cos, 0], [0.1 / width, -0.1 / height, 1]])
    homography = np.linalg.inv(shift) @ turn @ shift
    warped = cv2.warpPerspective(image, homography, (width, height), borderValue=(90,) * 3)
    return np.clip(0.8 * warped + 10, 0, 255).astype(np.uint8), homography


def warp_onto(image0: ByteArray, image1: ByteArray, homography: NDArray[np.float64]) -> ByteArray:
    """Picture 0 as picture 1 would show it; a dim picture 1 where picture 0 does not reach."""
    size = image1.shape[1], image1.shape[0]
    warped = cv2.warpPerspective(image0, homography, size)
    inside = cv2.warpPerspective(np.full(image0.shape[:2], 255, np.uint8), homography, size)
    picture: ByteArray = np.where((np.asarray(inside) == 255)[..., None], warped, image1 // 3)
    return picture


def draw_on_screen(
    image0: ByteArray,
    image1: ByteArray,
    points0: NDArray[np.float32],
    points1: NDArray[np.float32],
    inliers: NDArray[np.bool_],
) -> ByteArray:
    """The pictures side by side, matches joined, not larger than a screen.

    Larger pictures are shrunk before lines are drawn, or the browser makes the lines too thin.
    """
    scale = min(1.0, MATCHES_SIDE / max(*image0.shape[:2], *image1.shape[:2]))
    if scale < 1:
        image0, image1 = (
            cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(
                np.uint8, copy=False
            )
            for image in (image0, image1)
        )
        points0, points1 = ((points + 0.5) * scale - 0.5 for points in (points0, points1))
    return draw_matches(image0, image1, points0, points1, inliers=inliers, outliers=True)
