"""Patches of two pictures of the same light, and the shift between them by least squares.

Pictures here are (H, W) uint8 after their local mean and contrast were made the same, by
:func:`even` or, for patches side by side in a sheet, by :func:`cut_sheets`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Points = NDArray[np.float32]

_AROUND = 25
"""Side of the square that local mean and contrast are taken of, in pixels."""
_SMOOTH = 0.7
"""Deviation of the Gaussian before, in pixels: samples of sharper pictures pull to whole pixels."""
_FLAT = 4.0
"""Grey levels of contrast that are added to every one, so that noise is not blown up."""
_LEVELS = 36.0
"""Grey levels of one standard deviation after it."""
_STEPS = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 20, 0.005)
_MOST = 32767
"""Rows that OpenCV's maps have at most."""


class Placed(NamedTuple):
    """Where patches were found.

    Attributes:
        points: (M, 2) float32 in the second picture.
        correlation: (M,) float32 of both patches; -1 where the search left the picture.
        deviation: (M,) float32 standard deviation of the shift along its less certain direction.
    """

    points: Points
    correlation: NDArray[np.float32]
    deviation: NDArray[np.float32]


class Sheets(NamedTuple):
    """Patches around matched points, side by side, of both pictures.

    Attributes:
        first: (H, W) sheet of image 0.
        second: (H, W) sheet of image 1, each patch as image 0 would show it.
        points: (M, 2) float32 where the matched points lie in both sheets.
    """

    first: Picture
    second: Picture
    points: Points


def even(picture: NDArray[Any]) -> Picture:
    """A picture with the same local mean and contrast everywhere."""
    values = smooth(picture)
    mean = cv2.boxFilter(values, -1, (_AROUND, _AROUND))
    variance = np.asarray(cv2.sqrBoxFilter(values, cv2.CV_32F, (_AROUND, _AROUND)), np.float32)
    variance -= np.asarray(cv2.multiply(mean, mean), np.float32)
    contrast = np.asarray(cv2.sqrt(np.maximum(variance, 0, out=variance)), np.float32)
    contrast += _FLAT
    centred = cv2.subtract(values, mean)
    flat = np.asarray(cv2.divide(centred, contrast, scale=_LEVELS), np.float32)
    flat += 128.5  # cut off below: rounded
    return np.asarray(np.clip(flat, 0, 255, out=flat), np.uint8)


def smooth(picture: NDArray[Any]) -> NDArray[np.float32]:
    """A picture whose bilinear samples are right to a hundredth of a pixel."""
    return np.asarray(cv2.GaussianBlur(picture.astype(np.float32), (0, 0), _SMOOTH), np.float32)


