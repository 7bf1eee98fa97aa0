"""The orientation that a picture file states, and the picture turned by it.

One rule for all formats: pixels are decoded as they are stored, and turned here. OpenCV turns TIFF
files even where it is asked not to, AVIF files never, PNG and WebP files in some versions only.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from cv_superpoint.pictures.arrays import ByteArray
from cv_superpoint.pictures.containers import (
    JPEG,
    JPEG_SCAN,
    PNG,
    TIFF,
    byte_order,
    find_boxes,
    jpeg_segments,
    png_chunks,
    riff_chunks,
    tiff_directory,
)

TAG = 274
"""Tag of the orientation, in TIFF and in EXIF."""

_TURNS = {3: cv2.ROTATE_180, 6: cv2.ROTATE_90_CLOCKWISE, 8: cv2.ROTATE_90_COUNTERCLOCKWISE}

_AVIF = {
    (0, 1): 2, (2, None): 3, (0, 0): 4, (1, 0): 5, (3, None): 6, (3, 0): 7, (1, None): 8,
    (1, 1): 7, (3, 1): 5, (2, 0): 2, (2, 1): 4,
}  # fmt: skip
"""Quarter turns to the left, then 0 to swap top and bottom or 1 to swap left and right."""


def orientation(data: bytes) -> int:
    """What the bytes of a JPEG, PNG, WebP, TIFF or AVIF file state, from 1 to 8 as in EXIF.

    1, upright, where they state nothing or nothing that exists.
    """
    if data[4:8] == b"ftyp":
        return _AVIF.get((_property(data, b"irot", 3) or 0, _property(data, b"imir", 1)), 1)
    for block in _blocks(data):
        entry = tiff_directory(block).get(TAG)
        if entry is not None:
            return entry.value if 1 <= entry.value <= 8 else 1
    return 1


def _property(data: bytes, name: bytes, bits: int) -> int | None:
    place = next(find_boxes(data, b"meta", b"iprp", b"ipco", name), None)
    return None if place is None or place[0] >= place[1] else data[place[0]] & bits


def _blocks(data: bytes) -> Iterator[bytes]:
    """The TIFF structures that may hold the orientation."""
    prefix = b"Exif\0\0"
    if data[:4] in TIFF:
        yield data
    elif data.startswith(JPEG):
        for kind, start, end in jpeg_segments(data):
            if kind == 0xE1 and data.startswith(prefix, start):
                yield data[start + len(prefix) : end]
            if kind == JPEG_SCAN:
                break
    elif data.startswith(PNG):
        for name, start, end in png_chunks(data):
            if name == b"eXIf":
                yield data[start:end].removeprefix(prefix)
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        for name, start, end in riff_chunks(data):
            if name == b"EXIF":
                yield data[start:end].removeprefix(prefix)


def without_orientation(data: bytes) -> bytes:
    """A TIFF file that states none, which OpenCV would obey; any other file as it is."""
    entry = tiff_directory(data).get(TAG)
    if entry is None or entry.value == 1:
        return data
    upright = (1).to_bytes(entry.width, byte_order(data))
    return data[: entry.position] + upright + data[entry.position + entry.width :]


def turn(image: ByteArray, orientation: int) -> ByteArray:
    """The stored picture upright.

    Args:
        image: (H, W) or (H, W, C).
        orientation: 1 to 8: where the first row and column of the file belong.

    Returns:
        The same channels; (W, H) instead of (H, W) for 5 to 8.
    """
    if orientation in _TURNS:
        turned = cv2.rotate(image, _TURNS[orientation])
    elif orientation in (2, 4):
        turned = cv2.flip(image, 1 if orientation == 2 else 0)
    elif orientation in (5, 7):
        turned = cv2.transpose(image)
        turned = cv2.rotate(turned, cv2.ROTATE_180) if orientation == 7 else turned
    else:
        return image
    return turned.astype(np.uint8, copy=False)


def stored_points(
    points: NDArray[np.float32], size: tuple[int, int], orientation: int
) -> NDArray[np.float32]:
    """Where points of an upright picture lie in the stored one: the inverse of :func:`turn`.

    Args:
        points: (N, 2), (x, y) in pixels of the upright picture.
        size: (height, width) of the stored picture.
        orientation: 1 to 8.
    """
    x, y = points.T if orientation < 5 else points.T[::-1]
    height, width = np.float32(size[0] - 1), np.float32(size[1] - 1)
    x = width - x if orientation in (2, 3, 7, 8) else x
    y = height - y if orientation in (3, 4, 6, 7) else y
    return np.stack([x, y], axis=1)
