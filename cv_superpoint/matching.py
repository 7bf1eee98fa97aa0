"""Match two photographs: mutual nearest neighbours, geometric check, search over quarter turns.

Convention:
    Points are (x, y) in pixels of the image that was passed, (0, 0) the centre of its top-left
    pixel; matrices map image 0 to image 1, float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from cv_superpoint.errors import FeatureError
from cv_superpoint.features import Features
from cv_superpoint.image import ByteArray, check_image, check_mask

Model = Literal["homography", "fundamental"]

BLOCK_ELEMENTS = 2**22
"""Similarities computed at a time, 16 MiB, whatever the number of descriptors."""
UNIT_TOLERANCE = 1e-2
"""How far from 1 the squared length of a descriptor may lie."""
MAX_ITERATIONS = 10_000
CONFIDENCE = 0.9999

_ROTATIONS = (0, 90, 180, 270)
_MINIMUM = {"homography": 4, "fundamental": 8}
"""Matches below which a model is not determined."""

_GREEN, _GREY = (80, 220, 60), (40, 40, 40)


class Extractor(Protocol):
    """What :func:`match_pair` needs of a detector."""

    def extract(self, image: Any, mask: Any = None) -> Features:
        """Keypoints and descriptors of one image."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MatchResult:
    """The matches between two images and the geometry that verifies them.

    Attributes:
        features0: Of image 0.
        features1: Of image 1, at its own coordinates also where it was turned for the search; the
            descriptors are those of the turned image.
        matches: (M, 2) rows of ``features0`` and ``features1``.
        similarity: (M,) float32, cosines of the matched descriptors.
        inliers: (M,) bool, the matches that agree with the model.
        homography: (3, 3) float64, or None: too few matches, no agreement, or another model.
        fundamental: (3, 3) float64 with ``x1' F x0 = 0``, or None likewise.
        rotation: Degrees, a multiple of 90, by which image 1 was turned counter-clockwise:
            ``np.rot90(image1, rotation // 90)`` is what was matched.
    """

    features0: Features
    features1: Features
    matches: NDArray[np.intp]
    similarity: NDArray[np.float32]
    inliers: NDArray[np.bool_]
    homography: NDArray[np.float64] | None
    fundamental: NDArray[np.float64] | None
    rotation: int

    def __len__(self) -> int:
        return len(self.matches)

    @property
    def points0(self) -> NDArray[np.float32]:
        """(M, 2) matched points in image 0."""
        return self.features0.keypoints[self.matches[:, 0]]

    @property
    def points1(self) -> NDArray[np.float32]:
        """(M, 2) matched points in image 1, row by row those of :attr:`points0`."""
        return self.features1.keypoints[self.matches[:, 1]]

    def draw(self, image0: Any, image1: Any, *, limit: int = 150) -> ByteArray:
        """The images side by side, inliers joined by green lines.

        Args:
            image0: As passed to :func:`match_pair`.
            image1: Likewise.
            limit: Lines drawn at most, spread evenly over the inliers; -1 draws all.

        Returns:
            (H, W, 3) uint8 BGR.
        """
        left, right = to_bgr(image0), to_bgr(image1)
        height = max(left.shape[0], right.shape[0])
        canvas = np.full((height, left.shape[1] + right.shape[1], 3), _GREY, np.uint8)
        canvas[: left.shape[0], : left.shape[1]] = left
        canvas[: right.shape[0], left.shape[1] :] = right
        chosen = np.flatnonzero(self.inliers)
        if 0 <= limit < len(chosen):
            chosen = chosen[np.linspace(0, len(chosen) - 1, limit).round().astype(np.intp)]
        starts = np.rint(self.points0[chosen]).astype(int)
        ends = np.rint(self.points1[chosen]).astype(int)
        ends[:, 0] += left.shape[1]
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            cv2.line(canvas, start, end, _GREEN, 1, cv2.LINE_AA)
            cv2.circle(canvas, start, 3, _GREEN, 1, cv2.LINE_AA)
            cv2.circle(canvas, end, 3, _GREEN, 1, cv2.LINE_AA)
        return canvas


