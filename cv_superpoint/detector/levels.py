"""Pyramid levels of images: their pixels, and the way of a point from level to image and back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cv_superpoint.pictures.arrays import ByteArray


@dataclass(frozen=True, kw_only=True)
class Level:
    """One pyramid level of one image of several.

    Attributes:
        image: Index of the image.
        octave: Index of the level.
        pixels: (H, W) or (H, W, C) uint8, resampled.
        image_size: (height, width) of the image itself.
    """

    image: int
    octave: int
    pixels: ByteArray
    image_size: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the level."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def ratio(self) -> NDArray[np.float32]:
        """Image pixels for one level pixel, along x and y."""
        (height, width), (level_height, level_width) = self.image_size, self.size
        return np.array((width / level_width, height / level_height), np.float32)

    @property
    def is_rescaled(self) -> bool:
        """Whether its pixels are not those of the image."""
        return self.size != self.image_size

    def to_image(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Level (x, y) -> image (x, y): pixel centres are half a pixel inside the pixel grid."""
        if not self.is_rescaled:
            return points
        last = np.array((self.image_size[1] - 1, self.image_size[0] - 1), np.float32)
        mapped: NDArray[np.float32] = (points + np.float32(0.5)) * self.ratio - np.float32(0.5)
        return mapped.clip(0, last)

    def from_image(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Image (x, y) -> level (x, y)."""
        if not self.is_rescaled:
            return points
        mapped: NDArray[np.float32] = (points + np.float32(0.5)) / self.ratio - np.float32(0.5)
        return mapped

    def shows(
        self, mask: NDArray[np.bool_], origin: NDArray[np.float32], points: NDArray[np.float32]
    ) -> NDArray[np.bool_]:
        """Which of (N, 2) points of a tile that begins at ``origin`` a mask of the image keeps."""
        x, y = np.rint(self.to_image(points + origin)).astype(np.intp).T
        kept: NDArray[np.bool_] = mask[y, x]
        return kept


def rescale(image: ByteArray, scale: float) -> ByteArray:
    """A pyramid level: blurred against aliasing, then resampled."""
    if scale == 1:
        return image
    height, width = image.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image = np.ascontiguousarray(image)
    if scale < 1:
        sigma = (1 / scale - 1) / 2
        kernel = 2 * math.ceil(3 * sigma) + 1
        image = cv2.GaussianBlur(image, (kernel, kernel), sigma).astype(np.uint8, copy=False)
    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
