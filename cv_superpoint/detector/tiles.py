"""Overlapping tiles that decode to the same keypoints as the whole image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.decoding.arrays import SUBPIXEL_RADIUS
from cv_superpoint.grid import CELL_SIZE
from cv_superpoint.pictures.arrays import ByteArray


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A piece of the padded image: the pixels that run, and the core whose keypoints it gives.

    Attributes:
        top, left, bottom, right: The piece that runs through the network, in pixels.
        core: (top, left, bottom, right) of the core. Cores cover the image once.
    """

    top: int
    left: int
    bottom: int
    right: int
    core: tuple[int, int, int, int]

    @property
    def origin(self) -> NDArray[np.float32]:
        """Its first pixel as (x, y) in the image."""
        return np.array((self.left, self.top), np.float32)

    def cut(self, stack: ByteArray) -> ByteArray:
        """The piece of (B, H, W, C) images."""
        return np.ascontiguousarray(stack[:, self.top : self.bottom, self.left : self.right])

    def owns(self, points: NDArray[Any]) -> NDArray[np.bool_]:
        """Which of the (N, 2) points (x, y) of the whole image lie in the core."""
        top, left, bottom, right = self.core
        x, y = points[:, 0], points[:, 1]
        inside: NDArray[np.bool_] = (x >= left) & (x < right) & (y >= top) & (y < bottom)
        return inside

    def inside(self, margin: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Top, left, bottom and right of what it gives keypoints of, in its own pixels.

        Args:
            margin: Pixels without keypoints around the image.
            size: (height, width) of the image, without the padding.
        """
        top, left, bottom, right = self.core
        return (
            max(top, margin) - self.top,
            max(left, margin) - self.left,
            min(bottom, size[0] - margin) - self.top,
            min(right, size[1] - margin) - self.left,
        )


def _cuts(length: int, tile_size: int) -> list[int]:
    """Starts and end of about equal pieces on the grid of cells, none longer than the tile."""
    pieces = math.ceil(length / tile_size)
    step = math.ceil(length / pieces / CELL_SIZE) * CELL_SIZE
    return [*range(0, length, step), length]


def make_tiles(size: tuple[int, int], *, tile_size: int, reach: int, margin: int) -> list[Tile]:
    """Tiles of a padded image; a single one if it has at most ``tile_size ** 2`` pixels.

    A tile reaches past its core by what the core's heatmap, suppression, sub-pixel positions
    and descriptors depend on, so its keypoints are those of the whole image.

    Args:
        size: (height, width), multiples of 8.
        tile_size: Longest side of a core, a multiple of 8.
        reach: Pixels around a keypoint that its suppression and its score depend on.
        margin: Pixels beyond a cell that its outputs depend on, see
            :func:`cv_superpoint.network.architecture.receptive_margin`.
    """
    height, width = size
    if height * width <= tile_size**2:
        return [Tile(top=0, left=0, bottom=height, right=width, core=(0, 0, height, width))]
    around = max(reach, SUBPIXEL_RADIUS, CELL_SIZE)
    halo = margin + math.ceil(around / CELL_SIZE) * CELL_SIZE
    rows, columns = _cuts(height, tile_size), _cuts(width, tile_size)
    return [
        Tile(
            top=max(0, top - halo),
            left=max(0, left - halo),
            bottom=min(height, bottom + halo),
            right=min(width, right + halo),
            core=(top, left, bottom, right),
        )
        for top, bottom in pairwise(rows)
        for left, right in pairwise(columns)
    ]
