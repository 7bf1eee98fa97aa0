"""Match two photographs: mutual nearest neighbours, geometric check, search over quarter turns.

Convention:
    Points are (x, y) in pixels of the image that was passed, (0, 0) the centre of its top-left
    pixel; matrices map image 0 to image 1, float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from cv_superpoint.detector.features import Features
from cv_superpoint.errors import FeatureError
from cv_superpoint.matching.aligning import align_homography
from cv_superpoint.matching.drawing import draw_matches
from cv_superpoint.matching.epipolar import refine_epipolar
from cv_superpoint.matching.estimators import (
    MINIMUM,
    Estimator,
    Model,
    check_estimator,
    find_model,
)
from cv_superpoint.matching.matchers import Matcher, NearestNeighbours, check_matches
from cv_superpoint.matching.nearest import cosines
from cv_superpoint.matching.refining import refine_homography
from cv_superpoint.matching.verdict import LIMIT, log_false_alarms
from cv_superpoint.pictures.arrays import ByteArray, check_image, check_mask

_ROTATIONS = (0, 90, 180, 270)


class Extractor(Protocol):
    """What :func:`match_pair` needs of a detector."""

    def extract(self, image: Any, mask: Any = None) -> Features:
        """Keypoints and descriptors of one image."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MatchResult:
    """The matches between two images and the geometry that verifies them.

    Attributes:
        features0: Features of image 0.
        features1: Features of image 1, at its own coordinates also where it was turned for the
            search; the descriptors are those of the turned image.
        matches: (M, 2) rows of ``features0`` and ``features1``.
        similarity: (M,) float32, cosines of the matched descriptors.
        scores: (M,) float32, how sure the matcher is of each match, higher for surer ones; the
            cosines for nearest neighbours.
        inliers: (M,) bool, the matches that agree with the model.
        homography: (3, 3) float64, or None: too few matches, no agreement, or another model.
        fundamental: (3, 3) float64 with ``x1' F x0 = 0``, or None.
        rotation: Degrees, a multiple of 90, by which image 1 was turned counter-clockwise:
            ``np.rot90(image1, rotation // 90)`` is what was matched.
        refined1: (M, 2) float32, the matched points of image 1 after
            :func:`~cv_superpoint.matching.refining.refine_matches`; None without refinement.
        log_false_alarms: Decimal logarithm of how many models as good as this one chance would
            give (see :mod:`cv_superpoint.matching.verdict`); infinity without a model.
    """

    features0: Features
    features1: Features
    matches: NDArray[np.intp]
    similarity: NDArray[np.float32]
    inliers: NDArray[np.bool_]
    homography: NDArray[np.float64] | None
    fundamental: NDArray[np.float64] | None
    rotation: int
    scores: NDArray[np.float32]
    log_false_alarms: float = math.inf
    refined1: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.matches)

    @property
    def reliable(self) -> bool:
        """Whether more matches agree with the model than chance explains.

        It judges the pair: some matches of two pictures that share nothing agree, too.
        """
        return self.log_false_alarms <= LIMIT

    def to_dmatches(self, inliers: bool = False) -> tuple[cv2.DMatch, ...]:
        """The matches for ``cv2.drawMatches`` and other code written for ``cv2.BFMatcher``.

        Args:
            inliers: Whether to give only the matches that agree with the model.

        Returns:
            One for each match, in their order: ``queryIdx`` is a row of ``features0``, ``trainIdx``
            one of ``features1``, ``distance`` is the Euclidean one of the descriptors, as with
            ``cv2.NORM_L2``.
        """
        kept = self.inliers if inliers else np.ones(len(self), np.bool_)
        # Of unit rows: |a - b|^2 = 2 - 2 a b.
        distances = np.sqrt(np.maximum(2 - 2 * self.similarity, 0))
        return tuple(
            cv2.DMatch(int(first), int(second), float(distance))
            for (first, second), distance in zip(self.matches[kept], distances[kept], strict=True)
        )

    @property
    def points0(self) -> NDArray[np.float32]:
        """(M, 2) matched points in image 0."""
        return self.features0.keypoints[self.matches[:, 0]]

    @property
    def points1(self) -> NDArray[np.float32]:
        """(M, 2) matched points in image 1, in the rows of :attr:`points0`."""
        if self.refined1 is not None:
            return self.refined1
        return self.features1.keypoints[self.matches[:, 1]]

    def draw(self, image0: Any, image1: Any, *, limit: int = 150) -> ByteArray:
        """Draw the images side by side, with green lines between inliers.

        Args:
            image0: Image 0, as passed to :func:`match_pair`.
            image1: Image 1, as passed to :func:`match_pair`.
            limit: Largest number of lines, spread evenly over the inliers; -1 draws all.

        Returns:
            (H, W, 3) uint8 BGR.
        """
        return draw_matches(
            image0, image1, self.points0, self.points1, inliers=self.inliers, limit=limit
        )


