"""Pictures of a flat scene from anywhere: homographies onto the plane as one of them sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cv_superpoint.interop.stitching.adjustment import chain, refine
from cv_superpoint.interop.stitching.blending import Box, blend, check_canvas
from cv_superpoint.interop.stitching.pairs import (
    LARGEST_MISS,
    Link,
    StitchError,
    outline,
    worst_link,
)
from cv_superpoint.pictures.arrays import ByteArray

Matrix = NDArray[Any]

_GRAZING = "leave out pictures that see the plane at a grazing angle"


def plane_panorama(images: Sequence[ByteArray], links: Sequence[Link]) -> ByteArray:
    """The panorama as the picture with the most matches sees the plane.

    Where some picture would not fit into that view, the view of the next best picture is taken.

    Args:
        images: (H, W, 3) uint8 each.
        links: The pairs to rely on; they join all pictures.

    Raises:
        StitchError: If no plane explains the matches, or it is seen up to its horizon.
    """
    strength = np.zeros(len(images))
    for link in links:
        strength[[link.first, link.second]] += len(link.points0)
    order = np.argsort(-strength, kind="stable").tolist()
    sizes = [(image.shape[0], image.shape[1]) for image in images]
    homographies = refine(chain(links, len(images), order[0]), links, sizes, order[0])
    _check(homographies, sizes, links)
    refused: list[StitchError] = []
    for reference in order:
        onto = [np.linalg.inv(homographies[reference]) @ each for each in homographies]
        try:
            boxes = [_box(each, size) for each, size in zip(onto, sizes, strict=True)]
            check_canvas(boxes, images, _GRAZING)
        except StitchError as error:
            refused.append(error)
        else:
            return _compose(images, onto, boxes)
    raise refused[0]


def _check(
    homographies: Sequence[Matrix], sizes: Sequence[tuple[int, int]], links: Sequence[Link]
) -> None:
    maps = {
        (link.first, link.second): np.linalg.inv(homographies[link.second])
        @ homographies[link.first]
        for link in links
    }
    missed, link = worst_link(links, maps)
    if not missed <= LARGEST_MISS * np.hypot(*sizes[link.second]):
        raise StitchError(
            f"no plane fits the pictures: {link.first + 1} and {link.second + 1} miss each other "
            f"by {missed:.0f} pixels; the scene must be flat; of a camera that only turned, choose "
            'the model "rotation"'
        )


def _box(homography: Matrix, size: tuple[int, int]) -> Box:
    """Where a picture lies in the reference's pixels.

    Raises:
        StitchError: If it reaches the horizon of the plane.
    """
    corners = np.c_[outline(size), np.ones(4)] @ homography.T
    depth = corners[:, 2] / corners[:, 2].mean()
    if not depth.min() > 0:
        raise StitchError(f"a picture shows the horizon of the plane; {_GRAZING}")
    places = corners[:, :2] / corners[:, 2:]
    limit = np.iinfo(np.int32).max / 4
    left, top = np.clip(np.rint(places.min(axis=0) + 0.5), -limit, limit).astype(int).tolist()
    right, bottom = np.clip(np.rint(places.max(axis=0) + 0.5), -limit, limit).astype(int).tolist()
    return left, top, right - left, bottom - top


def _compose(
    images: Sequence[ByteArray], onto: Sequence[Matrix], boxes: Sequence[Box]
) -> ByteArray:
    places, warped, masks = [], [], []
    for image, homography, (left, top, width, height) in zip(images, onto, boxes, strict=True):
        shift = np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1.0]])
        matrix, size = shift @ homography, (width, height)
        picture = cv2.warpPerspective(
            image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )
        full = np.full(image.shape[:2], 255, np.uint8)
        mask = cv2.warpPerspective(full, matrix, size, flags=cv2.INTER_NEAREST)
        places.append((left, top))
        warped.append(np.asarray(picture, np.uint8))
        masks.append(np.asarray(mask, np.uint8))
    return blend(places, warped, masks)
