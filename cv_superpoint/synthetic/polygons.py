"""Anti-aliased filled polygons: what a synthetic drawing is made of.

A drawing is described before it is painted, so its vertices can go through a homography first and
its edges stay as sharp as they were (no image is ever resampled).

Convention:
    Points are (x, y) pixels, (0, 0) the centre of the top-left pixel. Sizes are (height, width).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from cv_superpoint.geometry import Matrix, inside, warp_points

Image = npt.NDArray[np.uint8]
Paint = Callable[[float], tuple[float, ...]]

OVERSAMPLING = 4
# OpenCV's anti-aliased fill reaches this far beyond the polygon, in pixels of its own image.
FILL_EXCESS = 0.68
SHIFT_BITS = 4
# Coordinates beyond this many pixels of the oversampled image would overflow in OpenCV.
_LARGEST = 8e3


def grey_paint(shade: float) -> tuple[float, ...]:
    """The paint of a grey drawing: the grey level itself."""
    return (shade,)


@dataclass
class Shape:
    """Filled polygons in painting order, and the points that a detector should find.

    Attributes:
        fills: (vertices (K, 2), grey level in [0, 255]) pairs.
        points: Junctions and corners that are visible, (x, y).
        noise: Standard deviation of the noise that covers the drawing, grey levels.
    """

    fills: list[tuple[Matrix, float]] = field(default_factory=list)
    points: list[npt.NDArray[np.float64]] = field(default_factory=list)
    noise: float = 0.0

    @property
    def keypoints(self) -> Matrix:
        """(N, 2) points."""
        return np.array(self.points, dtype=np.float64).reshape(-1, 2)

    def visible_keypoints(self, size: tuple[int, int]) -> Matrix:
        """(N, 2) points inside the frame."""
        points = self.keypoints
        return points[inside(points, size)]

    def warped(self, homography: Matrix) -> Shape | None:
        """The shape seen through a homography; None if a part of it lies behind the camera."""
        if not self.fills:
            return self
        outlines = [polygon for polygon, _ in self.fills]
        vertices = warp_points(homography, np.concatenate(outlines))
        if not np.isfinite(vertices).all():
            return None
        parts = cut(vertices, [len(outline) for outline in outlines])
        fills = [(part, shade) for part, (_, shade) in zip(parts, self.fills, strict=True)]
        return Shape(fills, list(warp_points(homography, self.keypoints)), self.noise)

    def draw(self, background: Image, paint: Paint = grey_paint) -> Image:
        """Paint over a background, anti-aliased.

        Args:
            background: (H, W) or (H, W, C).
            paint: Function from a grey level to the channels of the background.

        Returns:
            A new image like ``background``.
        """
        if not self.fills:
            return np.array(background)
        h, w = background.shape[:2]
        wide = cv2.resize(background, (w * OVERSAMPLING, h), interpolation=cv2.INTER_NEAREST)
        large = wide.repeat(OVERSAMPLING, axis=0)
        # Pixel edges scale: the centre of pixel 0 lies amid its oversampled pixels.
        counts = [len(polygon) for polygon, _ in self.fills]
        vertices = (np.concatenate([polygon for polygon, _ in self.fills]) + 0.5) * OVERSAMPLING
        vertices = np.clip(shrink(vertices - 0.5, counts, FILL_EXCESS), -_LARGEST, 2 * _LARGEST)
        fixed = np.rint(vertices * 2**SHIFT_BITS).astype(np.int32)
        for outline, (_, shade) in zip(cut(fixed, counts), self.fills, strict=True):
            cv2.fillPoly(large, [outline], paint(shade), cv2.LINE_AA, SHIFT_BITS)
        # Averaging by two is so much faster in OpenCV that twice beats once by four.
        for factor in (2, 1):
            large = cv2.resize(large, (w * factor, h * factor), interpolation=cv2.INTER_AREA)
        return np.asarray(large, dtype=np.uint8)


def cut(rows: npt.NDArray[Any], counts: Sequence[int]) -> list[npt.NDArray[Any]]:
    """Consecutive stretches of an array, ``counts`` rows each."""
    ends = np.cumsum(counts).tolist()
    return [rows[end - count : end] for end, count in zip(ends, counts, strict=True)]


def shrink(vertices: Matrix, counts: Sequence[int], distance: float) -> Matrix:
    """Move every edge of simple polygons inwards, keeping the corners' angles.

    Args:
        vertices: (N, 2) of all polygons, one after the other, in either direction.
        counts: Vertices of each.
        distance: Distance in pixels.

    Returns:
        (N, 2), the vertices of the smaller polygons.
    """
    sizes = np.array(counts, dtype=np.intp)
    starts = np.cumsum(sizes) - sizes
    following = np.arange(1, len(vertices) + 1)
    following[starts + sizes - 1] = starts
    x, y = vertices[:, 0], vertices[:, 1]
    x_next, y_next = x[following], y[following]
    areas = np.add.reduceat(x * y_next - y * x_next, starts)
    turn = np.repeat(np.where(areas > 0, 1.0, -1.0), counts)
    dx, dy = x_next - x, y_next - y
    lengths = np.maximum(np.sqrt(dx * dx + dy * dy), 1e-9) * turn
    normals = np.column_stack([-dy / lengths, dx / lengths])
    before = np.empty_like(normals)
    before[following] = normals
    # The two offset lines meet here; very sharp corners are kept from running away.
    cosine = np.maximum(1 + (before * normals).sum(axis=1, keepdims=True), 0.25)
    return np.asarray(vertices + distance * (before + normals) / cosine)


def random_colours(rng: np.random.Generator, strength: float = 0.9) -> Paint:
    """A paint box: one random colour for every grey level, exactly as light as it.

    The grey version of a coloured drawing is the grey drawing (to the rounding of a level), so its
    edges keep their contrast and its vertices stay corners.

    Args:
        rng: Source of randomness; colours depend on the order in which levels are first asked for.
        strength: Largest share of the saturation that the grey level has room for.

    Returns:
        A function from a grey level to (R, G, B).
    """
    box: dict[float, tuple[float, ...]] = {}

    def paint(shade: float) -> tuple[float, ...]:
        if shade not in box:
            tint = rng.uniform(-1, 1, 3)
            tint -= tint @ LUMA
            room = np.where(tint > 0, 255 - shade, shade) / np.maximum(np.abs(tint), 1e-9)
            colour = shade + tint * room.min() * rng.uniform(0, strength)
            box[shade] = tuple(float(value) for value in colour)
        return box[shade]

    return paint


LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue in OpenCV's grey."""
