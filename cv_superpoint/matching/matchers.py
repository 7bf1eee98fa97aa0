"""Matchers: two sets of features in, matched rows and scores out.

:func:`~cv_superpoint.match_pair`, the commands and the viewer take any :class:`Matcher`. Here are
nearest neighbours and OpenCV's descriptor matchers; :class:`~cv_superpoint.LightGlueMatcher` is the
learned one, and :mod:`cv_superpoint.interop.lightglue` has those of other programs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from cv_superpoint.detector.features import Features, float_rows
from cv_superpoint.errors import FeatureError, SuperPointError
from cv_superpoint.matching.estimators import find_model
from cv_superpoint.matching.guided import guided_matches
from cv_superpoint.matching.nearest import RATIO, Pairs, are_binary, nearest_features


class Matcher(Protocol):
    """A matcher of the features of two images."""

    def __call__(self, features0: Features, features1: Features, /) -> Pairs:
        """Match.

        Args:
            features0: Features of image 0.
            features1: Features of image 1.

        Returns:
            (M, 2) intp rows of both, each row in one match at most, and (M,) float32 scores, the
            higher the surer.
        """


@dataclass(frozen=True, kw_only=True)
class NearestNeighbours:
    """Mutual nearest neighbours; a score is the cosine of both descriptors.

    Attributes:
        max_ratio: Same as for :func:`~cv_superpoint.mutual_nearest`.
        max_distance: Same as for :func:`~cv_superpoint.mutual_nearest`.
    """

    max_ratio: float | None = None
    max_distance: float | None = None

    def __call__(self, features0: Features, features1: Features, /) -> Pairs:
        """Match."""
        return nearest_features(
            features0, features1, max_ratio=self.max_ratio, max_distance=self.max_distance
        )


@dataclass(frozen=True, kw_only=True)
class Guided:
    """Mutual nearest neighbours, and again among those that their homography allows.

    Attributes:
        threshold: Pixels by which an inlier may miss the first homography.
    """

    threshold: float = 3.0

    def __call__(self, features0: Features, features1: Features, /) -> Pairs:
        """Match; the first matches where they have no homography."""
        first = NearestNeighbours()(features0, features1)
        rows = first[0]
        homography, _ = find_model(
            features0.keypoints[rows[:, 0]],
            features1.keypoints[rows[:, 1]],
            threshold=self.threshold,
        )
        if homography is None:
            return first
        return guided_matches(features0, features1, homography=homography)


class OpenCVMatcher:
    """``cv2.BFMatcher``, ``cv2.FlannBasedMatcher`` or another ``cv2.DescriptorMatcher``.

    Neighbours are kept where they are mutual, whether the matcher has a cross check or not (FLANN
    has none). A score is the distance of the descriptors, negative.

    Args:
        matcher: ``cv2.BFMatcher(cv2.NORM_L2)``, ``cv2.FlannBasedMatcher()``. For descriptors that
            are bytes of bits it needs ``cv2.NORM_HAMMING``, or an LSH index.
        max_ratio: Largest ratio of a match's distance to the distance of the second nearest.
            A matcher with a cross check finds no second nearest.
    """

    def __init__(self, matcher: cv2.DescriptorMatcher, *, max_ratio: float | None = None) -> None:
        if max_ratio is not None and not 0 < max_ratio <= 1:
            raise FeatureError(f"max_ratio must lie in (0, 1], got {max_ratio}")
        self._matcher, self._max_ratio = matcher, max_ratio

    def __call__(self, features0: Features, features1: Features, /) -> Pairs:
        """Match.

        Raises:
            FeatureError: If the matcher does not take bits, and the descriptors are such.
        """
        if len(features0) == 0 or len(features1) == 0:
            return np.empty((0, 2), np.intp), np.empty(0, np.float32)
        binary = are_binary(features0, features1)
        try:
            forward = self._nearest(features0, features1)
            backward = {(j, i) for j, i in self._nearest(features1, features0, test=False)}
        except cv2.error as error:
            if not binary:
                raise
            raise FeatureError(
                f"{type(self._matcher).__name__} does not take binary descriptors; use "
                "cv2.BFMatcher(cv2.NORM_HAMMING), or an LSH index with cv2.FlannBasedMatcher, or "
                "extract with descriptorFormat='float32' or 'uint8'"
            ) from error
        kept = {pair: distance for pair, distance in forward.items() if pair[::-1] in backward}
        rows = np.array(list(kept), np.intp).reshape(-1, 2)
        return rows, -np.array(list(kept.values()), np.float32)

    def _nearest(
        self, first: Features, second: Features, *, test: bool = True
    ) -> dict[tuple[int, int], float]:
        """Distances by row and nearest row, in the order of the rows."""
        rows = _rows(first), _rows(second)
        if self._max_ratio is None or not test or len(second) < 2:
            found = self._matcher.match(*rows)
            return {(each.queryIdx, each.trainIdx): each.distance for each in found}
        pairs = [pair for pair in self._matcher.knnMatch(*rows, k=2) if len(pair) == 2]
        return {
            (best.queryIdx, best.trainIdx): best.distance
            for best, other in pairs
            if best.distance <= self._max_ratio * other.distance
        }


class LearnedMatcher:
    """The bundled :class:`~cv_superpoint.LightGlueMatcher` of whichever weights found the features.

    It is loaded at the first pair.
    """

    def __init__(self) -> None:
        self._loaded: dict[str, Matcher] = {}

    def __call__(self, features0: Features, features1: Features, /) -> Pairs:
        """Match.

        Raises:
            WeightsError: If these weights have no matcher.
            FeatureError: If it is not known whose features they are, or they are of two sets.
        """
        if len(features0) == 0 or len(features1) == 0:
            return np.empty((0, 2), np.intp), np.empty(0, np.float32)
        weights = features0.weights or features1.weights
        if not weights:
            raise FeatureError(
                "these features do not say which weights made them; name the matcher's weights or "
                "its file: cv_superpoint.LightGlueMatcher.create('superpoint')"
            )
        return self.load(weights)(features0, features1)

    def load(self, weights: str) -> Matcher:
        """The matcher for features of the weights whose tensors have this digest.

        Raises:
            WeightsError: If there is none.
        """
        if weights not in self._loaded:
            # With what it needs, such as the graphs of ONNX.
            from cv_superpoint.matching.lightglue.bundled import matcher_of
            from cv_superpoint.matching.lightglue.matcher import LightGlueMatcher

            loaded = matcher_of(weights)
            self._loaded[weights] = LightGlueMatcher(loaded, loaded.threshold)
        return self._loaded[weights]


def _rows(features: Features) -> NDArray[Any]:
    """Descriptors as OpenCV's matchers are fast with: FLANN takes no bytes, BFMatcher is slow."""
    binary = features.descriptor_kind == "binary"
    return features.descriptors if binary else float_rows(features, "OpenCV")


