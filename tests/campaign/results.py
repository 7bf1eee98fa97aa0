"""What must hold for the features of every image."""

from __future__ import annotations

from typing import Any

import numpy as np
from kinds import check

from cv_superpoint import Features

FIELDS = ("keypoints", "scores", "descriptors", "sizes", "octaves")


def check_result(
    features: Features,
    shape: tuple[int, ...],
    quota: int = -1,
    mask: Any = None,
    *,
    unit: bool = True,
) -> None:
    """Inside the image and the mask, sorted by score, at most the quota, unit rows, all finite.

    Damaged weights may describe everything by zeros, which have no unit length.
    """
    count, (height, width) = len(features), shape[:2]
    plain = features.descriptor_kind == "float32"
    stored = np.float32 if plain else np.uint8
    check(features.image_size == (height, width), f"image_size {features.image_size} of {shape}")
    for name, kind, rows in (
        *(("keypoints", np.float32, (count, 2)), ("scores", np.float32, (count,))),
        *(("sizes", np.float32, (count,)), ("octaves", np.int32, (count,))),
        ("descriptors", stored, (count, features.descriptors.shape[1])),
    ):
        array = getattr(features, name)
        check(array.dtype == kind and array.shape == rows, f"{name}: {array.dtype} {array.shape}")
        check(np.isfinite(array).all(), f"{name} are not finite")
    points = features.keypoints
    check(np.all(points >= 0), f"keypoints below 0: {points.min(initial=0)}")
    check(np.all(points <= (width - 1, height - 1)), "keypoints beyond the image")
    check(np.all(np.diff(features.scores) <= 0), "scores are not sorted")
    check(quota <= 0 or count <= quota, f"{count} keypoints of at most {quota}")
    norms = np.linalg.norm(features.descriptors.astype(np.float32), axis=1)
    check(
        not (unit and plain) or np.allclose(norms, 1, atol=1e-4),
        f"lengths of rows from {norms.min(initial=1)} to {norms.max(initial=1)}",
    )
    if mask is not None and count:
        # Sub-pixel refinement moves a keypoint by less than a pixel from the one it was found at.
        kept = np.pad(np.asarray(mask) != 0, 1, mode="edge")
        rows_, columns = (np.rint(points[:, axis]).astype(int) for axis in (1, 0))
        around = [kept[rows_ + 1 + dy, columns + 1 + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        check(np.any(around, axis=0).all(), "keypoints outside the mask")


def same(one: Features, other: Features, what: str) -> None:
    """Check that two sets are equal to the bit."""
    for name in FIELDS:
        check(np.array_equal(getattr(one, name), getattr(other, name)), f"{what}: other {name}")


def close(one: Features, other: Features, what: str) -> None:
    """Check that two sets are equal but for the last digits."""
    check(len(one) == len(other), f"{what}: {len(one)} and {len(other)} keypoints")
    for name, atol in (("keypoints", 0.05), ("scores", 1e-3), ("descriptors", 1e-2)):
        rows = np.lexsort(np.round(one.keypoints.T, 1)), np.lexsort(np.round(other.keypoints.T, 1))
        a, b = getattr(one, name)[rows[0]], getattr(other, name)[rows[1]]
        check(np.allclose(a, b, atol=atol), f"{what}: other {name}")