def match_pair(
    image0: Any,
    image1: Any,
    detector: Extractor,
    *,
    mask0: Any = None,
    mask1: Any = None,
    rotations: Sequence[int] = (0,),
    model: Model = "homography",
    threshold: float = 3.0,
    max_ratio: float | None = None,
    max_distance: float | None = None,
    matcher: Matcher | None = None,
    estimator: Estimator | None = None,
    refine: bool = False,
    align: bool = False,
) -> MatchResult:
    """Match two images and verify the matches by a common geometry.

    The descriptors tolerate turns of the camera up to some 40 degrees. ``rotations=(0, 90, 180,
    270)`` tries image 1 at each quarter turn and keeps the one with the most inliers, the earlier
    one where two have equally many; docs/results/limits.md shows the gain.

    Args:
        image0: uint8, (H, W) or (H, W, C) with 1, 3 (BGR) or 4 (BGRA) channels.
        image1: Like ``image0``, of any other size.
        detector: Detector, a :class:`~cv_superpoint.SuperPointFeature2D`.
        mask0: None, or uint8 or bool of the size of ``image0``; non-zero keeps.
        mask1: Mask of ``image1``, like ``mask0``.
        rotations: Counter-clockwise turns of ``image1`` to try, of 0, 90, 180 and 270 degrees.
        model: "homography" for flat scenes and turning cameras, "fundamental" for others.
        threshold: Pixels by which an inlier may miss its place, or its epipolar line.
        max_ratio: Ratio test, see :func:`~cv_superpoint.mutual_nearest`.
        max_distance: Distance test, see :func:`~cv_superpoint.mutual_nearest`.
        matcher: Matcher to use instead of mutual nearest neighbours, see
            :mod:`cv_superpoint.matching.matchers`.
        estimator: Method that finds the model: "least-squares", "magsac" or "ransac"; None takes
            the best one measured (see :func:`~cv_superpoint.matching.estimators.find_model`).
        refine: Whether to move the second points of inliers to where the pixels agree, and to
            find the model again (see docs/matching.md).
        align: Whether to end with the homography that makes all of the overlap agree, for scenes
            that are flat all over (see :func:`~cv_superpoint.matching.aligning.align_homography`).

    Returns:
        Matches and inliers in the coordinates of the images as passed. The same input gives the
        same result.

    Raises:
        FeatureError: If an image, a mask or an option is not as above.
    """
    rotations = tuple(rotations)
    options = _Options(model, threshold, estimator, matcher, max_ratio, max_distance)
    _check_rotations(rotations)
    if align and model != "homography":
        raise FeatureError(f"align needs model='homography', got {model!r}")
    image1 = check_image(image1)
    mask1 = check_mask(mask1, image1.shape[:2])
    features0 = detector.extract(image0, mask0)
    best: MatchResult | None = None
    for rotation in rotations:
        turned = _extract_turned(detector, image1, mask1, rotation // 90)
        # The matcher sees positions as the descriptors were made, in the turned image.
        result = _unverified(features0, turned, rotation, options.matcher)
        features1 = _turned_back(turned, image1.shape, rotation // 90)
        result = replace(result, features1=features1)
        if best is not None and len(result) <= best.inliers.sum():
            continue  # not even all of them could beat it
        result = _verify(result, options, tries=len(rotations))
        if best is None or result.inliers.sum() > best.inliers.sum():
            best = result
    assert best is not None  # there is at least one rotation
    if refine:
        best = _refine(best, image0, image1, options)
    if align and best.homography is not None:
        best = replace(
            best, homography=align_homography(image0, image1, best.homography).homography
        )
    return best


def match_features(
    features0: Features,
    features1: Features,
    *,
    model: Model = "homography",
    threshold: float = 3.0,
    max_ratio: float | None = None,
    max_distance: float | None = None,
    matcher: Matcher | None = None,
    estimator: Estimator | None = None,
) -> MatchResult:
    """Match features that exist already, such as those of a file, as :func:`match_pair` does.

    Args:
        features0: Features of image 0.
        features1: Features of image 1.
        model: Same as for :func:`match_pair`.
        threshold: Same as for :func:`match_pair`.
        max_ratio: Same as for :func:`match_pair`.
        max_distance: Same as for :func:`match_pair`.
        matcher: Same as for :func:`match_pair`.
        estimator: Same as for :func:`match_pair`.

    Returns:
        Matches and inliers.

    Raises:
        FeatureError: If an option is not valid there.
    """
    options = _Options(model, threshold, estimator, matcher, max_ratio, max_distance)
    return _verify(_unverified(features0, features1, 0, options.matcher), options, tries=1)


class _Options:
    """What is the same for every turn, checked."""

    def __init__(
        self,
        model: Model,
        threshold: float,
        estimator: Estimator | None,
        matcher: Matcher | None,
        max_ratio: float | None,
        max_distance: float | None,
    ) -> None:
        if model not in MINIMUM:
            raise FeatureError(f"model must be one of {', '.join(MINIMUM)}, got {model!r}")
        if not threshold > 0:
            raise FeatureError(f"threshold must be a positive number of pixels, got {threshold}")
        if matcher is not None and (max_ratio is not None or max_distance is not None):
            raise FeatureError(
                "max_ratio and max_distance are tests of nearest neighbours; give them to the "
                "matcher, or leave the matcher out"
            )
        if matcher is not None and not callable(matcher):
            raise FeatureError(
                f"matcher must take two Features, got {type(matcher).__name__}; wrap a "
                "cv2.DescriptorMatcher in cv_superpoint.matching.matchers.OpenCVMatcher"
            )
        self.model, self.threshold = model, threshold
        self.estimator = check_estimator(estimator, model)
        self.matcher: Matcher = matcher or NearestNeighbours(
            max_ratio=max_ratio, max_distance=max_distance
        )


def _check_rotations(rotations: tuple[int, ...]) -> None:
    unique = len(set(rotations)) == len(rotations)
    if not rotations or not unique or not set(rotations) <= set(_ROTATIONS):
        raise FeatureError(f"rotations must be some of {_ROTATIONS}, each once, got {rotations}")


def _extract_turned(
    detector: Extractor, image: ByteArray, mask: NDArray[np.bool_] | None, turns: int
) -> Features:
    """Features of ``np.rot90(image, turns)``."""
    turned_mask = None if mask is None else np.rot90(mask, turns).astype(np.uint8)
    return detector.extract(np.rot90(image, turns), turned_mask)


def _turned_back(features: Features, shape: tuple[int, ...], turns: int) -> Features:
    """The features of a turned image in the coordinates of the image.

    Pixel (row i, column j) after one turn is pixel (row j, column width - 1 - i) before it, so
    whole pixels map to whole pixels without rounding.
    """
    size = shape[0], shape[1]
    bottom, right = np.float32(size[0] - 1), np.float32(size[1] - 1)
    x, y = features.keypoints.T
    back = {0: (x, y), 1: (right - y, x), 2: (right - x, bottom - y), 3: (y, bottom - x)}[turns]
    return replace(features, keypoints=np.stack(back, axis=1), image_size=size)


def _unverified(
    features0: Features, features1: Features, rotation: int, matcher: Matcher
) -> MatchResult:
    found = matcher(features0, features1)
    matches, scores = check_matches(found, features0, features1)
    similarity = scores
    if not isinstance(matcher, NearestNeighbours):
        similarity = cosines(features0, features1, matches)
    return MatchResult(
        features0=features0,
        features1=features1,
        matches=matches,
        similarity=similarity,
        scores=scores,
        inliers=np.zeros(len(matches), np.bool_),
        homography=None,
        fundamental=None,
        rotation=rotation,
    )


def _verify(result: MatchResult, options: _Options, *, tries: int) -> MatchResult:
    """The result with the model that most of its matches agree with, if there is one."""
    model = options.model
    matrix, inliers = find_model(
        result.points0,
        result.points1,
        model=model,
        threshold=options.threshold,
        estimator=options.estimator,
    )
    if matrix is None:
        return result
    alarms = log_false_alarms(
        result.features0, result.features1, result.matches, matrix, model, tries=tries
    )
    result = replace(result, inliers=inliers, log_false_alarms=alarms)
    if model == "homography":
        return replace(result, homography=matrix)
    return replace(result, fundamental=matrix)


def _refine(result: MatchResult, image0: Any, image1: Any, options: _Options) -> MatchResult:
    """The result with the positions that the pixels say, and the model of these."""
    points = result.points0, result.points1
    if result.homography is not None:
        exact = refine_homography(
            image0, image1, *points, result.homography, threshold=options.threshold
        )
        return replace(result, refined1=exact.points1, homography=exact.homography)
    if result.fundamental is None:
        return result
    solve = partial(
        find_model,
        model="fundamental",
        threshold=options.threshold,
        estimator=options.estimator,
    )
    points1, matrix, inliers = refine_epipolar(
        image0,
        image1,
        *points,
        result.fundamental,
        result.inliers,
        solve,
        threshold=options.threshold,
    )
    return replace(result, refined1=points1, fundamental=matrix, inliers=inliers)
