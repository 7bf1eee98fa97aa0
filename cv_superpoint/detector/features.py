"""The features of an image, as arrays, and as ``cv2.KeyPoint`` objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cv_superpoint.decoding.descriptors import Bytes, Kind, from_bytes
from cv_superpoint.errors import FeatureError

CELL_DIAMETER = 8.0
"""``KeyPoint.size`` of a keypoint found at full resolution: one cell of the network, in pixels."""

_ROWS = ("keypoints", "scores", "descriptors", "sizes", "octaves")
"""The arrays that have a row for each keypoint."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """The keypoints of one image, strongest first; row i of every array is keypoint i.

    Attributes:
        keypoints: (N, 2) float32, (x, y) in pixels of the image that was passed;
            (0, 0) is the centre of its top-left pixel.
        scores: (N,) float32, descending: the probability of a keypoint, as ``scoreRadius`` of
            ``SuperPointFeature2D`` defines it.
        descriptors: One row for each keypoint: (N, D) float32 of unit length, (N, D) uint8 of
            :func:`cv_superpoint.decoding.descriptors.to_bytes`, or (N, B / 8) uint8 of B bits;
            (N, 0) float32 of a network without descriptors.
        sizes: (N,) float32, diameters in pixels of the image: 8 divided by the scale of the
            pyramid level at which a keypoint was found.
        octaves: (N,) int32, the index of that level in ``scales``.
        image_size: (height, width) of the image.
        descriptor_kind: Format of the descriptors: "float32", "uint8" or "binary".
        weights: ``tensor_digest`` of the weights that made the descriptors; empty where it
            is not known, as in a file of features.
    """

    keypoints: NDArray[np.float32]
    scores: NDArray[np.float32]
    descriptors: NDArray[np.float32] | Bytes
    sizes: NDArray[np.float32]
    octaves: NDArray[np.int32]
    image_size: tuple[int, int]
    descriptor_kind: Kind = "float32"
    weights: str = ""

    def __len__(self) -> int:
        return len(self.keypoints)

    def __getitem__(self, index: Any) -> Features:
        """The features that a slice, a boolean mask or an index array selects."""
        if isinstance(index, (int, np.integer)):
            index = [index]
        return replace(self, **{name: getattr(self, name)[index] for name in _ROWS})

    @classmethod
    def concatenate(cls, parts: Sequence[Features], image_size: tuple[int, int]) -> Features:
        """Rows of several sets over the same image, in the order given."""
        rows = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _ROWS}
        kind, weights = parts[0].descriptor_kind, parts[0].weights
        return cls(**rows, image_size=image_size, descriptor_kind=kind, weights=weights)

    def to_keypoints(self) -> tuple[cv2.KeyPoint, ...]:
        """Make ``cv2.KeyPoint`` objects: response = score, angle = -1, class_id = -1."""
        return make_keypoints(self.keypoints, self.scores, self.sizes, self.octaves)


def make_keypoints(
    points: NDArray[np.float32],
    scores: NDArray[np.float32],
    sizes: NDArray[np.float32],
    octaves: NDArray[np.int32],
) -> tuple[cv2.KeyPoint, ...]:
    """One ``cv2.KeyPoint`` for each row of (N, 2) points and (N,) scores, sizes and octaves."""
    # From tuples, and with only what differs set afterwards: twice as fast as a constructor call
    # for each, and as from an array, whose numbers cv2 reads as numpy's scalars one by one.
    xy = list(zip(points[:, 0].tolist(), points[:, 1].tolist(), strict=True))
    size = float(sizes[0]) if len(sizes) else 1.0
    keypoints = tuple(cv2.KeyPoint.convert(xy, size=size))
    for keypoint, score in zip(keypoints, scores.tolist(), strict=True):
        keypoint.response = score
    if np.any(octaves) or np.any(sizes != size):
        rows = zip(keypoints, sizes.tolist(), octaves.tolist(), strict=True)
        for keypoint, diameter, octave in rows:
            keypoint.size, keypoint.octave = diameter, octave
    return keypoints


def keypoints_to_array(keypoints: Sequence[cv2.KeyPoint]) -> NDArray[np.float32]:
    """(N, 2) positions of ``cv2.KeyPoint`` objects, also for none (where ``convert`` gives ())."""
    if len(keypoints) == 0:
        return np.empty((0, 2), np.float32)
    return np.asarray(cv2.KeyPoint.convert(tuple(keypoints)), np.float32).reshape(-1, 2)


def float_rows(features: Features, reader: str) -> NDArray[np.float32]:
    """Descriptors as (N, D) float32 rows of unit length; bytes become the numbers that they encode.

    Args:
        features: Features of one image.
        reader: Program that takes the rows, for the error.

    Raises:
        FeatureError: If the descriptors are bits.
    """
    if features.descriptor_kind == "binary":
        raise FeatureError(
            f"{reader} takes float32 descriptors, got binary ones; extract with "
            "descriptorFormat='float32' or 'uint8'"
        )
    if features.descriptor_kind == "uint8":
        return from_bytes(np.asarray(features.descriptors, np.uint8))
    return np.asarray(features.descriptors, np.float32)
