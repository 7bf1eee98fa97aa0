"""Decoding of the network's outputs to keypoints: pure functions on numpy arrays.

logits -> heatmap -> non-maximum suppression -> the strongest -> sub-pixel -> descriptors.
Everything here is local, so an image cut into overlapping tiles decodes to the same keypoints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.decoding.options import Decoding
from cv_superpoint.decoding.sampling import sample_descriptors as sample_descriptors
from cv_superpoint.decoding.ties import descending, first_of_equals, indices
from cv_superpoint.grid import CELL_SIZE

SUBPIXEL_RADIUS = 2
"""Pixels around a maximum that its sub-pixel position depends on."""
_PARTS, _SUMMED = 8, 128
"""Partial sums of :func:`_sum`, and values at most that they take."""
LARGEST_SHIFT = 0.499
"""Largest distance of a sub-pixel position from its maximum, in pixels: rounding gives it back."""

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]


def interleave(planes: Floats) -> Floats:
    """(n, h, w) planes -> (h, n w), value by value as ``cv2.merge`` does."""
    count, h, w = planes.shape
    rows: Floats = planes.transpose(1, 2, 0).reshape(h, w * count)
    return rows


def logits_to_heatmap(
    logits: Floats, interleave: Callable[[Floats], Floats] = interleave
) -> Floats:
    """Probability of a keypoint at every pixel.

    Args:
        logits: (h, w, 65), the dustbin last, in any order of memory: one that keeps the values of
            a channel side by side, as a transposed (65, h, w), is not copied.
        interleave: A function like :func:`interleave`, such as a faster one.

    Returns:
        (8 h, 8 w) float32.
    """
    h, w, count = logits.shape
    # Channel by channel: numpy works on long rows, where a cell has 65 values only.
    if logits.flags.c_contiguous:
        maps = interleave(logits.reshape(h * w, 1, count)).reshape(count, h * w)
    else:
        maps = np.ascontiguousarray(logits.transpose(2, 0, 1)).reshape(count, h * w)
    exponentials = maps - maps.max(axis=0)
    np.exp(exponentials, out=exponentials)
    cells = exponentials[:-1]
    cells /= _sum(exponentials)
    heatmap = np.empty((h, CELL_SIZE, w * CELL_SIZE), np.float32)
    for row, planes in enumerate(cells.reshape(CELL_SIZE, CELL_SIZE, h, w)):
        heatmap[:, row] = interleave(planes)
    return heatmap.reshape(h * CELL_SIZE, w * CELL_SIZE)


def _sum(values: Floats) -> Floats:
    """Sum over the first axis, in the order in which numpy adds values that lie side by side.

    That is in eight partial sums, so it rounds less than one sum, and the same in any order of
    memory.
    """
    total: Floats
    count = len(values)
    if count > _SUMMED:
        half = count // 2 - count // 2 % _PARTS
        return _sum(values[:half]) + _sum(values[half:])
    whole = count - count % _PARTS
    parts = values[:whole].reshape(whole // _PARTS, _PARTS, *values.shape[1:]).sum(axis=0)
    while len(parts) > 1:
        parts = parts[::2] + parts[1::2]
    [total] = parts
    for value in values[whole:]:
        total += value
    return total


def sliding_maximum(values: NDArray[Any], radius: int) -> NDArray[Any]:
    """Maximum over the (2 radius + 1)^2 window around each pixel; outside counts for nothing.

    Doubling windows take log2(window) passes along each axis, faster in numpy than a general
    maximum filter and independent of cv2.
    """
    radius = min(radius, max(values.shape))  # as far as there are pixels
    low = -np.inf if np.issubdtype(values.dtype, np.floating) else np.iinfo(values.dtype).min
    current = np.pad(values, radius, constant_values=low)
    window = 2 * radius + 1
    reach = 1  # current[i, j] is the maximum of a reach x reach window that starts there
    while reach < window:
        step = min(reach, window - reach)
        current = np.maximum(current[:-step], current[step:])
        current = np.maximum(current[:, :-step], current[:, step:])
        reach += step
    return current


def local_maxima(
    heatmap: Floats,
    threshold: float,
    radius: int,
    window_maximum: Callable[[NDArray[Any], int], NDArray[Any]] = sliding_maximum,
) -> tuple[Indices, Indices]:
    """Pixels above the threshold that no other within ``radius`` (Chebyshev) exceeds.

    Of equal maxima within reach of each other the first in raster order wins, so there are never
    two keypoints closer than ``radius + 1`` and the result does not depend on how it was computed.

    Args:
        heatmap: (H, W) float32, not negative.
        threshold: Probability; a keypoint has more than this.
        radius: Radius in pixels; 0 keeps every pixel above the threshold.
        window_maximum: A function like :func:`sliding_maximum`, such as a faster one.

    Returns:
        Rows and columns, each (N,), in raster order.
    """
    # Flat indices: numpy finds them ten times faster than rows and columns.
    if radius:
        found = np.flatnonzero(heatmap == window_maximum(heatmap, radius))
        found = found[heatmap.reshape(-1).take(found) > threshold]
        found = first_of_equals(heatmap, found, radius, window_maximum)
    else:
        found = np.flatnonzero(heatmap > threshold)
    rows, columns = np.divmod(found, heatmap.shape[1])
    return rows, columns


def keypoints(
    heatmap: Floats,
    decoding: Decoding,
    window_maximum: Callable[[NDArray[Any], int], NDArray[Any]] = sliding_maximum,
    inside: tuple[int, int, int, int] | None = None,
) -> tuple[Indices, Indices, Floats]:
    """Local maxima whose score exceeds the threshold.

    The score of a maximum is the sum of the probabilities around it: how likely it is that there
    is a keypoint within ``score_radius``. A corner on a pixel and one between four pixels, each of
    which has a quarter of its probability, then have the same score, so that a small shift of the
    image does not take a keypoint away. A maximum is also higher than the mean of a window that
    just reaches the threshold; where ``nms_radius`` is not smaller than ``score_radius``, it
    always is.

    Args:
        heatmap: (H, W) float32, not negative.
        decoding: Options, of which threshold and radii count.
        window_maximum: Same as for :func:`local_maxima`.
        inside: Top, left, bottom and right: no other keypoints come back, although maxima outside
            suppress those inside; None for all.

    Returns:
        Rows, columns and scores, each (N,), in raster order.
    """
    rows, columns = local_maxima(
        heatmap, decoding.peak_threshold, decoding.nms_radius, window_maximum
    )
    if inside is not None:
        top, left, bottom, right = inside
        kept = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
        rows, columns = rows[kept], columns[kept]
    scores = window_sums(heatmap, rows, columns, decoding.score_radius)
    above = scores > decoding.score_threshold
    return rows[above], columns[above], scores[above]


def window_sums(heatmap: Floats, rows: Indices, columns: Indices, radius: int) -> Floats:
    """(N,) sums of the (2 radius + 1)^2 window around each pixel; 0 outside the heatmap."""
    return _sum(_windows(heatmap, rows, columns, radius))


def _windows(heatmap: Floats, rows: Indices, columns: Indices, radius: int) -> Floats:
    """((2 radius + 1)^2, N): values around pixels, row by row; 0 outside the heatmap."""
    height, width = heatmap.shape
    if len(rows) and (
        min(rows.min(), columns.min()) < radius
        or rows.max() >= height - radius
        or columns.max() >= width - radius
    ):
        heatmap = np.pad(heatmap, radius)
        rows, columns, width = rows + radius, columns + radius, width + 2 * radius
    steps = np.arange(-radius, radius + 1)
    steps = (steps[:, None] * width + steps).reshape(-1, 1)
    values: Floats = heatmap.reshape(-1).take(steps + (rows * width + columns), mode="clip")
    return values


def strongest(scores: Floats, count: int) -> Indices:
    """Indices of the ``count`` highest scores, descending; -1 for all. Ties keep their order.

    Args:
        scores: (N,) float32, not negative.
        count: Largest number of keypoints.
    """
    order = indices(descending(scores))
    return order if count < 0 else order[:count]


def refine(heatmap: Floats, rows: Indices, columns: Indices) -> Floats:
    """Sub-pixel positions: the probability-weighted mean of the 5 x 5 pixels around each maximum.

    Pixels outside the heatmap weigh nothing.

    Returns:
        (N, 2) float32 as (x, y), at most half a pixel from the maximum, so that rounding a
        position gives back the pixel that was found.
    """
    if len(rows) == 0:
        return np.empty((0, 2), np.float32)
    offsets = np.arange(-SUBPIXEL_RADIUS, SUBPIXEL_RADIUS + 1)
    windows = _windows(heatmap, rows, columns, SUBPIXEL_RADIUS)
    total = _sum(windows)
    square = windows.reshape(len(offsets), len(offsets), -1)
    # Along x the rows of a window are summed first, along y its columns; then in float64.
    sums = np.stack((square.sum(axis=0), square.sum(axis=1)))
    shifts = (sums * offsets[:, None]).sum(axis=1) / total
    shifts = np.minimum(np.maximum(shifts, -LARGEST_SHIFT), LARGEST_SHIFT)
    shifts += (columns, rows)
    points: Floats = shifts.T.astype(np.float32, order="C")
    return points


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Faster functions in the place of those here.

    Attributes:
        interleave: Same as :func:`interleave`.
        window_maximum: Same as :func:`sliding_maximum`.
    """

    interleave: Callable[[Floats], Floats] = interleave
    window_maximum: Callable[[NDArray[Any], int], NDArray[Any]] = sliding_maximum


