"""Pictures of keypoints, matches and overlays, as uint8 BGR arrays.

Convention:
    Positions are (x, y) in pixels, (0, 0) the centre of the top-left pixel.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cv_superpoint.detector.features import Features
from cv_superpoint.errors import FeatureError
from cv_superpoint.pictures.arrays import ByteArray, check_image

GREEN, RED, GREY = (80, 220, 60), (60, 60, 230), (40, 40, 40)


def to_bgr(image: Any) -> ByteArray:
    """The checked image with three channels."""
    image = np.ascontiguousarray(check_image(image))
    channels = 1 if image.ndim == 2 else image.shape[2]
    if channels != 3:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR if channels == 1 else cv2.COLOR_BGRA2BGR)
    picture: ByteArray = image
    return picture


def draw_keypoints(image: Any, features: Features) -> ByteArray:
    """Draw a circle at each keypoint: from blue for the lowest score to red for the highest.

    Args:
        image: Image of the features; uint8 grey, BGR or BGRA.
        features: Keypoints; a circle's diameter is the keypoint's size.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    canvas: ByteArray = to_bgr(image).copy()
    if len(features) == 0:
        return canvas
    ranks = np.linspace(255, 0, len(features)).astype(np.uint8)  # strongest first
    colours = cv2.applyColorMap(ranks[:, None], cv2.COLORMAP_JET)[:, 0].tolist()
    for (x, y), size, colour in zip(
        features.keypoints.tolist()[::-1],
        features.sizes.tolist()[::-1],
        colours[::-1],
        strict=True,
    ):
        # In sixteenths of a pixel: positions are not whole.
        centre = round(x * 16), round(y * 16)
        cv2.circle(canvas, centre, round(size * 8), colour, 1, cv2.LINE_AA, 4)
    return canvas


def draw_matches(
    image0: Any,
    image1: Any,
    points0: NDArray[Any],
    points1: NDArray[Any],
    *,
    inliers: NDArray[np.bool_] | None = None,
    outliers: bool = False,
    limit: int = 150,
) -> ByteArray:
    """Draw the images side by side, with green lines between inliers and red ones between others.

    Args:
        image0: uint8 grey, BGR or BGRA.
        image1: Same as for ``image0``.
        points0: (M, 2) in image 0.
        points1: (M, 2) in image 1, row by row.
        inliers: (M,) bool; None takes all.
        outliers: Whether to draw the others, too.
        limit: Largest number of lines of a colour, spread evenly; -1 draws all.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    left, right = to_bgr(image0), to_bgr(image1)
    height = max(left.shape[0], right.shape[0])
    canvas: ByteArray = np.full((height, left.shape[1] + right.shape[1], 3), GREY, np.uint8)
    canvas[: left.shape[0], : left.shape[1]] = left
    canvas[: right.shape[0], left.shape[1] :] = right
    kept = np.ones(len(points0), np.bool_) if inliers is None else inliers
    starts = np.rint(points0).astype(int)
    ends = np.rint(points1).astype(int) + np.array((left.shape[1], 0))
    for colour, chosen in ((RED, ~kept if outliers else kept & False), (GREEN, kept)):
        rows = np.flatnonzero(chosen)
        if 0 <= limit < len(rows):
            rows = rows[np.linspace(0, len(rows) - 1, limit).round().astype(np.intp)]
        for start, end in zip(starts[rows].tolist(), ends[rows].tolist(), strict=True):
            cv2.line(canvas, start, end, colour, 1, cv2.LINE_AA)
            cv2.circle(canvas, start, 3, colour, 1, cv2.LINE_AA)
            cv2.circle(canvas, end, 3, colour, 1, cv2.LINE_AA)
    return canvas


def draw_overlay(image0: Any, image1: Any, homography: NDArray[np.float64]) -> ByteArray:
    """Draw image 0, warped onto image 1, in red and image 1 in cyan: grey where they agree.

    Args:
        image0: uint8 grey, BGR or BGRA.
        image1: Same as for ``image0``.
        homography: (3, 3) from image 0 to image 1.

    Returns:
        (H, W, 3) uint8 BGR of the size of image 1, dim where image 0 does not reach.
    """
    if np.shape(homography) != (3, 3):
        raise FeatureError(f"homography must be (3, 3), got {np.shape(homography)}")
    first, second = (
        cv2.cvtColor(to_bgr(image), cv2.COLOR_BGR2GRAY).astype(np.float32)
        for image in (image0, image1)
    )
    size = second.shape[1], second.shape[0]
    matrix = np.asarray(homography, np.float64)
    red = np.asarray(cv2.warpPerspective(first, matrix, size))
    full = np.full(first.shape, 255, np.uint8)
    both = np.asarray(cv2.warpPerspective(full, matrix, size)) == 255
    # The same mean and contrast for both, so that only the geometry shows.
    if both.any():
        spread = second[both].std() / max(red[both].std(), 1.0)
        red = (red - red[both].mean()) * spread + second[both].mean()
    blended = np.stack([second, second, np.where(both, red, second)], axis=2)
    dimmed = np.where(both[..., None], blended, blended / 3)
    picture: ByteArray = np.clip(dimmed, 0, 255).astype(np.uint8)
    return picture
