"""``LightGlueMatcher``: the interface of ``cv2.LightGlueMatcher``, and of our own matchers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cv_superpoint.checks import as_count
from cv_superpoint.detector.features import Features, float_rows, keypoints_to_array
from cv_superpoint.errors import FeatureError
from cv_superpoint.matching.lightglue.arrays import mutual_best
from cv_superpoint.matching.lightglue.bundled import find_matcher, name_of
from cv_superpoint.matching.lightglue.files import LoadedMatcher, check_threshold
from cv_superpoint.matching.lightglue.graph import MatcherLayout, matcher_model
from cv_superpoint.matching.lightglue.lanes import Inputs
from cv_superpoint.matching.lightglue.running import MatcherBackend, make_runner
from cv_superpoint.matching.nearest import UNIT_TOLERANCE, Pairs

Floats = NDArray[np.float32]

_NONE = np.empty((0, 0), np.float32)
"""Scores where a side has no keypoint."""
FARTHEST = 1.2
"""Normalised position of a keypoint; those inside the image lie in [-1, 1]."""


class LightGlueMatcher:
    """A learned matcher for the features of one set of weights.

    It uses the positions of the keypoints as well as their descriptors, and gives each match a
    score. Make one with :meth:`create`.

    Args:
        loaded: The network.
        threshold: Score that a match must exceed, in [0, 1).
        backend: "openvino", "onnxruntime", "torch", "numpy", or "auto", the fastest one that is
            installed.
        threads: Threads of one call; None takes the cores that the process may use.
    """

    def __init__(
        self,
        loaded: LoadedMatcher,
        threshold: float,
        backend: MatcherBackend = "auto",
        threads: int | None = None,
    ) -> None:
        self.loaded = loaded
        self.threshold = check_threshold(threshold)
        self._choice = backend, None if threads is None else as_count("threads", threads, 1)
        self._runner = make_runner(loaded, *self._choice)
        self._info: tuple[Floats, Floats] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.loaded, self.threshold, *self._choice)

    @property
    def backend(self) -> str:
        """What runs the network."""
        return self._runner.name

    @classmethod
    def create(
        cls,
        weights: str | os.PathLike[str] | None = None,
        scoreThreshold: float | None = None,  # noqa: N803  # as cv2.LightGlueMatcher.create
        backend: MatcherBackend = "auto",
        threads: int | None = None,
    ) -> LightGlueMatcher:
        """A matcher that comes with the package, or from a file.

        Args:
            weights: Bundled weights whose features it is to match, such as "superpoint-lite"; a
                file that ``python -m train matcher`` wrote; or None for the default weights.
            scoreThreshold: Score that a match must exceed; by default what the matcher recommends.
            backend: Same as above.
            threads: Same as above.

        Raises:
            WeightsError: If these weights have no matcher, or the file is none.
            FeatureError: If a value is out of range.
            ImportError: If the backend's package is not installed.
        """
        loaded = find_matcher(weights)
        threshold = loaded.threshold if scoreThreshold is None else scoreThreshold
        return cls(loaded, threshold, backend, threads)

    def __call__(self, features0: Features, features1: Features, /) -> Pairs:
        """Match the features of two images.

        Returns:
            (M, 2) row numbers, ascending in the first column, and (M,) scores in [0, 1].

        Raises:
            FeatureError: If the descriptors are not those that it learned, numbers are not finite,
                or positions lie far outside of the image.
        """
        return self._matched(*self._inputs(features0, features1))

    def matchBatch(  # noqa: N802  # as extractBatch
        self, pairs: Iterable[tuple[Features, Features]]
    ) -> list[Pairs]:
        """Match many pairs, with the results of a call for each, in less time.

        On the CPU several pairs run side by side, each on a thread of its own; with torch on CUDA
        they are padded to batches. The scores are those of single calls but for rounding.

        Args:
            pairs: Features of both images of each pair, with any numbers of keypoints.

        Returns:
            What a call returns, for each pair.

        Raises:
            FeatureError: If a call would raise it, before any pair is matched; it names the pair.
        """
        inputs = [self._of_a_batch(number, *pair) for number, pair in enumerate(pairs)]
        results = [self._best(_NONE) for _ in inputs]
        there = [number for number, (points, _) in enumerate(inputs) if min(map(len, points))]
        found = self._runner.each([inputs[number] for number in there], self._best)
        for number, one in zip(there, found, strict=True):
            results[number] = one
        return results

    def _of_a_batch(self, number: int, *pair: Features) -> Inputs:
        try:
            inputs = self._inputs(*pair)
            self._check(*inputs)
        except FeatureError as error:
            raise FeatureError(f"pair {number}: {error}") from error
        return inputs

    def setPairInfo(  # noqa: N802
        self,
        queryKpts: Any,  # noqa: N803
        trainKpts: Any,  # noqa: N803
        queryImageSize: Sequence[float] = (0, 0),  # noqa: N803
        trainImageSize: Sequence[float] = (0, 0),  # noqa: N803
    ) -> None:
        """Where the keypoints of the next call lie, as OpenCV's.

        Args:
            queryKpts: ``cv2.KeyPoint`` objects or (N, 2) positions, in pixels; in [-1, 1] if no
                size is given.
            trainKpts: The same of the other image.
            queryImageSize: (width, height).
            trainImageSize: (width, height).

        Raises:
            FeatureError: If the positions are not (N, 2).
        """
        sides = ((queryKpts, queryImageSize), (trainKpts, trainImageSize))
        first, second = (
            normalised(points, size) if size[0] > 0 and size[1] > 0 else points
            for points, size in ((_points(keypoints), size) for keypoints, size in sides)
        )
        self._info = first, second

    def clearPairInfo(self) -> None:  # noqa: N802
        """Forget what :meth:`setPairInfo` was given."""
        self._info = None

    def match(self, queryDescriptors: Any, trainDescriptors: Any) -> tuple[cv2.DMatch, ...]:  # noqa: N803
        """Match the descriptors whose positions :meth:`setPairInfo` was given.

        Returns:
            ``cv2.DMatch`` objects by ascending query row; their distance is 1 - score.

        Raises:
            FeatureError: If :meth:`setPairInfo` was not called before (OpenCV's matcher takes the
                positions of the pair before), or positions and descriptors do not fit.
        """
        if self._info is None:
            raise FeatureError(
                "match needs the positions of this pair: call setPairInfo before each match"
            )
        points, self._info = self._info, None
        rows, scores = self._matched(points, [_rows(queryDescriptors), _rows(trainDescriptors)])
        return tuple(
            cv2.DMatch(int(query), int(train), float(1 - score))
            for (query, train), score in zip(rows, scores, strict=True)
        )

    def knnMatch(  # noqa: N802
        self,
        queryDescriptors: Any,  # noqa: N803
        trainDescriptors: Any,  # noqa: N803
        k: int = 1,
    ) -> tuple[tuple[cv2.DMatch, ...], ...]:
        """Same as :meth:`match`, as a tuple for each query row, with one match for any ``k``."""
        if k < 1:
            raise FeatureError(f"k must be positive, got {k}")
        rows: list[tuple[cv2.DMatch, ...]] = [()] * len(_rows(queryDescriptors))
        for match in self.match(queryDescriptors, trainDescriptors):
            rows[match.queryIdx] = (match,)
        return tuple(rows)

    def export_onnx(self, layout: MatcherLayout = "opencv") -> bytes:
        """The network as an ONNX file.

        Args:
            layout: "opencv" for ``cv2.LightGlueMatcher`` of OpenCV 5, "colmap" for COLMAP; see
                :mod:`cv_superpoint.matching.lightglue.graph`.
        """
        content: bytes = matcher_model(self.loaded, layout, self.threshold).SerializeToString()
        return content

    def _matched(self, points: Sequence[Floats], descriptors: Sequence[Floats]) -> Pairs:
        self._check(points, descriptors)
        if min(map(len, points)) == 0:
            return self._best(_NONE)
        return self._best(self._runner(points, descriptors))

    def _best(self, scores: Floats) -> Pairs:
        return mutual_best(scores, self.threshold)

    def _inputs(self, *both: Features) -> Inputs:
        """Positions in [-1, 1] and descriptors of both images."""
        for side, features in enumerate(both):
            self._check_weights(side, features)
        points = [normalised(each.keypoints, each.image_size[::-1]) for each in both]
        return points, [float_rows(each, "LightGlue") for each in both]

    def _check_weights(self, side: int, features: Features) -> None:
        """Lengths alone are compared where either side does not name its weights."""
        expected = self.loaded.fitted_to
        if features.weights and expected and features.weights != expected:
            raise FeatureError(
                f"this matcher is for the features of {self.loaded.weights}, image {side} has "
                f"those of {name_of(features.weights)}; detect with weights={self.loaded.weights!r}"
            )

    def _check(self, points: Sequence[Floats], descriptors: Sequence[Floats]) -> None:
        for side, (positions, rows) in enumerate(zip(points, descriptors, strict=True)):
            self._check_side(side, positions, rows)

    def _check_side(self, side: int, points: Floats, rows: Floats) -> None:
        if len(points) != len(rows):
            raise FeatureError(
                f"image {side} has {len(points)} positions and {len(rows)} descriptors"
            )
        length = self.loaded.config.descriptor_dim
        if len(rows) and rows.shape[1] != length:
            raise FeatureError(
                f"this matcher is for the {length} numbers of {self.loaded.weights}, image {side} "
                f"has descriptors of {rows.shape[1]}; detect with those weights"
            )
        if not (np.isfinite(points).all() and np.isfinite(rows).all()):
            raise FeatureError(f"image {side} has positions or descriptors that are not finite")
        if len(points) and np.abs(points).max() > FARTHEST:
            raise FeatureError(
                f"image {side} has positions far outside of it; give setPairInfo the sizes of both "
                "images as (width, height), or positions in [-1, 1] and no sizes"
            )
        squares = np.einsum("nd,nd->n", rows, rows)
        if len(rows) and np.abs(squares - 1).max() > UNIT_TOLERANCE:
            raise FeatureError(
                f"image {side} has descriptors that are not of unit length, so they are not those "
                f"of {self.loaded.weights}; pass them as the detector gives them"
            )


def _points(keypoints: Any) -> Floats:
    """(N, 2) of ``cv2.KeyPoint`` objects or of numbers."""
    if len(keypoints) and isinstance(keypoints[0], cv2.KeyPoint):
        return keypoints_to_array(keypoints)
    points = np.asarray(keypoints, np.float32)
    if points.size and (points.ndim != 2 or points.shape[1] != 2):
        raise FeatureError(f"positions must have shape (N, 2), got {points.shape}")
    return points.reshape(-1, 2)


def _rows(descriptors: Any) -> Floats:
    """(N, D); None, as ``cv2`` gives it, is no row."""
    if descriptors is None:
        return np.empty((0, 0), np.float32)
    rows = np.asarray(descriptors)
    if rows.ndim != 2 or rows.dtype != np.float32:
        raise FeatureError(
            f"descriptors must be float32 rows, got {rows.dtype} of shape {rows.shape}"
        )
    return rows


def normalised(points: Floats, size: Sequence[float]) -> Floats:
    """Positions in [-1, 1], each axis by its own side, as ``cv2.LightGlueMatcher`` does.

    Args:
        points: (N, 2) pixels.
        size: (width, height) of the image.
    """
    result: Floats = points / np.asarray(size, np.float32) * np.float32(2) - np.float32(1)
    return result
