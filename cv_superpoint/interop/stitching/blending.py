"""Pictures that are in place become one: even exposure, seams where they differ least, blending."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from cv_superpoint.interop.stitching.pairs import StitchError
from cv_superpoint.pictures.arrays import ByteArray

detail: Any = cv2.detail

Box = tuple[int, int, int, int]
"""x, y, width and height."""

LARGEST_SIDE = 32_000
"""Pixels; OpenCV's remap ends at 32767."""
LARGEST_GROWTH = 8
"""A canvas this many times the pictures together is mostly black or mostly stretched."""

SEAM_PIXELS = 1e5
"""Pixels of the copies on which seams are found, as in OpenCV's own stitcher."""


def canvas(boxes: Sequence[Box]) -> Box:
    """The box around all boxes."""
    left, top = (min(box[axis] for box in boxes) for axis in (0, 1))
    right, bottom = (max(box[axis] + box[axis + 2] for box in boxes) for axis in (0, 1))
    return left, top, right - left, bottom - top


def check_canvas(boxes: Sequence[Box], images: Sequence[ByteArray], remedy: str) -> None:
    """Check that a panorama has a size that its pictures can fill.

    Raises:
        StitchError: If it is as small as no picture is, or too large; the message ends with the
            remedy.
    """
    width, height = canvas(boxes)[2:]
    pixels = sum(image.shape[0] * image.shape[1] for image in images)
    smallest = min(image.shape[0] * image.shape[1] for image in images) / LARGEST_GROWTH
    fits = max(width, height) <= LARGEST_SIDE and width * height <= LARGEST_GROWTH * pixels
    if not fits or width * height < smallest:
        raise StitchError(
            f"the panorama would have {width} x {height} pixels, of {len(images)} pictures of "
            f"{pixels / len(images) / 1e6:.2f} megapixels; {remedy}"
        )


def blend(
    places: Sequence[tuple[int, int]], warped: Sequence[ByteArray], masks: Sequence[ByteArray]
) -> ByteArray:
    """One picture of several.

    Args:
        places: (x, y) of the top-left pixel of each on the canvas.
        warped: (H, W, 3) uint8 each.
        masks: (H, W) uint8, 255 where a picture shows something.

    Returns:
        (H, W, 3) uint8, black where no picture shows anything.
    """
    compensator = detail.ExposureCompensator.createDefault(detail.EXPOSURE_COMPENSATOR_GAIN_BLOCKS)
    compensator.feed(places, warped, masks)
    even = [
        compensator.apply(index, place, picture, mask)
        for index, (place, picture, mask) in enumerate(zip(places, warped, masks, strict=True))
    ]
    seams = _seams(places, even, masks)
    blender = detail.MultiBandBlender()
    blender.prepare(detail.resultRoi(places, [(each.shape[1], each.shape[0]) for each in even]))
    for place, picture, seam in zip(places, even, seams, strict=True):
        blender.feed(picture.astype(np.int16), seam, place)
    result = blender.blend(None, None)[0]
    panorama: ByteArray = np.clip(result, 0, 255).astype(np.uint8)
    return panorama


def _seams(
    places: Sequence[tuple[int, int]], pictures: Sequence[ByteArray], masks: Sequence[ByteArray]
) -> list[ByteArray]:
    """Masks that part the pictures where they differ least; found on small copies."""
    pixels = float(np.mean([mask.shape[0] * mask.shape[1] for mask in masks]))
    scale = min(1.0, float(np.sqrt(SEAM_PIXELS / pixels)))

    def small(image: ByteArray, how: int) -> ByteArray:
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        return np.asarray(cv2.resize(image, size, interpolation=how), np.uint8)

    found = detail.GraphCutSeamFinder("COST_COLOR").find(
        [small(each, cv2.INTER_AREA).astype(np.float32) for each in pictures],
        [(round(x * scale), round(y * scale)) for x, y in places],
        [small(each, cv2.INTER_NEAREST) for each in masks],
    )
    seams = []
    for seam, mask in zip(found, masks, strict=True):
        own = seam.get() if isinstance(seam, cv2.UMat) else seam
        # Wider by a pixel of the small copy: rounding must leave no gap between two pictures.
        dilated = cv2.dilate(own, np.ones((3, 3), np.uint8))
        wide = cv2.resize(dilated, (mask.shape[1], mask.shape[0]))
        seams.append(np.asarray(cv2.bitwise_and(wide, mask), np.uint8))
    return seams
