"""Values of more than 8 bits, of signed and of floating types as the 8 bits that the network takes.

12 bits in a 16-bit file use a sixteenth of its range, a thermal picture less: dividing by 256, as
OpenCV does, leaves nothing to see. So the range that the values fill is taken, and told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.errors import FeatureError
from cv_superpoint.pictures.arrays import ByteArray

SHARE = 0.001
"""Share of the values at either end that counts as defects of the sensor."""
FILLED = 0.5
"""Share of a usual range that ordinary photographs fill; what fills less is spread."""
BITS = (8, 10, 12, 14, 16)
"""Usual depths of whole numbers."""
TOPS = (1.0, 255.0)
"""Usual white of floating numbers."""
SAMPLES = 1_000_000
"""Pixels that are looked at, evenly spaced, where there are more."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """What becomes 0 and what becomes 255.

    Attributes:
        low: Value that becomes 0, as all below it.
        high: Value that becomes 255, as all above it.
        bits: Where whole numbers fill so many bits, whose upper 8 are taken.
    """

    low: float
    high: float
    bits: int | None = None

    def __str__(self) -> str:
        if self.bits is not None:
            return "as they are" if self.bits == 8 else f"the upper 8 of {self.bits} bits taken"
        return f"{self.low:.6g} to {self.high:.6g} spread over 0 to 255"


def to_uint8(image: Any, low: float | None = None, high: float | None = None) -> ByteArray:
    """Convert an array of whole or floating numbers to the uint8 that detectors take.

    Args:
        image: Array of any shape. NaN, and the lowest number of a signed type, mean "no value"
            and become 0.
        low: Value that becomes 0; None takes it from the values, see :func:`find_range`.
        high: Value that becomes 255; None takes it from the values. Give both bounds to compare
            the brightness of pictures, such as the frames of one thermal film.

    Returns:
        uint8 of the same shape; ``image`` itself if it is uint8 and neither bound is given.

    Raises:
        FeatureError: If it is not an array of numbers or ``low`` is not below ``high``.
    """
    array: NDArray[Any] = np.asarray(image)
    if array.dtype.kind not in "buif":
        raise FeatureError(
            f"image must be an array of whole or floating numbers, got {array.dtype} {array.shape}"
        )
    if array.dtype == np.bool_:
        white: ByteArray = array.astype(np.uint8) * np.uint8(255)
        return white
    if low is None and high is None:
        return array if array.dtype == np.uint8 else apply_range(array, find_range(array))
    if low is None or high is None:
        found = find_range(array)
        low, high = found.low if low is None else low, found.high if high is None else high
    if not low < high:
        raise FeatureError(f"low must be below high, got {low} and {high}")
    return apply_range(array, Range(low=float(low), high=float(high)))


def find_range(image: NDArray[Any]) -> Range:
    """The range of the values.

    A usual one, of 8, 10, 12, 14 or 16 bits or of floats to 1 or 255, the smallest that holds
    the values, where they fill at least half of it, as photographs do; so these come out as their
    8-bit files. Otherwise what lies between the first and the last thousandth of the values.

    Args:
        image: (H, W) or (H, W, C), whole or floating.
    """
    values = _sample(image)
    if values.size == 0:
        return Range(low=0.0, high=1.0)
    low, high = (float(each) for each in np.quantile(values, (SHARE, 1 - SHARE)))
    if low >= 0 and image.dtype.kind in "ui":
        for bits in BITS:
            if high < 2**bits and high - low >= FILLED * 2**bits:
                return Range(low=0.0, high=2.0**bits - 1, bits=bits)
    elif low >= 0:
        top = next((top for top in TOPS if high <= top), None)
        if top is not None and high - low >= FILLED * top:
            return Range(low=0.0, high=top)
    if not low < high:  # nearly all are equal: the others are what there is to see
        low, high = float(values.min()), float(values.max())
    return Range(low=low, high=high if low < high else low + max(1.0, 1e-6 * abs(low)))


def _sample(image: NDArray[Any]) -> NDArray[Any]:
    """Values that are values, of evenly spaced pixels."""
    pixels = image.reshape(-1, *image.shape[2:])
    values = pixels[:: -(-len(pixels) // SAMPLES) or 1].reshape(-1)
    return values[_is_value(values)].astype(np.float64)


def _is_value(values: NDArray[Any]) -> NDArray[np.bool_]:
    if values.dtype.kind == "f":
        is_value: NDArray[np.bool_] = np.isfinite(values)
        if values.dtype.itemsize > 2:  # the lowest float32 marks what was not measured, too
            is_value &= np.abs(values) < 1e38
        return is_value
    if values.dtype.kind == "i":
        known: NDArray[np.bool_] = values != np.iinfo(values.dtype).min
        return known
    return np.ones(values.shape, np.bool_)


def apply_range(image: NDArray[Any], found: Range) -> ByteArray:
    """The image with the range spread over 0 to 255.

    Args:
        image: Whole or floating, any shape.
        found: The range.
    """
    if found.bits is not None:
        shifted: ByteArray = (np.clip(image, 0, 2**found.bits - 1) >> (found.bits - 8)).astype(
            np.uint8
        )
        return shifted
    # float32 holds any 16-bit value; of larger ones it may not hold the differences.
    exact = np.float32 if image.dtype.itemsize <= 2 else np.float64
    low, high = exact(found.low), exact(found.high)
    values = np.where(_is_value(image), image, low).astype(exact).clip(low, high)
    result: ByteArray = np.rint((values - low) / (high - low) * exact(255)).astype(np.uint8)
    return result