def mutual_nearest(
    descriptors0: Any, descriptors1: Any
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Pairs of descriptors of which each is the other's nearest.

    ``cv2.BFMatcher(cv2.NORM_L2, crossCheck=True)`` finds the same pairs; one matrix product is
    many times faster. The memory in use does not grow with the number of descriptors.

    Args:
        descriptors0: (N0, D) rows of unit length; None, as ``cv2`` gives it, is no row.
        descriptors1: (N1, D) likewise.

    Returns:
        (M, 2) row numbers, ascending in the first column, and (M,) float32 cosines. Every row is
        in one pair at most.

    Raises:
        FeatureError: If the shapes do not fit or rows are not of unit length.
    """
    first = _check_descriptors(descriptors0, "descriptors0")
    second = _check_descriptors(descriptors1, "descriptors1")
    if len(first) == 0 or len(second) == 0:
        return np.empty((0, 2), np.intp), np.empty(0, np.float32)
    if first.shape[1] != second.shape[1]:
        raise FeatureError(
            "descriptors0 and descriptors1 must be of one length, "
            f"got {first.shape} and {second.shape}"
        )
    nearest = np.empty(len(first), np.intp)
    similarity = np.empty(len(first), np.float32)
    best = np.full(len(second), -np.inf, np.float32)
    step = max(1, BLOCK_ELEMENTS // len(second))
    for start in range(0, len(first), step):
        rows = slice(start, start + step)
        block = first[rows] @ second.T
        nearest[rows] = block.argmax(axis=1)
        similarity[rows] = np.take_along_axis(block, nearest[rows, None], axis=1)[:, 0]
        np.maximum(best, block.max(axis=0), out=best)
    # Equal numbers, not nearly equal ones: both sides come from the same product. A maximum along
    # columns is a vector operation where an argmax is not.
    mutual = np.flatnonzero(similarity == best[nearest])
    # Equal descriptors may claim one partner twice: the first keeps it.
    mutual = np.sort(mutual[np.unique(nearest[mutual], return_index=True)[1]])
    return np.stack([mutual, nearest[mutual]], axis=1), similarity[mutual]


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
) -> MatchResult:
    """Match two images and verify the matches by a common geometry.

    The descriptors tolerate turns of the camera up to some 40 degrees. ``rotations=(0, 90, 180,
    270)`` tries image 1 at each quarter turn and keeps the one with the most inliers, the earlier
    one where two have equally many; docs/options.md tells what that gains.

    Args:
        image0: uint8, (H, W) or (H, W, C) with 1, 3 (BGR) or 4 (BGRA) channels.
        image1: Likewise, of any other size.
        detector: A :class:`~cv_superpoint.SuperPointFeature2D`.
        mask0: None, or uint8 or bool of the size of ``image0``; non-zero keeps.
        mask1: The same for ``image1``.
        rotations: Counter-clockwise turns of ``image1`` to try, of 0, 90, 180 and 270 degrees.
        model: "homography" for flat scenes and turning cameras, "fundamental" for others.
        threshold: Pixels by which an inlier may miss its place, or its epipolar line.

    Returns:
        Matches and inliers in the coordinates of the images as passed. The same input gives the
        same result.

    Raises:
        FeatureError: If an image, a mask or an option is not as above.
    """
    rotations = tuple(rotations)
    _check_options(rotations, model, threshold)
    image1 = check_image(image1)
    mask1 = check_mask(mask1, image1.shape[:2])
    features0 = detector.extract(image0, mask0)
    best: MatchResult | None = None
    for rotation in rotations:
        features1 = _extract_turned(detector, image1, mask1, rotation // 90)
        result = _match(features0, features1, rotation)
        if best is not None and len(result) <= best.inliers.sum():
            continue  # not even all of them could beat it
        result = _verify(result, model, threshold)
        if best is None or result.inliers.sum() > best.inliers.sum():
            best = result
    assert best is not None  # there is at least one rotation
    return best


def _check_options(rotations: tuple[int, ...], model: str, threshold: float) -> None:
    unique = len(set(rotations)) == len(rotations)
    if not rotations or not unique or not set(rotations) <= set(_ROTATIONS):
        raise FeatureError(f"rotations must be some of {_ROTATIONS}, each once, got {rotations}")
    if model not in _MINIMUM:
        raise FeatureError(f"model must be one of {', '.join(_MINIMUM)}, got {model!r}")
    if not threshold > 0:
        raise FeatureError(f"threshold must be a positive number of pixels, got {threshold}")


def _check_descriptors(descriptors: Any, name: str) -> NDArray[np.float32]:
    if descriptors is None:
        return np.empty((0, 0), np.float32)
    if not isinstance(descriptors, np.ndarray) or descriptors.ndim != 2:
        raise FeatureError(
            f"{name} must be an (N, D) array, got {getattr(descriptors, 'shape', descriptors)}"
        )
    rows = descriptors.astype(np.float32, copy=False)
    squares = np.einsum("nd,nd->n", rows, rows)
    wrong = np.flatnonzero(~(np.abs(squares - 1) <= UNIT_TOLERANCE))  # NaN is wrong, too
    if len(wrong):
        raise FeatureError(
            f"{name} must have rows of unit length, got length {np.sqrt(squares[wrong[0]]):g} in "
            f"row {wrong[0]}; divide them by np.linalg.norm(rows, axis=1, keepdims=True), or use "
            "cv2.BFMatcher"
        )
    return rows


def _extract_turned(
    detector: Extractor, image: ByteArray, mask: NDArray[np.bool_] | None, turns: int
) -> Features:
    """Features of ``np.rot90(image, turns)`` in the coordinates of the image.

    Pixel (row i, column j) after one turn is pixel (row j, column width - 1 - i) before it, so
    whole pixels map to whole pixels without rounding.
    """
    turned_mask = None if mask is None else np.rot90(mask, turns).astype(np.uint8)
    features = detector.extract(np.rot90(image, turns), turned_mask)
    size = image.shape[0], image.shape[1]
    bottom, right = np.float32(size[0] - 1), np.float32(size[1] - 1)
    x, y = features.keypoints.T
    back = {0: (x, y), 1: (right - y, x), 2: (right - x, bottom - y), 3: (y, bottom - x)}[turns]
    return replace(features, keypoints=np.stack(back, axis=1), image_size=size)


def _match(features0: Features, features1: Features, rotation: int) -> MatchResult:
    """The matches, none of them verified."""
    matches, similarity = mutual_nearest(features0.descriptors, features1.descriptors)
    return MatchResult(
        features0=features0,
        features1=features1,
        matches=matches,
        similarity=similarity,
        inliers=np.zeros(len(matches), np.bool_),
        homography=None,
        fundamental=None,
        rotation=rotation,
    )


def _verify(result: MatchResult, model: Model, threshold: float) -> MatchResult:
    """The result with the model that most of its matches agree with, if there is one."""
    if len(result) < _MINIMUM[model]:
        return result
    points0, points1 = result.points0, result.points1
    # MAGSAC draws from a generator of its own with a fixed seed.
    matrix: Any
    mask: Any
    if model == "homography":
        matrix, mask = cv2.findHomography(
            points0,
            points1,
            cv2.USAC_MAGSAC,
            threshold,
            maxIters=MAX_ITERATIONS,
            confidence=CONFIDENCE,
        )
    else:
        matrix, mask = cv2.findFundamentalMat(
            points0, points1, cv2.USAC_MAGSAC, threshold, CONFIDENCE, MAX_ITERATIONS
        )
    if matrix is None or matrix.shape != (3, 3):
        return result
    inliers = mask.reshape(-1).astype(np.bool_)
    matrix = matrix.astype(np.float64)
    if model == "homography":
        return replace(result, inliers=inliers, homography=matrix)
    return replace(result, inliers=inliers, fundamental=matrix)


def to_bgr(image: Any) -> ByteArray:
    """The checked image with three channels, for drawing."""
    image = np.ascontiguousarray(check_image(image))
    channels = 1 if image.ndim == 2 else image.shape[2]
    if channels != 3:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR if channels == 1 else cv2.COLOR_BGRA2BGR)
    picture: ByteArray = image
    return picture
