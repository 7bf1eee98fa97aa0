"""The order of scores, and which of equal maxima stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TIED = 32
"""Maxima with an equal that are compared with each other in pairs; more are in maps of ranks."""
_INDEX = np.uint64(0xFFFFFFFF)
"""The bits of an index in the keys of :func:`descending`."""
Floats = NDArray[np.float32]
Indices = NDArray[np.intp]


def descending(scores: Floats) -> NDArray[np.uint64]:
    """Sorted keys (N,) of scores, the highest first, of equal ones the first.

    A key has the bits of the score, negated, above those of its index. A sort of such is faster
    than a stable one of floats.

    Args:
        scores: (N,) float32, not negative.
    """
    # Floats that are not negative have the order of their bits.
    bits = np.ascontiguousarray(scores, np.float32).view(np.uint32)
    keys: NDArray[np.uint64] = np.left_shift(~bits, np.uint64(32), dtype=np.uint64)
    keys |= np.arange(len(bits), dtype=np.uint64)
    keys.sort()
    return keys


def indices(keys: NDArray[np.uint64]) -> Indices:
    """Where the scores were that have these keys of :func:`descending`."""
    places: Indices = (keys & _INDEX).astype(np.intp)
    return places


def first_of_equals(
    heatmap: Floats,
    found: Indices,
    radius: int,
    window_maximum: Callable[[NDArray[Any], int], NDArray[Any]],
) -> Indices:
    """The maxima without those that have an equal one before them within reach.

    Args:
        heatmap: (H, W) float32, not negative.
        found: Flat indices of maxima, ascending: no pixel within reach exceeds one.
        radius: Reach in pixels (Chebyshev).
        window_maximum: Same as :func:`cv_superpoint.decoding.arrays.sliding_maximum`.
    """
    first: Indices
    keys = descending(heatmap.reshape(-1).take(found))
    equal = np.flatnonzero((keys[1:] ^ keys[:-1]) <= _INDEX)
    if len(equal) == 0:
        return found
    if len(equal) <= _TIED:
        before, after = (found[indices(keys[places])].tolist() for places in (equal, equal + 1))
        later = _later_of_equals(equal.tolist(), before, after, radius, heatmap.shape[1])
        first = np.delete(found, np.searchsorted(found, later)) if later else found
        return first
    # Repeat among the maxima with their ranks, which all differ.
    exact = np.float32 if heatmap.size < 1 << 24 else np.float64
    ranks = np.zeros(heatmap.size, exact)
    ranks[found] = np.arange(len(found), 0, -1)
    highest = window_maximum(ranks.reshape(heatmap.shape), radius).ravel()
    first = found[ranks[found] == highest[found]]
    return first


def _later_of_equals(
    places: list[int], before: list[int], after: list[int], radius: int, width: int
) -> list[int]:
    """Maxima that have an equal one before them within reach, in Python: there are few.

    Args:
        places: Places of pairs of equal maxima that follow each other, among all in the order of
            their values; ascending.
        before: Flat index of the first of each pair.
        after: Flat index of the second of each pair.
        radius: Distance in pixels.
        width: Width of the heatmap.
    """
    later: list[int] = []
    equals: list[int] = []
    last = -2
    for place, first, second in zip(places, before, after, strict=True):
        if place != last + 1:  # of another value than the pair before
            equals = [first]
        row, column = divmod(second, width)
        if any(
            abs(row - one // width) <= radius and abs(column - one % width) <= radius
            for one in equals
        ):
            later.append(second)
        equals.append(second)
        last = place
    return later