PLAIN = Steps()


def positions(heatmap: Floats, rows: Indices, columns: Indices, decoding: Decoding) -> Floats:
    """(N, 2) as (x, y): where keypoints at these pixels lie."""
    if decoding.subpixel:
        return refine(heatmap, rows, columns)
    return np.stack([columns, rows], axis=1).astype(np.float32)


def find(
    heatmap: Floats,
    decoding: Decoding,
    *,
    inside: tuple[int, int, int, int] | None = None,
    keep: Callable[[Floats], NDArray[np.bool_]] | None = None,
    steps: Steps = PLAIN,
) -> tuple[Floats, Floats]:
    """The keypoints of a heatmap, strongest first.

    Args:
        heatmap: (H, W) float32, not negative.
        decoding: What is kept.
        inside: Same as for :func:`keypoints`; None leaves out the border margin of this heatmap.
        keep: Which of (N, 2) positions are kept, before ``max_keypoints`` is filled; None for all.
        steps: Functions for single steps.

    Returns:
        Positions (N, 2) as (x, y), and scores (N,).
    """
    margin, (height, width) = decoding.border_margin, heatmap.shape
    if inside is None:
        inside = margin, margin, height - margin, width - margin
    rows, columns, scores = keypoints(heatmap, decoding, steps.window_maximum, inside)
    if keep is not None:
        kept = keep(positions(heatmap, rows, columns, decoding))
        rows, columns, scores = rows[kept], columns[kept], scores[kept]
    best = strongest(scores, decoding.max_keypoints)
    return positions(heatmap, rows[best], columns[best], decoding), scores[best]


def decode(
    logits: Floats,
    dense: Floats,
    decoding: Decoding,
    *,
    size: tuple[int, int] | None = None,
    inside: tuple[int, int, int, int] | None = None,
    keep: Callable[[Floats], NDArray[np.bool_]] | None = None,
    steps: Steps = PLAIN,
) -> tuple[Floats, Floats, Floats]:
    """The keypoints of the network's outputs, strongest first.

    Args:
        logits: Same as for :func:`logits_to_heatmap`.
        dense: Same as for :func:`sample_descriptors`.
        decoding: What is kept.
        size: (height, width) of the image in the top-left corner of a padded one, in pixels: what
            is outside neither gives keypoints nor suppresses any.
        inside: Same as for :func:`find`.
        keep: Same as for :func:`find`.
        steps: Same as for :func:`find`.

    Returns:
        Positions (N, 2) as (x, y), scores (N,), descriptors (N, D) of unit length.
    """
    heatmap = logits_to_heatmap(logits, steps.interleave)
    if size is not None:
        heatmap[size[0] :] = 0
        heatmap[:, size[1] :] = 0
    points, scores = find(heatmap, decoding, inside=inside, keep=keep, steps=steps)
    return points, scores, sample_descriptors(dense, points)
