"""Checks of what the caller passes, conversion to grey, padding to the network's grid."""

from __future__ import annotations

from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from cv_superpoint.errors import FeatureError
from cv_superpoint.grid import CELL_SIZE
from cv_superpoint.pictures.conversions import array_remedy, describe, remedy, shape_remedy

ByteArray: TypeAlias = NDArray[np.uint8]


def check_image(image: Any) -> ByteArray:
    """The image as a non-empty uint8 array of two or three dimensions.

    Raises:
        FeatureError: If it is anything else; the message tells the conversion.
    """
    if not isinstance(image, np.ndarray):
        what, how = describe(image), remedy(image)
        raise FeatureError(f"image must be a uint8 numpy array, got {what}; {how}")
    if image.dtype != np.uint8:
        how = array_remedy(image)
        raise FeatureError(f"image must be uint8, got {describe(image)}; {how}")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
        raise FeatureError(
            "image must be (H, W) or (H, W, C) with 1, 3 or 4 channels (grey, BGR, BGRA), "
            f"got {describe(image)}; {shape_remedy(image)}"
        )
    if image.size == 0:
        raise FeatureError(f"image is empty, got {describe(image)}; check that it was read")
    return image


def is_empty(image: Any) -> bool:
    """Whether ``cv2`` would call this image empty: None, or an array without elements."""
    return image is None or (isinstance(image, np.ndarray) and image.size == 0)


def to_channels(image: Any, channels: int) -> ByteArray:
    """The checked image with the network's channels.

    Args:
        image: uint8 grey, BGR or BGRA; any strides.
        channels: 1 for grey, 3 for RGB (the channel order networks are trained with).

    Returns:
        (H, W) for one channel, (H, W, 3) for three.
    """
    image = check_image(image)
    source = 1 if image.ndim == 2 else image.shape[2]
    if channels == 1:
        if source == 1:
            grey: ByteArray = image.reshape(image.shape[:2])
            return grey
        code = cv2.COLOR_BGR2GRAY if source == 3 else cv2.COLOR_BGRA2GRAY
    else:
        codes = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}
        code = codes[source]
    # cv2 does not take views with negative strides.
    return cv2.cvtColor(np.ascontiguousarray(image), code).astype(np.uint8, copy=False)


def check_mask(mask: Any, size: tuple[int, int]) -> NDArray[np.bool_] | None:
    """The mask as booleans, or None where everything is wanted.

    Args:
        mask: None, an empty array, or (H, W) or (H, W, 1) of uint8 or bool; non-zero keeps.
        size: (height, width) of the image.

    Raises:
        FeatureError: If the type or the size is wrong. ``cv2.SIFT`` reads out of bounds there.
    """
    if is_empty(mask):
        return None
    if not isinstance(mask, np.ndarray) or mask.dtype not in (np.uint8, np.bool_):
        raise FeatureError(
            f"mask must be a uint8 or bool numpy array, got {describe(mask)}; "
            "convert with (mask != 0).astype(np.uint8)"
        )
    if mask.ndim == 3 and mask.shape[2] == 1:
        mask = mask[:, :, 0]
    if mask.ndim != 2:
        raise FeatureError(f"mask must have one channel, got {describe(mask)}")
    if mask.shape != size:
        raise FeatureError(
            f"mask must have the image's size {size[0]} x {size[1]} (height x width), "
            f"got {mask.shape[0]} x {mask.shape[1]}"
        )
    kept: NDArray[np.bool_] = mask.astype(np.bool_)
    return kept


def padded_size(size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) rounded up to multiples of the cell size."""
    height, width = size
    return -(-height // CELL_SIZE) * CELL_SIZE, -(-width // CELL_SIZE) * CELL_SIZE


def pad(image: ByteArray) -> ByteArray:
    """Repeat the last row and column up to the next multiples of the cell size.

    Only the bottom and the right grow, so coordinates do not change; repeating the border rather
    than zeros puts no edge where the photograph has none.
    """
    height, width = image.shape[:2]
    new_height, new_width = padded_size((height, width))
    image = np.ascontiguousarray(image)  # cv2 does not take views with negative strides
    if (new_height, new_width) == (height, width):
        return image
    below, right = new_height - height, new_width - width
    padded = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REPLICATE)
    return padded.astype(np.uint8, copy=False)


def interleave(planes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Same as :func:`cv_superpoint.decoding.arrays.interleave`, twice as fast."""
    count, h, w = planes.shape
    turned: Any = cv2.transpose(planes.reshape(count, h * w))
    return np.asarray(turned, np.float32).reshape(h, w * count)


def window_maximum(values: NDArray[Any], radius: int) -> NDArray[Any]:
    """Same as :func:`cv_superpoint.decoding.arrays.sliding_maximum`, ten times as fast.

    Args:
        values: (H, W) float32 or float64.
        radius: Radius of the window, in pixels.
    """
    # As far as there are pixels, however large the radius is.
    sides = [2 * min(radius, max(length - 1, 0)) + 1 for length in values.shape]
    # The default border of a dilation counts for nothing.
    highest: NDArray[Any] = cv2.dilate(values, np.ones(sides, np.uint8))
    return highest
