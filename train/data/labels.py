"""Keypoints <-> 65-way cell targets, and validity masks.

Convention:
    A target is (65, H/8, W/8) and sums to one over the channels: channel ``8 r + c`` of a cell is
    its pixel in row r and column c, the last channel is the dustbin.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cv_superpoint.grid import CELL_SIZE

DUSTBIN = CELL_SIZE * CELL_SIZE


def one_per_cell(
    rng: np.random.Generator, points: npt.NDArray[np.floating[Any]], size: tuple[int, int]
) -> npt.NDArray[np.intp]:
    """Choose at random which keypoint of a cell is the label (section 3.4 of the paper).

    Args:
        rng: Source of randomness.
        points: (N, 2) as (x, y), all inside the image.
        size: (height, width), multiples of 8.

    Returns:
        Indices of the kept points, one for every occupied cell.
    """
    order = rng.permutation(len(points))
    pixels = np.round(points[order]).astype(np.int64)
    cell = pixels[:, 1] // CELL_SIZE * (size[1] // CELL_SIZE) + pixels[:, 0] // CELL_SIZE
    return np.asarray(order[np.unique(cell, return_index=True)[1]])


def labels_from_points(
    rng: np.random.Generator,
    points: npt.NDArray[np.floating[Any]],
    size: tuple[int, int],
    *,
    soft: bool,
) -> npt.NDArray[np.float32]:
    """Cell targets of an image's keypoints.

    A hard target is one pixel. A soft one spreads a keypoint bilinearly over the four pixels around
    its sub-pixel position; what falls into the neighbouring cell is that cell's share, the
    remainder of every cell goes to its dustbin. The centroid of the target is the keypoint.

    Args:
        rng: Breaks ties between keypoints of one cell.
        points: (N, 2) as (x, y) in [0, W - 1] x [0, H - 1].
        size: (height, width), multiples of 8.
        soft: Whether targets are soft.

    Returns:
        (65, H/8, W/8) float32, summing to 1 over the channels.
    """
    h, w = size
    kept = points[one_per_cell(rng, points, size)]
    if soft:
        low = np.floor(kept)
        share = kept - low
        # Four pixels of each keypoint: left or right of it, above or below it.
        near = np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
        pixels = np.minimum(low[:, None].astype(np.int64) + near, (w - 1, h - 1))
        beside, below = np.moveaxis(np.abs(1 - near - share[:, None]), 2, 0)
        weights = (beside * below).ravel()
    else:
        pixels = np.round(kept).astype(np.int64)[:, None]
        weights = np.ones(len(kept))
    x, y = pixels.reshape(-1, 2).T
    rows, columns = h // CELL_SIZE, w // CELL_SIZE
    channel = y % CELL_SIZE * CELL_SIZE + x % CELL_SIZE
    cell = y // CELL_SIZE * columns + x // CELL_SIZE
    # Two keypoints on either side of a cell's border may exceed one.
    total = np.bincount(cell, weights, minlength=rows * columns)
    weights = weights / np.maximum(total, 1)[cell]
    targets = np.zeros((DUSTBIN + 1, rows * columns), np.float32)
    np.add.at(targets, (channel, cell), weights.astype(np.float32))
    targets[DUSTBIN] = np.maximum(1 - total, 0)
    return targets.reshape(DUSTBIN + 1, rows, columns)


def to_cells(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(H, W) -> (64, H/8, W/8), the inverse of a pixel shuffle."""
    h, w = image.shape
    cells = image.reshape(h // CELL_SIZE, CELL_SIZE, w // CELL_SIZE, CELL_SIZE)
    return np.asarray(cells.transpose(1, 3, 0, 2).reshape(DUSTBIN, h // CELL_SIZE, w // CELL_SIZE))


def points_from_labels(targets: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Pixels of hard targets, row by row.

    Args:
        targets: (65, H/8, W/8).

    Returns:
        (N, 2) as (x, y).
    """
    h, w = targets.shape[1:]
    cells = targets[:-1].reshape(CELL_SIZE, CELL_SIZE, h, w).transpose(2, 0, 3, 1)
    y, x = np.nonzero(cells.reshape(h * CELL_SIZE, w * CELL_SIZE) > 0.5)
    return np.stack([x, y], axis=1).astype(np.float64)


def valid_cells(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """(H, W) pixel mask -> (H/8, W/8): cells all of whose pixels are valid."""
    return np.asarray(to_cells(mask).all(axis=0))
