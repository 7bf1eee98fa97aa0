"""The bytes of a picture file as uint8 pixels, whatever the type of its values.

OpenCV divides 16-bit values by 256, fails on most conversions of floating and signed ones, and
reads planes of 16 bits wrongly; here it reads only what it reads rightly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from cv_superpoint.pictures.arrays import ByteArray
from cv_superpoint.pictures.containers import TIFF, tiff_directory
from cv_superpoint.pictures.depth import Range, apply_range, find_range

_BITS, _PHOTOMETRIC, _CHANNELS, _PLANES, _TYPE = 258, 262, 277, 284, 339
"""Tags of TIFF."""
_IS_4 = cv2.__version__.startswith("4.")
_TYPES = {2: "signed", 3: "floating", 5: "complex", 6: "complex"}


@dataclass(frozen=True, kw_only=True)
class _Tiff:
    """What a TIFF file says of its values.

    Attributes:
        type: "unsigned", "signed", "floating" or "complex".
        bits: Bits of each.
        channels: Values of a pixel.
        in_planes: Whether each channel lies in a plane of its own.
        is_negative: Whether 0 is white.
    """

    type: str
    bits: int
    channels: int
    in_planes: bool
    is_negative: bool

    @property
    def is_plain(self) -> bool:
        """Whether OpenCV reads it as it reads other formats."""
        return self.type == "unsigned" and self.bits <= 8

    @property
    def is_readable(self) -> bool:
        """Whether OpenCV reads such values at all."""
        if self.channels > 4 or (self.in_planes and self.type != "unsigned"):
            return False
        widths = {"unsigned": 16 if _IS_4 else 64, "signed": 32 if _IS_4 else 64, "complex": 0}
        if self.type == "floating":
            return self.bits in (32, 64)
        return self.bits <= widths[self.type]


def _tiff(data: bytes) -> _Tiff | None:
    if data[:4] not in TIFF:
        return None
    tags = {tag: entry.value for tag, entry in tiff_directory(data).items()}
    return _Tiff(
        type=_TYPES.get(tags.get(_TYPE, 1), "unsigned"),
        bits=tags.get(_BITS, 1),
        channels=tags.get(_CHANNELS, 1),
        in_planes=tags.get(_PLANES) == 2,
        is_negative=tags.get(_PHOTOMETRIC) == 0,
    )


def decode(data: bytes, *, grey: bool) -> tuple[ByteArray, str] | None:
    """The pixels as stored, and how their values became uint8.

    Args:
        data: The whole file.
        grey: (H, W) instead of (H, W, 3) BGR.

    Returns:
        None if OpenCV cannot read it. The text is empty where the values were uint8.

    Raises:
        cv2.error: If OpenCV refuses it, for its size for example.
    """
    tiff = _tiff(data)
    colour = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    if tiff is not None and not tiff.is_plain:
        # In planes only the conversion to 8 bits is right, and that of unsigned values only.
        image = _imdecode(data, colour if tiff.in_planes else cv2.IMREAD_UNCHANGED)
        if image is not None and image.dtype == np.uint8 and tiff.type == "unsigned":
            taken = Range(low=0, high=2**tiff.bits - 1, bits=tiff.bits)
            return _channels(image, grey), f"uint{tiff.bits} values, {taken}"
        if tiff.in_planes:
            return None
    else:
        plain = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION if grey else colour
        image = _imdecode(data, plain | cv2.IMREAD_ANYDEPTH)
        if image is not None and image.dtype == np.uint8:
            return _channels(image, grey), ""
        if grey:  # the range is that of the colours, so that it does not depend on what is asked
            image = _imdecode(data, colour | cv2.IMREAD_ANYDEPTH)
    if image is None:
        return None
    image = image[..., :3] if image.ndim == 3 else image  # an alpha channel has another range
    found = find_range(image)
    pixels = apply_range(image, found)
    if tiff is not None and tiff.is_negative:
        pixels = np.uint8(255) - pixels
    return _channels(pixels, grey), f"{image.dtype} values, {found}"


def _imdecode(data: bytes, flags: int) -> Any:
    return cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None


def _channels(image: Any, grey: bool) -> ByteArray:
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if grey == (image.ndim == 2):
        converted = image
    else:
        converted = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY if grey else cv2.COLOR_GRAY2BGR)
    return np.ascontiguousarray(converted).astype(np.uint8, copy=False)


def why_unread(data: bytes) -> str:
    """Which values of a TIFF file OpenCV does not read; empty where it is something else."""
    tiff = _tiff(data)
    if tiff is None or tiff.is_readable:
        return ""
    planes = ", in planes" if tiff.in_planes else ""
    return (
        f"this OpenCV does not read TIFF files of {tiff.channels} x {tiff.bits} bits, {tiff.type}"
        f"{planes}; save it as whole numbers of 16 bits or floating ones of 32, in 1, 3 or 4 "
        "channels side by side"
    )
