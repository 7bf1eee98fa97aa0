"""Pictures for the screen, and a second view of known truth."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from cv_superpoint.pictures.arrays import ByteArray

LONGEST_SIDE = 1600
"""Larger pictures are shrunk to it for the screen."""


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
