"""What is checked of names, features and matches before they go into another program's file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.detector.features import Features
from cv_superpoint.errors import SuperPointError

Matches: TypeAlias = NDArray[np.integer[Any]]
Pair: TypeAlias = tuple[str, str]


class StoreError(SuperPointError):
    """A file of features or matches cannot be read or written; the message tells the remedy."""


def check_name(name: Any) -> None:
    """An image's name: text that every format can hold.

    Raises:
        StoreError: If it is empty, no text, or cannot be written as UTF-8.
    """
    if not isinstance(name, str):
        raise StoreError(f"the name of an image must be a str, got {name!r}; take str(name)")
    if not name or "\0" in name or any("\ud800" <= letter <= "\udfff" for letter in name):
        raise StoreError(
            f"{name!r} cannot be stored as the name of an image: it must be UTF-8 text, not empty "
            "and without NUL; rename the file"
        )


def check_features(name: str, features: Features) -> None:
    """Features that another program can use.

    Raises:
        StoreError: If a value is infinite or NaN, or the arrays' lengths differ.
    """
    check_name(name)
    count = len(features.keypoints)
    for field in ("keypoints", "scores", "descriptors"):
        rows = np.asarray(getattr(features, field))
        if len(rows) != count:
            raise StoreError(
                f"{name!r} has {count} keypoints, but {len(rows)} rows of {field}; select rows "
                "with features[index], which keeps them together"
            )
        wrong = np.unique(np.nonzero(~np.isfinite(rows))[0])
        if len(wrong):
            raise StoreError(
                f"{name!r}: {field} must be finite, row {wrong[0]} is "
                f"{_shorten(rows[wrong[0]])}; leave such keypoints out"
            )


def check_matches(pair: Pair, rows: Any, counts: tuple[int, int]) -> NDArray[np.intp]:
    """(M, 2) row numbers of two images' features.

    Args:
        pair: The images' names, which must differ.
        rows: What was given.
        counts: How many keypoints the images have.

    Raises:
        StoreError: If they are no such row numbers; the message names the pair.
    """
    where = f"matches of {pair[0]!r} and {pair[1]!r}"
    if pair[0] == pair[1]:
        raise StoreError(f"{where}: an image is not matched with itself; leave this pair out")
    array = np.asarray(rows)
    if array.size == 0:
        return np.empty((0, 2), np.intp)
    if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind not in "iu":
        raise StoreError(
            f"{where} must be (M, 2) row numbers, got {array.dtype} {array.shape}; "
            "of cv2.DMatch they are queryIdx and trainIdx"
        )
    for column, (name, count) in enumerate(zip(pair, counts, strict=True)):
        wrong = np.flatnonzero((array[:, column] < 0) | (array[:, column] >= count))
        if len(wrong):
            raise StoreError(
                f"{where}: match {wrong[0]} names keypoint {array[wrong[0], column]} of {name!r}, "
                f"which has {count}, numbered from 0; match the features that are stored"
            )
    return array.astype(np.intp)


def merge_directions(
    matches: Mapping[Pair, Any], features: Mapping[str, Features]
) -> dict[Pair, NDArray[np.intp]]:
    """Each pair once, with the matches that were given in either direction, each once.

    Args:
        matches: (M, 2) row numbers by pair of image names.
        features: Features by image name.

    Raises:
        StoreError: If :func:`check_matches` raises it, or an image has no features.
    """
    unknown = {name for pair in matches for name in pair} - set(features)
    if unknown:
        raise StoreError(f"there are matches, but no features, of {', '.join(sorted(unknown))}")
    merged: dict[Pair, NDArray[np.intp]] = {}
    for pair, given in matches.items():
        rows = check_matches(pair, given, (len(features[pair[0]]), len(features[pair[1]])))
        key = pair
        if (pair[1], pair[0]) in merged:
            key, rows = (pair[1], pair[0]), rows[:, ::-1]
        both = np.concatenate([merged.get(key, rows[:0]), rows])
        first = np.unique(both, axis=0, return_index=True)[1]
        merged[key] = both[np.sort(first)]
    return merged


def _shorten(row: Any) -> str:
    values = np.atleast_1d(row)
    if len(values) <= 4:
        return str(values.tolist())
    return f"{values[~np.isfinite(values)][0]} among others"