def cut_sheets(
    smooth0: NDArray[np.float32],
    smooth1: NDArray[np.float32],
    points0: Points,
    points1: Points,
    affines: NDArray[np.float64],
    radius: int,
) -> Sheets:
    """Cut the patches around matched points, those of image 1 warped by an affine map each.

    Args:
        smooth0: Result of :func:`smooth`.
        smooth1: The same for image 1.
        points0: (M, 2).
        points1: (M, 2).
        affines: (M, 2, 2), a step ``d`` in image 0 is ``A d`` in image 1.
        radius: Pixels around a point that a patch shows.
    """
    count, side = len(points0), 2 * radius + 1
    columns = math.ceil(math.sqrt(count))
    rows = -(-count // columns)
    whole = np.rint(points0)
    rest = points0 - whole
    offsets = np.arange(-radius, radius + 1, dtype=np.float32)
    x, y = offsets[None, None, :], offsets[None, :, None]
    # Steps from the point itself, which lies beside the middle of its patch.
    dx, dy = x - rest[:, 0, None, None], y - rest[:, 1, None, None]
    (a, b), (c, d) = affines.astype(np.float32).transpose(1, 2, 0)[:, :, :, None, None]
    maps0 = whole[:, 0, None, None] + x, whole[:, 1, None, None] + y
    maps1 = (
        points1[:, 0, None, None] + a * dx + b * dy,
        points1[:, 1, None, None] + c * dx + d * dy,
    )
    sheets = []
    for picture, maps, how in (
        (smooth0, maps0, cv2.INTER_NEAREST),
        (smooth1, maps1, cv2.INTER_LINEAR),
    ):
        flat = [np.broadcast_to(each, (count, side, side)).reshape(-1, side) for each in maps]
        cells = _remap(picture, flat[0], flat[1], how).reshape(count, side * side)
        sheets.append(_sheet(_even_cells(cells), rows, columns, side))
    row, column = np.divmod(np.arange(count), columns)
    corner = np.stack([column, row], axis=1) * side + radius
    return Sheets(sheets[0], sheets[1], (corner + rest).astype(np.float32))


def _even_cells(cells: NDArray[np.float32]) -> Picture:
    """(M, K) with the same mean and contrast in every row."""
    mean = cells.mean(axis=1, keepdims=True)
    centred = cells - mean
    power = np.einsum("mk,mk->m", centred, centred) / cells.shape[1]
    centred *= (_LEVELS / (np.sqrt(power) + _FLAT))[:, None]
    centred += 128.5  # cut off below: rounded
    return np.asarray(np.clip(centred, 0, 255, out=centred), np.uint8)


def _sheet(cells: Picture, rows: int, columns: int, side: int) -> Picture:
    full = np.full((rows * columns, side, side), 128, np.uint8)
    full[: len(cells)] = cells.reshape(-1, side, side)
    apart = full.reshape(rows, columns, side, side).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(apart).reshape(rows * side, columns * side)


def place(
    picture0: Picture, picture1: Picture, points0: Points, start: Points, window: int
) -> Placed:
    """Find the patches around points of one picture in another.

    Args:
        picture0: The picture.
        picture1: The other, shifted alone around each point.
        points0: (M, 2), a whole window away from the borders.
        start: (M, 2) where the search begins in ``picture1``.
        window: Side of the patches, odd.
    """
    found, status, _ = cv2.calcOpticalFlowPyrLK(
        picture0,
        picture1,
        points0[:, None],
        start[:, None].copy(),
        winSize=(window, window),
        maxLevel=0,
        criteria=_STEPS,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )
    points = np.asarray(found, np.float32).reshape(-1, 2)
    correlation, deviation = _compare(picture0, picture1, points0, points, window)
    correlation[np.asarray(status).reshape(-1) == 0] = -1
    return Placed(points, correlation, deviation)


def _compare(
    picture0: Picture, picture1: Picture, points0: Points, points1: Points, window: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Correlation of the patches around matched points, and the deviation of a least-squares shift.

    The shift's covariance is the inverse of the gradients' matrix times the variance of what
    remains between the patches.
    """
    patches = [
        _patches(picture, points, window)
        for picture, points in ((picture0, points0), (picture1, points1))
    ]
    centred = [each - each.mean(axis=1, keepdims=True) for each in patches]
    power = [np.einsum("mk,mk->m", each, each) for each in centred]
    product = np.einsum("mk,mk->m", *centred)
    correlation = product / np.sqrt(np.maximum(power[0] * power[1], 1e-6))
    rest = np.maximum(power[0] + power[1] - 2 * product, 0) / patches[0].shape[1]
    # The smaller eigenvalue of the matrix; OpenCV takes twice the gradients, over 255 and the side.
    eigenvalues = cv2.cornerMinEigenVal(picture0, window, ksize=3)
    columns, rows = np.rint(points0).astype(np.intp).T
    smallest = eigenvalues[rows, columns] * np.float32((255 * window / 2) ** 2)
    return correlation, np.sqrt(rest / np.maximum(smallest, 1e-6))


def _patches(picture: Picture, points: Points, window: int) -> NDArray[np.float32]:
    """(M, K) float32, bilinear: every second pixel of a window, in both directions."""
    offsets = np.arange(-(window // 2), window // 2 + 1, 2, dtype=np.float32)
    x, y = np.meshgrid(offsets, offsets)
    columns, rows = points[:, :1] + x.reshape(-1), points[:, 1:] + y.reshape(-1)
    return _remap(picture, columns, rows, cv2.INTER_LINEAR).astype(np.float32)


def _remap(picture: NDArray[Any], columns: Any, rows: Any, how: int) -> NDArray[Any]:
    """Samples of a picture; its border goes on beyond it."""
    parts = [
        cv2.remap(
            picture,
            np.ascontiguousarray(columns[k : k + _MOST], np.float32),
            np.ascontiguousarray(rows[k : k + _MOST], np.float32),
            how,
            borderMode=cv2.BORDER_REPLICATE,
        )
        for k in range(0, len(columns), _MOST)
    ]
    return np.concatenate(parts)
