"""Pictures of a camera that turned in one place: focal lengths and rotations, on a cylinder.

Convention:
    As in ``cv2.detail``, ``camera.R`` turns rays of the camera into the panorama's frame: x to the
    right, y down, z ahead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cv_superpoint.interop.stitching.blending import Box, blend, canvas, check_canvas
from cv_superpoint.interop.stitching.pairs import (
    LARGEST_MISS,
    NEIGHBOURS,
    Link,
    StitchError,
    detail,
    worst_link,
)
from cv_superpoint.pictures.arrays import ByteArray

Matrix = NDArray[np.float64]

LARGEST_TILT = np.deg2rad(30)
"""Angle between the horizon by the cameras' motion and the one by the sides of their pictures."""
REFINE = np.array([[1, 1, 1], [0, 1, 1], [0, 0, 0]], np.uint8)
"""Focal lengths beside the rotations; the adjuster of rays takes the rest as it is."""

_REMEDY = (
    "they must be taken from one place, the camera only turning; of a flat scene, such as a wall, "
    'choose the model "plane"'
)


def rotation_panorama(
    images: Sequence[ByteArray], features: list[Any], pairs: Any, links: Sequence[Link]
) -> tuple[ByteArray, list[float]]:
    """The panorama, and the focal length of each picture in pixels.

    Args:
        images: (H, W, 3) uint8 each.
        features: OpenCV's, of each image.
        pairs: OpenCV's matches.
        links: The pairs to rely on.

    Raises:
        StitchError: If no turning camera explains the matches.
    """
    cameras = _cameras(features, pairs)
    _check(cameras, images, links)
    _straighten(cameras)
    return _compose(images, cameras), [float(camera.focal) for camera in cameras]


def _cameras(features: list[Any], pairs: Any) -> list[Any]:
    done, cameras = detail.HomographyBasedEstimator().apply(features, pairs, None)
    if done:
        for camera in cameras:
            camera.R = camera.R.astype(np.float32)  # the only type that the adjuster takes
        adjuster = detail.BundleAdjusterRay()
        adjuster.setConfThresh(NEIGHBOURS / 2)
        adjuster.setRefinementMask(REFINE)
        done, cameras = adjuster.apply(features, pairs, cameras)
    if not done:
        raise StitchError(f"no turning camera fits the pictures; {_REMEDY}")
    return list(cameras)


def _check(cameras: list[Any], images: Sequence[ByteArray], links: Sequence[Link]) -> None:
    """The estimate is always some cameras, also where no camera fits."""
    numbers = np.concatenate([np.append(np.ravel(each.R), each.focal) for each in cameras])
    if not np.isfinite(numbers).all() or min(each.focal for each in cameras) < 1:
        raise StitchError(f"no turning camera fits the pictures; {_REMEDY}")
    rays = [each.R.astype(np.float64) @ np.linalg.inv(each.K()) for each in cameras]
    maps = {
        (link.first, link.second): np.linalg.inv(rays[link.second]) @ rays[link.first]
        for link in links
    }
    missed, link = worst_link(links, maps)
    if not missed <= LARGEST_MISS * np.hypot(*images[link.second].shape[:2]):
        raise StitchError(
            f"no turning camera fits the pictures: {link.first + 1} and {link.second + 1} miss "
            f"each other by {missed:.0f} pixels; {_REMEDY}"
        )


def _straighten(cameras: list[Any]) -> None:
    """Turn the panorama's frame: the horizon level, the middle of the pictures ahead."""
    axes = np.array([camera.R for camera in cameras], np.float64)  # columns: right, down, ahead
    down = _down(axes)
    ahead = axes[:, :, 2].mean(axis=0)
    ahead -= down * (down @ ahead)
    if np.linalg.norm(ahead) < 0.1:  # all around, or straight up: any picture will do
        ahead = axes[0, :, 2] - down * (down @ axes[0, :, 2])
    if np.linalg.norm(ahead) < 1e-3:
        ahead = np.cross(axes[0, :, 0], down)
    ahead /= np.linalg.norm(ahead)
    turn = np.stack([np.cross(down, ahead), down, ahead])
    for camera, own in zip(cameras, axes, strict=True):
        camera.R = (turn @ own).astype(np.float32)


def _down(axes: Matrix) -> Matrix:
    """The direction that is down in the panorama.

    Where the camera turned wide enough, the sides of the pictures lie in the plane of the horizon
    (Brown and Lowe, "Automatic panoramic image stitching using invariant features", IJCV 2007,
    section 5). Else it is that of the picture that agrees best with the others.
    """
    agreement = axes[:, :, 1] @ axes[:, :, 1].sum(axis=0)
    own: Matrix = axes[int(np.argmax(np.round(agreement, 6))), :, 1]
    sides = axes[:, :, 0]
    values, vectors = np.linalg.eigh(sides.T @ sides / len(sides))
    if values[1] < 0.01 or values[0] > values[1] / 10:
        return own
    normal = vectors[:, 0] * (1 if vectors[:, 0] @ own >= 0 else -1)
    return np.asarray(normal if normal @ own > np.cos(LARGEST_TILT) else own)


def _compose(images: Sequence[ByteArray], cameras: list[Any]) -> ByteArray:
    """Surface of the panorama: a cylinder, or a sphere where a cylinder would stretch too much."""
    focal = float(np.median([camera.focal for camera in cameras]))
    intrinsics = [camera.K().astype(np.float32) for camera in cameras]
    warpers = [cv2.PyRotationWarper(kind, focal) for kind in ("cylindrical", "spherical")]
    plans = [
        [
            _box(warper, image, matrix, camera)
            for image, matrix, camera in zip(images, intrinsics, cameras, strict=True)
        ]
        for warper in warpers
    ]
    areas = [canvas(boxes)[2] * canvas(boxes)[3] for boxes in plans]
    chosen = 0 if areas[0] <= 1.5 * areas[1] else 1
    check_canvas(plans[chosen], images, _REMEDY)
    warper: Any = warpers[chosen]
    places, warped, masks = [], [], []
    for image, matrix, camera in zip(images, intrinsics, cameras, strict=True):
        full = np.full(image.shape[:2], 255, np.uint8)
        place, picture = warper.warp(image, matrix, camera.R, cv2.INTER_LINEAR, cv2.BORDER_REFLECT)
        mask = warper.warp(full, matrix, camera.R, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT)[1]
        places.append(place)
        warped.append(picture)
        masks.append(mask)
    return blend(places, warped, masks)


def _box(warper: Any, image: ByteArray, intrinsics: Any, camera: Any) -> Box:
    x, y, width, height = warper.warpRoi((image.shape[1], image.shape[0]), intrinsics, camera.R)
    return x, y, width, height