MATCHERS: dict[str, Callable[[], Matcher]] = {
    "mutual": NearestNeighbours,
    "ratio": lambda: NearestNeighbours(max_ratio=RATIO),
    "guided": Guided,
    "lightglue": LearnedMatcher,
    "flann": lambda: OpenCVMatcher(cv2.FlannBasedMatcher()),
}
"""Names of matchers that the commands and the viewer accept."""


def build_matcher(name: str) -> Matcher:
    """A matcher by name.

    Args:
        name: One of :data:`MATCHERS`; a file of ``python -m train matcher``, ending in
            ``.safetensors``; or ``module:factory``, a function that makes a matcher.

    Raises:
        SuperPointError: If there is none of that name, or the factory fails.
        WeightsError: If the file is no matcher.
    """
    if name in MATCHERS:
        return MATCHERS[name]()
    if name.endswith(".safetensors"):
        from cv_superpoint.matching.lightglue.matcher import LightGlueMatcher

        return LightGlueMatcher.create(Path(name))
    module, colon, attribute = name.partition(":")
    if not colon:
        raise SuperPointError(
            f"no matcher is called {name!r}; use {', '.join(MATCHERS)}, a matcher's file "
            "(.safetensors) or module:factory"
        )
    try:
        matcher: Any = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError, TypeError) as error:
        raise SuperPointError(f"cannot make the matcher {name}: {error}") from error
    if not callable(matcher):
        raise SuperPointError(
            f"{name} made a {type(matcher).__name__}, which cannot be called with two Features; "
            "wrap a cv2.DescriptorMatcher in OpenCVMatcher"
        )
    made: Matcher = matcher
    return made


def check_matches(
    found: tuple[Any, Any], features0: Features, features1: Features
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """What a matcher returned, as (M, 2) rows and (M,) scores.

    Raises:
        FeatureError: If it is something else, or names rows that are not there.
    """
    rows, scores = np.asarray(found[0]), np.asarray(found[1], np.float32)
    if rows.size == 0:
        return np.empty((0, 2), np.intp), np.empty(0, np.float32)
    if rows.ndim != 2 or rows.shape[1] != 2 or rows.dtype.kind not in "iu":
        raise FeatureError(
            f"a matcher must return (M, 2) rows, got {rows.dtype} of shape {rows.shape}"
        )
    if scores.shape != (len(rows),):
        raise FeatureError(
            f"a matcher must return a score for each match, got {scores.shape} for {len(rows)}"
        )
    if (rows < 0).any() or (rows >= (len(features0), len(features1))).any():
        raise FeatureError(
            f"a matcher returned rows that are not there; there are {len(features0)} and "
            f"{len(features1)}"
        )
    return rows.astype(np.intp), scores
